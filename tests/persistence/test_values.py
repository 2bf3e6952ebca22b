"""Labels, parameters and the history come back from a model file, or are named."""

import copy
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback

from model_files import assert_same_model, on_features, saved_and_loaded, vectors
from sklearn_clce import CLCEClassifier, FeatureStore


@pytest.fixture(scope="module")
def fitted_head():
    return on_features(max_epochs=1).fit(vectors(), np.arange(12) % 2)


LABELS = {
    **{dtype: np.array([1, 0], dtype=dtype) for dtype in ("i1", "i2", "i4", "i8", "u1", "?")},
    **{dtype: np.array([3, 7], dtype=dtype) for dtype in ("f2", "f4", "f8", ">i4", ">f8", "u2")},
    "large": np.array([2**64 - 1, 2**63], dtype=np.uint64),
    "negative": np.array([-(2**63), 2**63 - 1]),
    "str": np.array(["zebra", "ant"]),
    "wide str": np.array(["zebra", "ant"], dtype="U100"),
    "big-endian str": np.array(["zebra", "ant"], dtype=">U7"),
    "surrogates and NUL": np.array(["\ud800", "a\0b"]),
    "no ASCII": np.array(["", "Бär \U0001f43b\n\"\\'"]),
    "object": np.array(["zebra", "ant"], dtype=object),
    "object with NUL at the end": np.array(["\udfff", "a\0"], dtype=object),
    "object of numpy str": np.array([np.str_("b"), np.str_("a")], dtype=object),
    "date": np.array(["2020-01-01", "1969-02-03"], dtype="M8[D]"),
    "duration": np.array([5, -1], dtype="m8[ns]"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_each_kind_come_back(kind, tmp_path):
    y = LABELS[kind][np.arange(12) % 2]
    clf = on_features(max_epochs=1).fit(vectors(), y)
    loaded = saved_and_loaded(clf, tmp_path)
    assert_array_equal(loaded.classes_, clf.classes_)
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert list(map(type, loaded.classes_)) == [
        str if kind == "object of numpy str" else type(label) for label in clf.classes_
    ]
    assert_array_equal(loaded.predict(vectors()), clf.predict(vectors()))
    loaded.partial_fit(vectors(), y)


def test_labels_of_other_dtypes_are_rejected(fitted_head, tmp_path):
    clf = copy.copy(fitted_head)
    clf.classes_ = np.array([1, 2], dtype=np.longdouble)
    with pytest.raises(ValueError, match="labels of dtype"):
        clf.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


PLAIN = {
    "pretrained": False,
    "trainable": "head",
    "weight": np.float64(0.25),
    "temperature": np.float32(0.1),
    "hardness": 0,
    "positives": "mean",
    "label_smoothing": 0.1,
    "projection_dim": np.int64(8),
    "image_size": 64,
    "image_shape": (8, 8),
    "learning_rate": 1e-300,
    "layer_decay": "auto",
    "max_grad_norm": None,
    "augment": None,
    "class_weight": {np.str_("left"): 2, "none": np.float32(0.1)},
    "early_stopping": False,
    "warm_start": True,
    "num_workers": 2,
    "random_state": 7,
    "verbose": False,
    "skorch_params": {"callbacks__lr_scheduler": None, "optimizer__betas": (0.8, 0.9)},
}


def test_plain_parameters_come_back_unchanged(colour_labels, tmp_path):
    clf = on_features(class_weight="balanced").fit(vectors(), colour_labels).set_params(**PLAIN)
    loaded = saved_and_loaded(clf, tmp_path)
    assert loaded.get_params() == clf.get_params()
    for name in ("pretrained", "image_shape", "verbose"):
        assert type(getattr(loaded, name)) is type(getattr(clf, name))
    assert loaded.net_.optimizer_.param_groups[0]["betas"] == (0.8, 0.9)


class Noted(Callback):
    """A callback that does nothing."""


def flip(images):
    return images.flip(-1)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"augment": flip}, "augment=flip"),
        ({"augment": partial(flip)}, "augment=partial"),
        ({"callbacks": [Noted()]}, "callbacks=list"),
        ({"skorch_params": {"optimizer": torch.optim.SGD}}, "skorch_params=dict"),
        ({"skorch_params": {"iterator_valid__num_workers": 10**6}}, "skorch_params=dict"),
        ({"random_state": np.random.RandomState(0)}, "random_state=RandomState"),
        ({"class_weight": {"left": np.ones(2)}}, "class_weight=dict"),
        ({"num_workers": 1000}, "num_workers=int"),
        ({"augment": flip, "memory": "somewhere"}, "augment=flip"),
    ],
)
def test_unstored_parameters_are_named(params, named, fitted_head, tmp_path):
    clf = copy.copy(fitted_head).set_params(**params)
    with pytest.warns(UserWarning, match=f"^{named} can't be stored .* set_params sets them again"):
        clf.save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model")
    for name in params:
        assert getattr(loaded, name) == getattr(CLCEClassifier(), name)
    assert_same_model(loaded, clf, vectors())
    content = (tmp_path / "model").read_bytes()
    assert not any(word in content for word in (b"flip", b"somewhere", b"elsewhere", b"SGD"))


@pytest.mark.parametrize(
    "params",
    [
        {"memory": "somewhere"},
        {"memory": joblib.Memory("somewhere")},
        {"memory": FeatureStore("somewhere")},
        {"checkpoint": Path("elsewhere")},
        {"device": "cuda:7"},
    ],
)
def test_settings_of_the_machine_are_left_out_silently(params, fitted_head, tmp_path):
    clf = copy.copy(fitted_head).set_params(**params)
    clf.save(tmp_path / "model")  # warnings are errors
    loaded = CLCEClassifier.load(tmp_path / "model")
    for name in params:
        assert getattr(loaded, name) == getattr(CLCEClassifier(), name)
    content = (tmp_path / "model").read_bytes()
    assert not any(word in content for word in (b"somewhere", b"elsewhere", b"cuda"))


def test_unstored_figures_of_the_history_are_named(fitted_head, tmp_path):
    clf = copy.deepcopy(fitted_head)
    clf.history_.record("figure", np.float32(0.5))
    clf.history_.record("object", object())
    with pytest.warns(UserWarning, match=r"^history_\[:, 'object'\] can't be stored"):
        clf.save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model")
    assert loaded.history_[-1]["figure"] == 0.5
    assert "object" not in loaded.history_[-1]


def test_device_is_that_of_load(fitted_head, tmp_path):
    clf = copy.copy(fitted_head).set_params(device="cuda:7")
    clf.save(tmp_path / "model")
    assert CLCEClassifier.load(tmp_path / "model").device == "auto"
    loaded = CLCEClassifier.load(tmp_path / "model", device=torch.device("cpu"))
    assert loaded.device == torch.device("cpu")
    with pytest.raises(ValueError, match="device='nowhere' can't be used here"):
        CLCEClassifier.load(tmp_path / "model", device="nowhere")
