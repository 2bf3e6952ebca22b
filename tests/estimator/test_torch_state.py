"""A public method gives the same in any state of torch, and leaves the state as it was."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from sklearn_clce import BackboneFeatures, CLCEClassifier

X, Y = load_digits(n_class=2, return_X_y=True)
IMAGES, Y = X[:24].reshape(-1, 8, 8) / 16, Y[:24]


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "default_dtype": default_dtype,
    "default_device": default_device,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def classifier(**params):
    defaults = {"image_size": 32, "max_epochs": 2, "random_state": 0, "trainable": "head"}
    return CLCEClassifier(**defaults | params)


def saved_and_loaded(clf, folder):
    clf.save(folder / "model.safetensors")
    return CLCEClassifier.load(folder / "model.safetensors").predict_proba(IMAGES)


FITTED = classifier().fit(IMAGES, Y)
METHODS = {
    "fit": lambda folder: classifier().fit(IMAGES, Y).predict_proba(IMAGES),
    "fit a backbone": lambda folder: classifier(trainable=1).fit(IMAGES, Y).predict_proba(IMAGES),
    "partial_fit": lambda folder: classifier().partial_fit(IMAGES, Y, [0, 1]).transform(IMAGES),
    "predict": lambda folder: FITTED.predict(IMAGES),
    "decision_function": lambda folder: FITTED.decision_function(IMAGES),
    "transform": lambda folder: FITTED.transform(IMAGES),
    "score_samples": lambda folder: FITTED.score_samples(IMAGES),
    "score": lambda folder: FITTED.score(IMAGES, Y),
    "add_classes": lambda folder: (
        classifier().fit(IMAGES, Y).add_classes(1 - IMAGES[:3], [2] * 3).predict_proba(IMAGES)
    ),
    "save and load": lambda folder: saved_and_loaded(FITTED, folder),
    "BackboneFeatures": lambda folder: BackboneFeatures(image_size=32).transform(IMAGES),
}


def state_now():
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: method(folder) for name, method in METHODS.items()}, folder


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(name=st.sampled_from(sorted(METHODS)), state=st.sampled_from(sorted(STATES)))
def test_method_ignores_state_of_torch(expected, name, state):
    results, folder = expected
    with STATES[state]():
        before = state_now()
        found = METHODS[name](folder)
        assert state_now() == before
    np.testing.assert_array_equal(found, results[name])
