"""Kinds of data where users are: much depth, few of some classes, labels that are wrong."""

import numpy as np

from .metrics import classification_metrics
from .models import drawn, make_model, timed_fit

DARK, LIGHT = 1_000, 5_095  # of 65,535: a camera of 12 bits, as files of 16 bits hold it
MOST, FEWEST_IMAGES = 50, 5  # of the first class and of the last
SHARE_WRONG = 0.2


def as_grey(images):
    """Return the luminance of images in [0, 1]: uint8 (n, H, W, 3) -> float (n, H, W)."""
    return images @ (0.299, 0.587, 0.114) / 255


def eight_bits(images):
    """Store grey as most files do: uint8 (n, H, W, 3) -> uint8 (n, H, W)."""
    return np.round(as_grey(images) * 255).astype(np.uint8)


def sixteen_bits(images):
    """Store grey in a small part of 16 bits: uint8 (n, H, W, 3) -> uint16 (n, H, W)."""
    return np.round(DARK + as_grey(images) * (LIGHT - DARK)).astype(np.uint16)


def imbalanced(x, y, seed):
    """Leave ever fewer images of each next class, from 50 to 5, in an order that the seed draws."""
    classes = np.random.default_rng(seed).permutation(np.unique(y))
    counts = np.geomspace(MOST, FEWEST_IMAGES, len(classes)).round().astype(int)
    kept = [np.flatnonzero(y == one)[:n] for one, n in zip(classes, counts, strict=True)]
    kept = np.sort(np.concatenate(kept))
    return x[kept], y[kept]


def with_wrong_labels(y, seed):
    """Give a fifth of the images of each class the label of another class."""
    rng, wrong = np.random.default_rng(seed), y.copy()
    classes = np.unique(y)
    for label in classes:
        rows = np.flatnonzero(y == label)
        rows = rng.permutation(rows)[: round(SHARE_WRONG * len(rows))]
        wrong[rows] = rng.choice(classes[classes != label], len(rows))
    return wrong


def kind(configuration, surroundings):
    """Train on images of a kind, and classify others."""
    x_train, y_train, x_test, y_test = drawn(configuration, surroundings, configuration.shots)
    match configuration.task:
        case "grey_8_bits":
            x_train, x_test = eight_bits(x_train), eight_bits(x_test)
        case "grey_16_bits":
            x_train, x_test = sixteen_bits(x_train), sixteen_bits(x_test)
        case "imbalanced":
            x_train, y_train = imbalanced(x_train, y_train, configuration.seed)
        case "wrong_labels":
            y_train = with_wrong_labels(y_train, configuration.seed)
    model = make_model(configuration, surroundings)
    training = timed_fit(model, x_train, y_train, surroundings)
    metrics = classification_metrics(model.classes_, y_test, model.predict_proba(x_test))
    classes = np.unique(y_test)
    predicted = model.predict(x_test)
    recalls = [float(np.mean(predicted[y_test == one] == one)) for one in classes]
    metrics["balanced_accuracy"] = float(np.mean(recalls))
    return {"metrics": metrics, **training, "images": [len(x_train), len(x_test)]}
