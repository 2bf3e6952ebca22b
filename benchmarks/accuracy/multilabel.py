"""Several labels an image: train on images with sets of labels, and rank others by each label."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from sklearn_clce import BackboneFeatures

from .configuration import HEADS, OURS
from .models import make_ours, resized, settings_of, timed_fit
from .pictures import COLLECTIONS


def multilabel(configuration, surroundings):
    """Train on images that the seed draws, and measure all test images; features are kept."""
    x_train, y_train, x_test, y_test = drawn_images(configuration, surroundings)
    model = make_multilabel(configuration, surroundings)
    training = timed_fit(model, x_train, y_train, surroundings)
    metrics = multilabel_metrics(y_test, model.predict_proba(x_test))
    return {"metrics": metrics, **training, "images": [len(x_train), len(x_test)]}


def drawn_images(configuration, surroundings):
    """Read images and indicators of labels; fewer training images are some of more."""
    anyone = replace(configuration, method="", shots=0, parameters=(), recipe=None, seed=0)
    x_train, y_train, x_test, y_test = _all_images(anyone, surroundings)
    rows = np.random.default_rng(configuration.seed).permutation(len(y_train))
    rows = rows[: configuration.shots]
    return x_train[rows], y_train[rows], x_test, y_test


@lru_cache(maxsize=1)
def _all_images(configuration, surroundings):
    x_train, y_train, x_test, y_test = COLLECTIONS[configuration.data].load(surroundings.data)
    x_train, x_test = x_train[np.arange(len(y_train))], x_test[np.arange(len(y_test))]
    return resized((x_train, y_train, x_test, y_test), configuration, surroundings)


def make_multilabel(configuration, surroundings):
    """Make the classifier that a configuration names."""
    settings = settings_of(configuration, surroundings)
    kept = settings | {"memory": surroundings.features}
    if configuration.method in OURS:
        chosen = kept if configuration.method in HEADS else settings
        return make_ours(configuration, surroundings, **chosen)
    features = BackboneFeatures(configuration.backbone, **kept)
    return make_pipeline(features, OneVsRestClassifier(LogisticRegression()))


def multilabel_metrics(y, probabilities):
    """Measure predicted probabilities of several labels.

    Parameters
    ----------
    y : ndarray of shape (n, n_labels)
        1 where an image has a label, else 0.
    probabilities : ndarray of shape (n, n_labels)
        Predicted.

    Returns
    -------
    dict of str to float
        ``mean_average_precision``, over labels that an image has; ``accuracy``, the share of
        images all of whose labels are right at 0.5; ``log_loss``, its mean over labels.
    """
    probabilities = probabilities.astype(np.float64)
    present = y.any(axis=0)
    precision = average_precision_score(y[:, present], probabilities[:, present], average="macro")
    losses = [log_loss(*one, labels=[0, 1]) for one in zip(y.T, probabilities.T, strict=True)]
    return {
        "accuracy": float(np.mean(((probabilities > 0.5) == y).all(axis=1))),
        "mean_average_precision": float(precision),
        "log_loss": float(np.mean(losses)),
    }
