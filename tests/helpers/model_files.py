"""Small classifiers, saved and loaded, and what makes two of them the same."""

import copy

import numpy as np
from numpy.testing import assert_array_equal
from torch import nn

from sklearn_clce import CLCEClassifier
from small_backbones import TinyBackbone


def on_features(**params):
    return CLCEClassifier("precomputed", **{"max_epochs": 3, "random_state": 0} | params)


def vit(**params):
    return CLCEClassifier(
        "test_vit", pretrained=False, image_size=32, max_epochs=1, random_state=0, **params
    )


def tiny(**params):
    return CLCEClassifier(
        TinyBackbone(), **{"image_size": 16, "max_epochs": 2, "random_state": 0} | params
    )


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def vectors():
    return np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)


def saved_and_loaded(clf, folder, **options):
    clf.save(folder / "model.safetensors")
    backbone = clf.backbone if isinstance(clf.backbone, nn.Module) else None
    # another instance with other weights: the file's must take their place
    if backbone is not None:
        backbone = copy.deepcopy(backbone)
        for parameter in backbone.parameters():
            parameter.data.mul_(2)
    return CLCEClassifier.load(folder / "model.safetensors", backbone=backbone, **options)


def assert_same_model(loaded, clf, X):
    assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert_array_equal(loaded.decision_function(X), clf.decision_function(X))
    assert_array_equal(loaded.transform(X), clf.transform(X))
    assert_array_equal(loaded.predict(X), clf.predict(X))
