"""A classifier comes back from a model file unchanged, with each kind of backbone and input."""

import copy
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.base import clone
from torch import nn

from image_kinds import save_images
from model_files import assert_same_model, on_features, saved_and_loaded, tiny, vectors, vit
from sklearn_clce import CLCEClassifier
from sklearn_clce.backbones import FrozenBackbone
from small_backbones import TinyBackbone

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
    "files": (tiny, save_images),
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


def plain_params(clf):
    params = clf.get_params()
    if isinstance(params["backbone"], nn.Module):
        params["backbone"] = type(params["backbone"])
    return params


@pytest.mark.parametrize("kind", FITTED)
def test_fitted_kinds_come_back(kind, colour_images, colour_labels, tmp_path):
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
def test_loaded_model_continues_like_pickled_one(kind, colour_images, colour_labels, tmp_path):
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


def test_model_of_partial_fit_alone_comes_back(tmp_path):
    X, y = vectors(), np.arange(12) % 3
    clf = on_features().partial_fit(X, y, classes=[0, 1, 2])
    assert_same_model(saved_and_loaded(clf, tmp_path), clf, X)


@pytest.fixture(scope="module")
def fitted_head():
    return on_features(max_epochs=1).fit(vectors(), np.arange(12) % 2)


def test_module_must_be_passed_to_load(colour_images, colour_labels, tmp_path):
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


def test_passed_module_is_not_changed(colour_images, colour_labels, tmp_path):
    tiny(max_epochs=1, trainable="head").fit(colour_images, colour_labels).save(tmp_path / "model")
    mine = TinyBackbone()
    before = copy.deepcopy(mine.state_dict())
    loaded = CLCEClassifier.load(tmp_path / "model", backbone=mine)
    assert loaded.backbone is mine
    assert mine.training
    assert all(parameter.requires_grad for parameter in mine.parameters())
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())


def test_timm_model_of_the_user_is_a_module(colour_images, colour_labels, tmp_path):
    mine = timm.create_model("test_vit", num_classes=0, img_size=32)
    clf = CLCEClassifier(mine, image_size=32, max_epochs=1).fit(colour_images, colour_labels)
    ours = CLCEClassifier(vit().fit(colour_images, colour_labels).module_.backbone, image_size=32)
    ours.set_params(max_epochs=1).fit(colour_images, colour_labels)
    for fitted in (clf, ours):
        assert_same_model(saved_and_loaded(fitted, tmp_path), fitted, colour_images)
        with pytest.raises(ValueError, match="module of class VisionTransformer"):
            CLCEClassifier.load(tmp_path / "model.safetensors")


def test_unneeded_module_is_rejected(fitted_head, tmp_path):
    fitted_head.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"backbone=TinyBackbone: .* leave it out"):
        CLCEClassifier.load(tmp_path / "model", backbone=TinyBackbone())


def test_tied_layers_come_back(colour_images, colour_labels, tmp_path):
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


def test_module_with_more_than_tensors_in_its_state_is_rejected(
    colour_images, colour_labels, tmp_path
):
    class WithExtra(TinyBackbone):
        def get_extra_state(self):
            return {"note": 1}

        def set_extra_state(self, state):
            pass

    clf = CLCEClassifier(WithExtra(), trainable="head", max_epochs=1)
    clf.fit(colour_images, colour_labels)
    with pytest.raises(ValueError, match=r"keeps 'backbone._extra_state' .* pickle can hold it"):
        clf.save(tmp_path / "model")


def test_expanded_buffer_comes_back(colour_images, colour_labels, tmp_path):
    class Expanded(TinyBackbone):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(1).expand(5))

    clf = CLCEClassifier(Expanded(), max_epochs=1, random_state=0)
    clf.fit(colour_images, colour_labels).save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model", backbone=Expanded())
    assert_array_equal(loaded.predict_proba(colour_images), clf.predict_proba(colour_images))


def test_hub_backbone_comes_back_without_the_hub(
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


def test_loaded_frozen_backbone_has_the_same_fingerprint(colour_images, colour_labels, tmp_path):
    def fingerprint(clf):
        return FrozenBackbone(clf.module_.eval().backbone, clf.module_.config).fingerprint

    clf = CLCEClassifier(trainable="head", image_size=32, max_epochs=1, random_state=0)
    clf.fit(colour_images, colour_labels)
    loaded = saved_and_loaded(clf, tmp_path)
    assert fingerprint(loaded) == fingerprint(clf)
    loaded.module_.backbone.conv_stem.weight.data.mul_(2)
    other = saved_and_loaded(loaded, tmp_path)
    assert fingerprint(other) == fingerprint(loaded) != fingerprint(clf)


def test_load_leaves_global_generators_unchanged(colour_images, colour_labels, tmp_path):
    clf = vit().fit(colour_images, colour_labels)
    before = torch.get_rng_state()
    saved_and_loaded(clf, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_loaded_model_does_not_depend_on_its_file(fitted_head, tmp_path):
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


@pytest.mark.parametrize("way", ["file", "pickle", "as it is"])
def test_trainable_changed_before_saving_takes_effect_after_loading(way, colour_images, tmp_path):
    clf = tiny(trainable="head").fit(colour_images, np.arange(len(colour_images)) % 2)
    clf.set_params(trainable="all")
    if way == "file":
        clf.save(tmp_path / "m.clce")
        clf = CLCEClassifier.load(tmp_path / "m.clce", backbone=TinyBackbone())
    elif way == "pickle":
        clf = pickle.loads(pickle.dumps(clf))
    clf.partial_fit(colour_images, np.arange(len(colour_images)) % 2)
    assert clf.trainable_ == "all"


def test_file_holds_the_parameters_that_the_net_was_built_with(tmp_path):
    clf = on_features().fit(vectors(), np.arange(len(vectors())) % 2).set_params(projection_dim=3)
    clf.save(tmp_path / "m.clce")
    loaded = CLCEClassifier.load(tmp_path / "m.clce")
    for each in (clf, loaded):
        with pytest.raises(ValueError, match=r"projection_dim=3: cannot change projection_dim"):
            each.partial_fit(vectors(), np.arange(len(vectors())) % 2)
