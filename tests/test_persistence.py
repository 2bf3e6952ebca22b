"""A classifier comes back from a model file as it was: each kind of backbone, label, parameter."""

import copy
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import TinyBackbone
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import nn

from sklearn_clce import CLCEClassifier
from sklearn_clce.backbones import FrozenBackbone


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


def vectors():
    return np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)


def as_files(images, folder):
    paths = [str(folder / f"{row}.png") for row in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


# name -> estimator, and X from (colour images, folder)
FITTED = {
    "vectors": (on_features, lambda images, _: vectors()),
    "frame": (on_features, lambda images, _: pd.DataFrame(vectors(), columns=list("abcd"))),
    "embedding is features": (partial(on_features, projection_dim=None), lambda *_: vectors()),
    "early stopping": (
        partial(on_features, early_stopping=True, validation_fraction=0.2),
        lambda *_: vectors(),
    ),
    "flattened": (
        partial(tiny, image_shape=(16, 20, 3)),
        lambda images, _: images.reshape(len(images), -1),
    ),
    "flattened frame": (
        partial(tiny, image_shape=[16, 20, 3], trainable="head"),
        lambda images, _: pd.DataFrame(images.reshape(len(images), -1)).add_prefix("pixel"),
    ),
    "module": (tiny, lambda images, _: images),
    "module, own size": (partial(tiny, image_size=None), lambda images, _: images),
    "frozen module": (partial(tiny, trainable="head"), lambda images, _: images / 255),
    "files": (tiny, as_files),
    "PIL": (vit, lambda images, _: [Image.fromarray(image) for image in images]),
    "timm": (vit, lambda images, _: images),
    "timm, last block": (partial(vit, trainable=1), lambda images, _: images),
    "timm, frozen": (partial(vit, trainable="head"), lambda images, _: images),
    "timm, checkpointing": (partial(vit, gradient_checkpointing=True), lambda images, _: images),
    "bundled, frozen": (
        partial(CLCEClassifier, image_size=32, trainable="head", max_epochs=1, random_state=0),
        lambda images, _: images,
    ),
    "bundled": (
        partial(CLCEClassifier, image_size=32, max_epochs=1, random_state=0),
        lambda images, _: images,
    ),
}


def saved_and_loaded(clf, folder, **options):
    clf.save(folder / "model.safetensors")
    backbone = clf.backbone if isinstance(clf.backbone, nn.Module) else None
    # another instance with other weights: the file's must take their place
    if backbone is not None:
        backbone = copy.deepcopy(backbone)
        for parameter in backbone.parameters():
            parameter.data.mul_(2)
    return CLCEClassifier.load(folder / "model.safetensors", backbone=backbone, **options)


def plain_params(clf):
    params = clf.get_params()
    if isinstance(params["backbone"], nn.Module):
        params["backbone"] = type(params["backbone"])
    return params


def assert_same_model(loaded, clf, X):
    assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert_array_equal(loaded.decision_function(X), clf.decision_function(X))
    assert_array_equal(loaded.transform(X), clf.transform(X))
    assert_array_equal(loaded.predict(X), clf.predict(X))


@pytest.mark.parametrize("kind", FITTED)
def test_every_fitted_kind_comes_back(kind, colour_images, colour_labels, tmp_path):
    make, read = FITTED[kind]
    X = read(colour_images, tmp_path)
    clf = make().fit(X, colour_labels)
    loaded = saved_and_loaded(clf, tmp_path)
    assert type(loaded) is CLCEClassifier
    assert_same_model(loaded, clf, X)
    assert plain_params(loaded) == plain_params(clf)
    assert vars(loaded).keys() == vars(clf).keys()
    for name in ("n_iter_", "validation_scores_", "best_validation_score_", "backbone_config_"):
        assert getattr(loaded, name) == getattr(clf, name)
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(clf, name):
            assert_array_equal(getattr(loaded, name), getattr(clf, name))
    assert [{**row, "batches": []} for row in clf.history_] == loaded.history_
    trained = [parameter.requires_grad for parameter in clf.module_.parameters()]
    assert [parameter.requires_grad for parameter in loaded.module_.parameters()] == trained


@pytest.mark.parametrize("kind", ["vectors", "module", "frozen module", "timm", "timm, last block"])
def test_a_loaded_model_goes_on_like_one_that_was_pickled(
    kind, colour_images, colour_labels, tmp_path
):
    make, read = FITTED[kind]
    X = read(colour_images, tmp_path)
    clf = make().fit(X, colour_labels)
    loaded, pickled = saved_and_loaded(clf, tmp_path), pickle.loads(pickle.dumps(clf))
    for other in (loaded, pickled):
        other.partial_fit(X, colour_labels)
    assert_same_model(loaded, pickled, X)
    assert loaded.n_iter_ == clf.n_iter_ + 1
    loaded.set_params(warm_start=True).fit(X, colour_labels)
    pickled.set_params(warm_start=True).fit(X, colour_labels)
    assert_same_model(loaded, pickled, X)
    fresh = clone(loaded).set_params(warm_start=False, backbone=clf.backbone).fit(X, colour_labels)
    assert_same_model(fresh, clf, X)


def test_a_model_of_partial_fit_alone_comes_back(tmp_path):
    X, y = vectors(), np.arange(12) % 3
    clf = on_features().partial_fit(X, y, classes=[0, 1, 2])
    assert_same_model(saved_and_loaded(clf, tmp_path), clf, X)


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


@pytest.fixture(scope="module")
def fitted_head():
    return on_features(max_epochs=1).fit(vectors(), np.arange(12) % 2)


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


def test_labels_without_a_place_in_a_file(fitted_head, tmp_path):
    clf = copy.copy(fitted_head)
    clf.classes_ = np.array([1, 2], dtype=np.longdouble)
    with pytest.raises(ValueError, match="labels of dtype"):
        clf.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# --- parameters -------------------------------------------------------------------------------

PLAIN = {
    "pretrained": Path("weights") / "w.safetensors",
    "trainable": "head",
    "weight": np.float64(0.25),
    "temperature": np.float32(0.1),
    "hardness": 0,
    "label_smoothing": 0.1,
    "projection_dim": np.int64(8),
    "image_size": 64,
    "image_shape": (8, 8),
    "learning_rate": 1e-300,
    "layer_decay": "auto",
    "clip_grad": None,
    "augment": None,
    "class_weight": {np.str_("left"): 2, "none": np.float32(0.1)},
    "early_stopping": False,
    "warm_start": True,
    "num_workers": 2,
    "random_state": 7,
    "verbose": False,
    "skorch_params": {"callbacks__lr_scheduler": None, "optimizer__betas": (0.8, 0.9)},
}


def test_plain_parameters_come_back_as_they_were(colour_labels, tmp_path):
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
        ({"memory": "somewhere"}, "memory=str"),
        ({"checkpoint": Path("elsewhere")}, "checkpoint=PosixPath"),
        ({"random_state": np.random.RandomState(0)}, "random_state=RandomState"),
        ({"class_weight": {"left": np.ones(2)}}, "class_weight=dict"),
        ({"num_workers": 1000}, "num_workers=int"),
        ({"augment": flip, "memory": "somewhere"}, "augment=flip, memory=str"),
    ],
)
def test_what_is_not_stored_is_named(params, named, fitted_head, tmp_path):
    clf = copy.copy(fitted_head).set_params(**params)
    with pytest.warns(UserWarning, match=f"^{named} can't be stored .* set_params sets them again"):
        clf.save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model")
    for name in params:
        assert getattr(loaded, name) == getattr(CLCEClassifier(), name)
    assert_same_model(loaded, clf, vectors())
    content = (tmp_path / "model").read_bytes()
    assert not any(word in content for word in (b"flip", b"somewhere", b"elsewhere", b"SGD"))


def test_what_is_not_plain_in_the_history_is_named(fitted_head, tmp_path):
    clf = copy.deepcopy(fitted_head)
    clf.history_.record("figure", np.float32(0.5))
    clf.history_.record("object", object())
    with pytest.warns(UserWarning, match=r"^history_\[:, 'object'\] can't be stored"):
        clf.save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model")
    assert loaded.history_[-1]["figure"] == 0.5
    assert "object" not in loaded.history_[-1]


def test_the_device_is_that_of_load(fitted_head, tmp_path):
    clf = copy.copy(fitted_head).set_params(device="cuda:7")
    clf.save(tmp_path / "model")
    assert CLCEClassifier.load(tmp_path / "model").device == "auto"
    loaded = CLCEClassifier.load(tmp_path / "model", device=torch.device("cpu"))
    assert loaded.device == torch.device("cpu")
    with pytest.raises(ValueError, match="device='nowhere' can't be used here"):
        CLCEClassifier.load(tmp_path / "model", device="nowhere")


# --- backbones --------------------------------------------------------------------------------


def test_a_module_must_be_handed_in_again(colour_images, colour_labels, tmp_path):
    path = tmp_path / "model.safetensors"
    tiny(max_epochs=1).fit(colour_images, colour_labels).save(path)
    with pytest.raises(ValueError, match=r"class TinyBackbone .* load\(path, backbone=TinyBack"):
        CLCEClassifier.load(path)
    with pytest.raises(ValueError, match="module of that architecture is required"):
        CLCEClassifier.load(path, backbone="efficientnet_lite0")
    with pytest.raises(ValueError, match=r"tensors are missing or too many: \['backbone\.layers"):
        CLCEClassifier.load(path, backbone=nn.Flatten())
    wider = TinyBackbone()
    wider.layers[0] = nn.Conv2d(3, 9, 3)
    with pytest.raises(ValueError, match=r"backbone\.layers\.0\.weight is of shape \(8, 3, 3, 3\)"):
        CLCEClassifier.load(path, backbone=wider)
    with pytest.raises(ValueError, match=r"float32, where .* torch\.float64 are required"):
        CLCEClassifier.load(path, backbone=TinyBackbone().double())


def test_the_module_that_is_handed_in_is_not_changed(colour_images, colour_labels, tmp_path):
    tiny(max_epochs=1, trainable="head").fit(colour_images, colour_labels).save(tmp_path / "model")
    mine = TinyBackbone()
    before = copy.deepcopy(mine.state_dict())
    loaded = CLCEClassifier.load(tmp_path / "model", backbone=mine)
    assert loaded.backbone is mine
    assert mine.training
    assert all(parameter.requires_grad for parameter in mine.parameters())
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())


def test_a_timm_model_that_the_user_made_is_a_module(colour_images, colour_labels, tmp_path):
    mine = timm.create_model("test_vit", num_classes=0, img_size=32)
    clf = CLCEClassifier(mine, image_size=32, max_epochs=1).fit(colour_images, colour_labels)
    ours = CLCEClassifier(vit().fit(colour_images, colour_labels).module_.backbone, image_size=32)
    ours.set_params(max_epochs=1).fit(colour_images, colour_labels)
    for fitted in (clf, ours):
        assert_same_model(saved_and_loaded(fitted, tmp_path), fitted, colour_images)
        with pytest.raises(ValueError, match="module of class VisionTransformer"):
            CLCEClassifier.load(tmp_path / "model.safetensors")


def test_a_module_is_no_remedy_for_what_needs_none(fitted_head, tmp_path):
    fitted_head.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"backbone=TinyBackbone: .* leave it out"):
        CLCEClassifier.load(tmp_path / "model", backbone=TinyBackbone())


def test_tied_layers(colour_images, colour_labels, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.pool = nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(2)
            self.second = self.first

        def forward(self, images):
            return self.pool(self.second(self.first(images))).flatten(1)

    clf = CLCEClassifier(Tied(), image_size=16, max_epochs=1).fit(colour_images, colour_labels)
    clf.save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model", backbone=Tied())
    assert loaded.module_.backbone.first.weight is loaded.module_.backbone.second.weight
    assert_same_model(loaded, clf, colour_images)


def test_a_module_with_more_than_tensors_in_its_state(colour_images, colour_labels, tmp_path):
    class WithExtra(TinyBackbone):
        def get_extra_state(self):
            return {"note": 1}

        def set_extra_state(self, state):
            pass

    clf = CLCEClassifier(WithExtra(), trainable="head", max_epochs=1)
    clf.fit(colour_images, colour_labels)
    with pytest.raises(ValueError, match=r"keeps 'backbone._extra_state' .* pickle can hold it"):
        clf.save(tmp_path / "model")


def test_a_backbone_of_the_hub_comes_back_without_the_hub(
    colour_images, colour_labels, tmp_path, monkeypatch
):
    cfg = dict(timm.get_pretrained_cfg("test_vit").to_dict(), input_size=(3, 48, 48))
    asked = []

    def config_of(model_id, **kwargs):
        asked.append(model_id)
        return dict(cfg, fixed_input_size=True), "test_vit", {"depth": 2, "class_token": True}

    for module in (timm.models, timm.models._factory):
        monkeypatch.setattr(module, "load_model_config_from_hf", config_of)
    clf = CLCEClassifier("hf-hub:owner/name", pretrained=False, max_epochs=1, random_state=0)
    clf.fit(colour_images, colour_labels)
    assert set(asked) == {"owner/name"}
    assert len(clf.module_.backbone.blocks) == 2
    asked.clear()
    loaded = saved_and_loaded(clf, tmp_path)
    assert asked == []
    assert loaded.backbone_config_.image_size == 48
    assert loaded.backbone == "hf-hub:owner/name"
    assert_same_model(loaded, clf, colour_images)


def test_load_reads_no_pretrained_weights(colour_images, colour_labels, tmp_path, monkeypatch):
    clf = CLCEClassifier(trainable="head", image_size=32, max_epochs=1, random_state=0)
    clf.fit(colour_images, colour_labels)
    expected = clf.predict_proba(colour_images)
    clf.set_params(pretrained="no/such/file.pth").save(tmp_path / "model")

    def unreachable(*args, **kwargs):
        raise AssertionError("pretrained weights were asked for")

    monkeypatch.setattr("sklearn_clce.backbones._loading.bundled_weights", unreachable)
    monkeypatch.setattr("sklearn_clce.backbones._loading.read_weights", unreachable)
    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    loaded = CLCEClassifier.load(tmp_path / "model")
    assert_array_equal(loaded.predict_proba(colour_images), expected)


def test_features_of_a_loaded_frozen_backbone_are_found_again(
    colour_images, colour_labels, tmp_path
):
    def fingerprint(clf):
        return FrozenBackbone(clf.module_.eval().backbone, clf.module_.config).fingerprint

    clf = CLCEClassifier(trainable="head", image_size=32, max_epochs=1, random_state=0)
    clf.fit(colour_images, colour_labels)
    loaded = saved_and_loaded(clf, tmp_path)
    assert fingerprint(loaded) == fingerprint(clf)
    loaded.module_.backbone.conv_stem.weight.data.mul_(2)
    other = saved_and_loaded(loaded, tmp_path)
    assert fingerprint(other) == fingerprint(loaded) != fingerprint(clf)


def test_load_leaves_the_global_generators_alone(colour_images, colour_labels, tmp_path):
    clf = vit().fit(colour_images, colour_labels)
    before = torch.get_rng_state()
    saved_and_loaded(clf, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_does_not_depend_on_its_file(fitted_head, tmp_path):
    fitted_head.save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model")
    expected = loaded.predict_proba(vectors())
    size = (tmp_path / "model").stat().st_size
    with open(tmp_path / "model", "r+b") as file:
        file.write(b"\xff" * size)
        file.truncate(0)
    assert_array_equal(loaded.predict_proba(vectors()), expected)


def test_load_compiles_nothing(fitted_head, tmp_path):
    clf = copy.copy(fitted_head).set_params(compile=True)
    loaded = saved_and_loaded(clf, tmp_path)
    assert loaded.compile
    assert loaded.module_._compiled_call_impl is None
