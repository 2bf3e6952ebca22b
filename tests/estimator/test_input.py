"""Input that fit and predict accept; rejected input changes nothing."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.model_selection import cross_val_score

from image_kinds import KINDS
from sklearn_clce import BackboneFeatures, CLCEClassifier


@pytest.mark.parametrize("kind", KINDS)
def test_image_kinds_give_equal_predictions(
    kind, on_images, colour_images, colour_labels, tmp_path
):
    expected = on_images().fit(colour_images, colour_labels)
    X = KINDS[kind](colour_images, tmp_path)
    clf = on_images().fit(X, colour_labels)
    rounding = 2e-3 if "float" in kind else 0  # 8 bits are resized in 8 bits
    np.testing.assert_allclose(
        clf.predict_proba(X), expected.predict_proba(colour_images), atol=rounding, rtol=0
    )
    assert not hasattr(clf, "n_features_in_")


# scikit-learn can't split arrays of zarr, nor a Dataset: it splits a column of one
SPLIT = [kind for kind in KINDS if not kind.startswith(("zarr", "datasets"))]


@pytest.mark.parametrize("kind", SPLIT)
def test_image_kinds_survive_cross_validation(
    kind, on_images, colour_images, colour_labels, tmp_path
):
    X = KINDS[kind](colour_images, tmp_path)
    scores = cross_val_score(on_images(max_epochs=1), X, colour_labels, cv=2, error_score="raise")
    in_array = colour_images / 255 if "float" in kind else colour_images  # 8 bits are rounded
    expected = cross_val_score(on_images(max_epochs=1), in_array, colour_labels, cv=2)
    assert_array_equal(scores, expected)


def test_flattened_images_match_image_arrays(on_images, colour_images, colour_labels):
    flat = pd.DataFrame(colour_images.reshape(12, -1)).rename(columns=str)
    clf = on_images(image_shape=(16, 20, 3)).fit(flat, colour_labels)
    expected = on_images().fit(colour_images, colour_labels)
    assert_array_equal(clf.predict_proba(flat), expected.predict_proba(colour_images))
    assert clf.n_features_in_ == 16 * 20 * 3
    assert clf.feature_names_in_[7] == "7"
    clf.fit(flat.to_numpy(), colour_labels)
    assert not hasattr(clf, "feature_names_in_")


def test_refit_on_arrays_forgets_columns(on_images, colour_images, colour_labels):
    clf = on_images(image_shape=(16, 20, 3)).fit(colour_images.reshape(12, -1), colour_labels)
    assert clf.fit(colour_images, colour_labels) is clf
    assert not hasattr(clf, "n_features_in_")


def state_of(clf, X):
    return clf.predict_proba(X), dict(vars(clf))


BAD_FIT = {
    "NaN": (lambda X: np.where(X.max() == X, np.nan, X), {}, "contains NaN"),
    "channels": (lambda X: np.zeros((12, 8, 8, 8)), {}, "1, 3 or 4 channels"),
    "above 1": (lambda X: X * 2.0, {}, "floats must lie in 0..1"),
    "empty": (lambda X: X[:0], {}, "X is empty"),
    "lengths": (lambda X: X[:-1], {}, "inconsistent numbers of samples"),
    "missing file": (lambda X: ["no/such.png"] * len(X), {}, r"X\[0\]: there is no file"),
    "unknown backbone": (lambda X: X, {"backbone": "biet"}, "Did you mean 'beit'"),
    "temperature": (lambda X: X, {"temperature": -1}, "'temperature' .* Got -1 instead"),
    "weight": (lambda X: X, {"weight": 1.5}, "'weight' .* Got 1.5 instead"),
    "hardness": (lambda X: X, {"hardness": -0.1}, "'hardness' .* Got -0.1 instead"),
    "trainable": (lambda X: X, {"trainable": "none"}, "'trainable' .* Got 'none' instead"),
    "device": (lambda X: X, {"device": "gpu"}, "device='gpu' can't be used here"),
    "class_weight": (lambda X: X, {"class_weight": {"left": -1}}, "must not be negative"),
}


@pytest.mark.parametrize("case", BAD_FIT)
def test_bad_input_raises_and_changes_nothing(case, on_images, colour_images, colour_labels):
    X = colour_images / 255
    spoil, params, message = BAD_FIT[case]
    clf = on_images().fit(X, colour_labels)
    good_params = clf.get_params(deep=False)
    before, attributes = state_of(clf, X)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        clf.set_params(**params).fit(spoil(X), colour_labels)
    clf.set_params(**good_params)
    after, attributes_after = state_of(clf, X)
    assert_array_equal(after, before)
    assert attributes_after == attributes


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["same"] * 12, "y holds one class, 'same'"),
        (np.linspace(0, 1, 12), "Unknown label type"),
        ([np.nan, 1.0] * 6, "NaN"),
        (None, "requires y to be passed"),
        (np.arange(24).reshape(12, 2), "y should be a 1d array"),
    ],
)
def test_bad_labels_are_rejected(y, message, on_images, colour_images):
    clf = on_images()
    with pytest.raises(ValueError, match=message):
        clf.fit(colour_images, y)
    assert not any(name.endswith("_") for name in vars(clf))


@pytest.mark.parametrize(
    ("weights", "message"),
    [([-1] * 12, "Negative values"), ([0] * 12, "[Zz]ero"), ([1] * 11, "sample_weight")],
)
def test_bad_sample_weights_are_rejected(weights, message, on_images, colour_images, colour_labels):
    with pytest.raises(ValueError, match=message):
        on_images().fit(colour_images, colour_labels, sample_weight=weights)


def test_unreadable_file_changes_nothing(on_images, colour_images, colour_labels, tmp_path):
    clf = on_images().fit(colour_images, colour_labels)
    before, attributes = state_of(clf, colour_images)
    paths = KINDS["list of paths"](colour_images, tmp_path)
    (tmp_path / "9.png").write_bytes(b"broken")
    for call in (partial(clf.fit, y=colour_labels), clf.predict):
        with pytest.raises(ValueError, match=r"X\[9\]: '.*9.png' can't be read as an image"):
            call(paths)
    after, attributes_after = state_of(clf, colour_images)
    assert_array_equal(after, before)
    assert attributes_after == attributes


def test_bad_input_to_predict_is_rejected(on_images, colour_images, colour_labels):
    clf = on_images(image_shape=(16, 20, 3)).fit(colour_images.reshape(12, -1), colour_labels)
    with pytest.raises(ValueError, match=r"takes 960 pixels, but X has 959 features"):
        clf.predict(colour_images.reshape(12, -1)[:, 1:])
    with pytest.raises(ValueError, match="contains NaN"):
        clf.predict(np.full((2, 16, 20, 3), np.nan))


def test_unknown_parameter_is_rejected():
    misspelt = "temprature"  # codespell:ignore
    with pytest.raises(TypeError, match=misspelt):
        CLCEClassifier(**{misspelt: 1})
    with pytest.raises(ValueError, match=f"Invalid parameter '{misspelt}'"):
        CLCEClassifier().set_params(**{misspelt: 1})


@pytest.mark.parametrize("trainable", ["all", "head"])
@pytest.mark.parametrize("n_channels", [4, 5])
def test_bands_reach_backbone_and_model_file(trainable, n_channels, tmp_path):
    X = np.random.default_rng(0).random((8, n_channels, 12, 12))
    clf = CLCEClassifier(
        "resnet10t",
        pretrained=False,
        trainable=trainable,
        image_size=64,
        n_channels=4 if n_channels == 4 else None,
        max_epochs=1,
        random_state=0,
    ).fit(X, ["field", "forest"] * 4)
    assert clf.backbone_config_.n_channels == n_channels
    assert len(set(clf.backbone_config_.mean)) == 1
    clf.save(tmp_path / "bands.safetensors")
    loaded = CLCEClassifier.load(tmp_path / "bands.safetensors")
    np.testing.assert_allclose(loaded.predict_proba(X), clf.predict_proba(X), atol=1e-6)
    with pytest.raises(ValueError, match="is one image"):
        loaded.predict(X[0])


def test_pretrained_weights_adapt_to_bands():
    images = np.random.default_rng(0).random((2, 16, 16, 5))
    assert BackboneFeatures(image_size=64, device="cpu").transform(images).shape == (2, 1280)


@pytest.mark.parametrize("kind", ["array", "paths"])
def test_single_colour_image_is_rejected(kind, on_images, colour_images, colour_labels, tmp_path):
    X = colour_images if kind == "array" else KINDS["list of paths"](colour_images, tmp_path)
    clf = on_images(max_epochs=1).fit(X, colour_labels)
    picture = torch.from_numpy(colour_images[0])
    for one in (picture, picture.permute(2, 0, 1)):
        with pytest.raises(ValueError, match=r"is one image: pass X\[None\]"):
            clf.predict(one)
        assert len(clf.predict(one[None])) == 1


@pytest.mark.parametrize("kind", ["classifier", "features"])
def test_colour_is_detected_after_grey_first_image(
    kind, on_images, tiny_backbone, colour_images, colour_labels
):
    X = [colour_images[0, :, :, 0], *colour_images[1:]]
    if kind == "classifier":
        clf = on_images(max_epochs=1).fit(X, colour_labels)
        use = clf.predict
    else:
        use = BackboneFeatures(tiny_backbone, image_size=16).fit(X).transform
    one = colour_images[0].transpose(2, 0, 1)
    with pytest.raises(ValueError, match=r"is one image: pass X\[None\]"):
        use(one)
    assert len(use(one[None])) == 1
    assert len(BackboneFeatures(tiny_backbone).transform(one)) == 3  # unfitted: three grey images


@pytest.mark.parametrize("view", ["reversed", "reversed columns", "field"])
def test_features_of_any_memory_layout_are_accepted(view, clouds):
    X, y = np.ascontiguousarray(clouds[0], np.float32), clouds[1]
    fields = np.zeros(len(X), [("odd", "i1"), ("x", "f4", X.shape[1])])
    fields["x"] = X
    given = {"reversed": np.ascontiguousarray(X[::-1])[::-1], "field": fields["x"]}
    given["reversed columns"] = np.ascontiguousarray(X[:, ::-1])[:, ::-1]
    clf = CLCEClassifier("precomputed", max_epochs=1, random_state=0)
    expected = clf.fit(X, y).predict_proba(X)
    assert_array_equal(clf.fit(given[view], y).predict_proba(given[view]), expected)


TENSORS = {
    "of a graph": lambda tensor: tensor.clone().requires_grad_(),
    "bfloat16": lambda tensor: tensor.bfloat16(),
    "rows": list,
    "rows of a graph": lambda tensor: list(tensor.clone().requires_grad_()),
}


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("dispatch", [False, True])
def test_tensors_work_as_features_labels_and_weights(kind, dispatch, clouds, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    X, y = clouds
    X, y = torch.from_numpy(X).bfloat16().float(), torch.from_numpy(y)
    weights = 1 + y % 2
    clf = CLCEClassifier("precomputed", max_epochs=2, random_state=0)
    expected = clf.fit(X.numpy(), y.numpy(), sample_weight=weights.numpy()).predict_proba(X.numpy())
    made = TENSORS[kind]
    with config_context(array_api_dispatch=dispatch):
        clf.fit(
            made(X), y if kind == "rows" else made(y.float()), sample_weight=made(weights.float())
        )
        assert_array_equal(clf.predict_proba(made(X)), expected)


def test_flattened_images_accept_list_of_tensors(on_images, colour_images, colour_labels):
    clf = on_images(image_shape=(16, 20, 3))
    rows = colour_images.reshape(12, -1)
    expected = clf.fit(rows, colour_labels).predict_proba(rows)
    tensors = list(torch.from_numpy(rows))
    assert_array_equal(clf.fit(tensors, colour_labels).predict_proba(tensors), expected)
