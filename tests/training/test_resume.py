"""Further calls continue a fit as parts of one long fit."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_clce import CLCEClassifier
from small_fits import Recorder, head, same_weights, weights_of


class Net(nn.Module):
    """A backbone with dropout, which uses random numbers."""

    def __init__(self, width=8):
        super().__init__()
        state = torch.get_rng_state()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3), nn.Dropout(0.2), nn.ReLU())
        torch.set_rng_state(state)

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3))


class Draws:
    """An augmentation that records its images and random numbers."""

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append((images.sum().item(), torch.rand(1).item()))
        return images


def on_images(backbone=None, **params):
    defaults = {"augment": None, "max_epochs": 1, "random_state": 0, "weight": 0.0}
    return CLCEClassifier(backbone or Net(), **defaults | params)


def run_and_record(train, **params):
    draws = Draws()
    clf = on_images(augment=draws, **params)
    train(clf)
    return draws.seen, weights_of(clf)


few = settings(max_examples=8, deadline=None, derandomize=True, database=None)


@few
@given(
    calls=st.integers(1, 4),
    n=st.integers(4, 30),
    batch_size=st.sampled_from([2, 5, 16]),
    seed=st.integers(0, 2**31),
    pickled=st.booleans(),
)
def test_repeated_calls_match_one_long_fit(calls, n, batch_size, seed, pickled):
    rng = np.random.default_rng(0)
    X, y = rng.random((n, 8, 8)), np.arange(n) % 2
    params = {"batch_size": batch_size, "random_state": seed, "sampler": "shuffle"}

    def in_parts(clf):
        for _ in range(calls):
            clf.partial_fit(X, y, classes=[0, 1])

    def warm(clf):
        for _ in range(calls):
            clf.set_params(warm_start=True).fit(X, y)
            if pickled:
                clf.net_ = pickle.loads(pickle.dumps(clf.net_))

    whole, _ = run_and_record(lambda clf: clf.set_params(max_epochs=calls).fit(X, y), **params)
    parts, weights = run_and_record(in_parts, **params)
    again, same = run_and_record(in_parts, **params)
    assert parts == whole
    assert run_and_record(warm, **params)[0] == whole
    assert len(set(parts)) == len(parts)
    assert again == parts
    assert same_weights(weights, same)


@pytest.mark.parametrize("make_state", [lambda: 0, lambda: np.random.RandomState(0), lambda: None])
def test_calls_never_repeat_random_numbers(make_state, clouds):
    X, codes = clouds
    batches = Recorder(lambda net, batch: tuple(batch[0][:, 0].tolist()))
    clf = head(random_state=make_state(), batch_size=20, callbacks=[batches])
    for _ in range(10):
        clf.partial_fit(X, codes, classes=[0, 1, 2])
    assert len(set(batches.seen)) == len(batches.seen) == 30


def test_changed_seed_changes_continuation(clouds):
    X, codes = clouds
    clf = head(warm_start=True).fit(X, codes)  # its copies hold the optimizer's state
    other = copy.deepcopy(clf).set_params(random_state=7)
    same = copy.deepcopy(clf)
    for fitted in (clf, other, same):
        fitted.partial_fit(X, codes)
    assert same_weights(weights_of(clf), weights_of(same))
    assert not same_weights(weights_of(clf), weights_of(other))


def test_loaded_model_continues_like_saved_one(clouds, tmp_path):
    X, codes = clouds
    params = {"early_stopping": True, "warm_start": True, "max_epochs": 2}
    clf = head(validation_fraction=0.2, **params).fit(X, codes)
    clf.save(tmp_path / "model.safetensors")
    loaded = CLCEClassifier.load(tmp_path / "model.safetensors")
    for fitted in (clf, loaded):
        fitted.set_params(max_epochs=1)
        seen = Recorder(lambda net, batch: batch[0][:, 0].tolist())
        fitted.set_params(callbacks=[seen]).fit(X, codes)
        fitted.seen_ = seen.seen
    assert loaded.seen_ == clf.seen_
    with pytest.raises(
        ValueError, match="early_stopping=True: the samples that the first fit set aside"
    ):
        loaded.set_params(validation_fraction=0.3).fit(X, codes)


def trained_parts(clf, X, y):
    before = weights_of(clf)
    clf.fit(X, y)
    return {name for name, value in weights_of(clf).items() if not torch.equal(value, before[name])}


def test_trainable_can_change_between_fits(digits):
    X, y = digits
    clf = on_images(trainable="head", warm_start=True, learning_rate=0.01).fit(X, y)
    assert not any("backbone" in name for name in trained_parts(clf, X, y))
    clf.set_params(trainable="all")
    backbone = {f"backbone.{name}" for name, _ in Net().named_parameters()}
    changed = trained_parts(clf, X, y)
    assert backbone < changed
    assert "head.projection.0.weight" in changed
    clf.set_params(trainable="head")
    changed = trained_parts(clf, X, y)
    assert "head.classifier.weight" in changed
    assert not any("backbone" in name for name in changed)
    assert clf.n_iter_ == 4


def test_trainable_changes_from_head_to_last_blocks(colour_images, colour_labels):
    backbone = timm.create_model("resnet10t", num_classes=0)
    clf = on_images(backbone, trainable="head", warm_start=True, image_size=32)
    clf.fit(colour_images, colour_labels)
    trains = [parameter.requires_grad for parameter in clf.module_.backbone.parameters()]
    assert not any(trains)
    clf.set_params(trainable=1).fit(colour_images, colour_labels)
    trains = [parameter.requires_grad for parameter in clf.module_.backbone.parameters()]
    assert 0 < sum(trains) < len(trains)


@pytest.mark.parametrize("gradient_checkpointing", [True, False])
def test_gradient_checkpointing_can_be_switched(
    gradient_checkpointing, colour_images, colour_labels
):
    clf = on_images("test_vit", pretrained=False, image_size=32)
    clf.set_params(gradient_checkpointing=not gradient_checkpointing)
    clf.partial_fit(colour_images, colour_labels, classes=["left", "none"])
    clf.set_params(gradient_checkpointing=gradient_checkpointing)
    clf.partial_fit(colour_images, colour_labels)
    assert clf.module_.backbone.grad_checkpointing == gradient_checkpointing


@pytest.mark.parametrize("copied", [lambda clf: clf, copy.deepcopy])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("projection_dim", 7),
        ("image_size", 16),
        ("backbone", Net(width=9)),
        ("backbone", nn.Sequential(nn.Flatten())),
        ("backbone", "test_vit"),
        ("pretrained", False),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_parameters_of_built_net_can_not_change(name, value, copied, method, digits):
    X, y = digits
    clf = copied(on_images(warm_start=True).fit(X[:20], y[:20]))
    before = clf.predict_proba(X)
    clf.set_params(**{name: value})
    with pytest.raises(
        ValueError, match=f"{name}=.*: cannot change {name} when continuing training; restore it"
    ):
        getattr(clf, method)(X[:20], y[:20])
    assert_array_equal(clf.predict_proba(X), before)
    clf.set_params(warm_start=False)
    if not isinstance(value, str):
        clf.fit(X[:20], y[:20])


def test_replaced_backbone_module_is_rejected(digits):
    X, y = digits
    clf = on_images(warm_start=True).fit(X[:20], y[:20]).set_params(backbone=Net())
    with pytest.raises(ValueError, match=r"backbone=Net: cannot change backbone"):
        clf.fit(X[:20], y[:20])


@pytest.mark.parametrize(
    "params",
    [
        {"skorch_params": {"optimizer": torch.optim.SGD}},
        {"skorch_params": {"optimizer__amsgrad": True}},
        {"batch_size": 7, "micro_batch_size": 3},
        {"class_weight": "balanced"},
        {"sampler": "balanced"},
        {"precision": "bfloat16"},
        {"num_workers": 1},
    ],
)
def test_warm_start_applies_changed_parameters(params, digits):
    X, y = digits
    clf = on_images(warm_start=True).fit(X[:20], y[:20])
    other = copy.deepcopy(clf).set_params(**params).fit(X[:20], y[:20])
    clf.fit(X[:20], y[:20])
    assert other.n_iter_ == 2
    assert np.isfinite(other.predict_proba(X)).all()
    if "num_workers" not in params:
        assert not same_weights(weights_of(clf), weights_of(other))


class ValidationRecorder(Recorder):
    """Record which samples are set aside."""

    def __init__(self):
        super().__init__(lambda net, batch: net.state.validation.features[:, 0].tolist())


def test_validation_split_is_kept_across_fits():
    """On random labels, validation stays at chance for any number of calls of fit."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 50)), rng.integers(0, 2, 300)
    aside = ValidationRecorder()
    clf = head(
        early_stopping=True,
        warm_start=True,
        validation_fraction=0.3,
        random_state=None,
        max_epochs=10,
        callbacks=[aside],
    )
    scores = [clf.fit(X, y).best_validation_score_ for _ in range(4)]
    assert len({tuple(samples) for samples in aside.seen}) == 1
    assert max(scores) < 0.7
    assert clf.score(X, y) > 0.8


def test_best_validation_score_is_of_last_fit(clouds):
    X, codes = clouds
    clf = head(early_stopping=True, warm_start=True, validation_fraction=0.3, max_epochs=8)
    clf.fit(X, codes)
    first = clf.best_validation_score_
    clf.set_params(max_epochs=2, learning_rate=1.0, max_grad_norm=None, tol=0.0).fit(X, codes)
    assert clf.validation_scores_ == clf.history_[-2:, "valid_acc"]
    assert clf.best_validation_score_ == max(clf.history_[-2:, "valid_acc"])
    assert first == max(clf.history_[:8, "valid_acc"])


@pytest.mark.parametrize(
    ("change", "params"),
    [
        (lambda X, y: (X[:50], y[:50]), {}),
        (lambda X, y: (X[::-1], y[::-1]), {}),
        (lambda X, y: (X, y), {"validation_fraction": 0.4}),
    ],
)
def test_validation_on_trained_samples_is_rejected(change, params, clouds):
    clf = head(early_stopping=True, warm_start=True, validation_fraction=0.3, max_epochs=1)
    clf.fit(*clouds).set_params(**params)
    with pytest.raises(
        ValueError, match="early_stopping=True: the samples that the first fit set aside"
    ):
        clf.fit(*change(*clouds))
    clf.set_params(early_stopping=False).fit(*change(*clouds))
    clf.set_params(early_stopping=True)
    with pytest.raises(ValueError, match="early_stopping=True: earlier calls have trained"):
        clf.fit(*clouds)


def test_zero_weight_samples_do_not_count_in_validation(clouds):
    X, codes = clouds
    noise = np.random.default_rng(0).integers(0, 3, 60)
    X, y = np.vstack([X + 10 * np.eye(3, 6)[codes], X]), np.concatenate([codes, noise])
    params = {"early_stopping": True, "validation_fraction": 0.3, "max_epochs": 10}
    clf = head(**params).fit(X, y, sample_weight=np.repeat([1.0, 0.0], 60))
    assert clf.best_validation_score_ == 1.0
    lighter = head(**params).fit(X, y, sample_weight=np.repeat([1.0, 1e-6], 60))
    assert lighter.best_validation_score_ > 0.999
    assert head(**params).fit(X, y).best_validation_score_ < 0.9


def test_partial_fit_cost_is_independent_of_call_count(clouds):
    X, codes = clouds
    clf = head(projection_dim=4, batch_size=2, weight=0.0)
    clf.partial_fit(X, codes, classes=[0, 1, 2])
    first = clf.history_[0]
    size = len(pickle.dumps(clf))
    for _ in range(20):
        clf.partial_fit(X, codes)
    assert len(pickle.dumps(clf)) - size < 20 * 100  # some numbers of each epoch, not of batches
    assert pickle.loads(pickle.dumps(clf)).history_ == clf.history_
    assert [len(epoch["batches"]) for epoch in clf.history_] == [0] * 20 + [30]
    assert clf.history_[0]["train_loss"] == first["train_loss"]
    again = copy.copy(clf).partial_fit(X, codes)
    assert again.history_[5] is clf.history_[5]
    assert len(clf.history_) == 21  # an error would have lost nothing


class WithAdapter(nn.Module):
    """Wraps a module as peft does: the base is frozen, the adapter trains."""

    def __init__(self):
        super().__init__()
        self.base = Net().requires_grad_(False)
        self.adapter = nn.Linear(8, 8)

    def forward(self, images):
        features = self.base(images)
        return features + self.adapter(features)


def test_parameters_frozen_by_user_stay_frozen(digits):
    X, y = digits
    clf = on_images(WithAdapter(), warm_start=True, learning_rate=0.01).fit(X, y)
    changed = {name for name in trained_parts(clf, X, y) if "backbone" in name}
    assert changed == {"backbone.adapter.weight", "backbone.adapter.bias"}
    clf.set_params(trainable="head").fit(X, y)
    clf.set_params(trainable="all")
    assert {name for name in trained_parts(clf, X, y) if "backbone" in name} == changed


def test_peft_model_trains_only_its_adapters(digits):
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(
        nn.Sequential(OrderedDict(net=Net(), last=nn.Linear(8, 8))),
        peft.LoraConfig(target_modules=["last"], r=2),
    )
    clf = on_images(wrapped).fit(*digits)
    trained = {n for n, p in clf.module_.backbone.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in wrapped.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora" in name for name in trained)


@pytest.mark.parametrize("trainable", ["all", 1])
def test_frozen_timm_model_does_not_train(trainable, colour_images, colour_labels):
    backbone = timm.create_model("resnet10t", num_classes=0).requires_grad_(False)
    clf = on_images(backbone, trainable=trainable, image_size=32)
    clf.fit(colour_images, colour_labels)
    assert clf.module_.frozen
    trained = {name for name, p in clf.module_.named_parameters() if p.requires_grad}
    assert all(not name.startswith("backbone") for name in trained)
    assert trained


def test_warm_start_with_checkpoint_restores_every_fit(clouds, tmp_path):
    X, codes = clouds

    def script(folder):
        clf = head(warm_start=True, checkpoint=folder, max_epochs=3)
        fits = [(clf.fit(X, codes).n_iter_, clf.predict_proba(X)) for _ in range(3)]
        return clf, fits

    clf, fits = script(tmp_path)
    assert [n_iter for n_iter, _ in fits] == [3, 6, 9]
    assert clf.history_[:, "epoch"] == list(range(1, 10))
    _, without = script(None)
    _, again = script(tmp_path)
    for (_, proba), (_, expected), (_, given_back) in zip(fits, without, again, strict=True):
        assert_array_equal(proba, expected)
        assert_array_equal(proba, given_back)


@pytest.mark.parametrize("trainable", ["head", 1])
def test_cached_backbone_does_not_change_fit(trainable, colour_images, colour_labels, monkeypatch):
    from sklearn_clce.backbones import _frozen

    monkeypatch.setattr(_frozen, "_loaded", type(_frozen._loaded)())
    clf = CLCEClassifier(trainable=trainable, image_size=32, max_epochs=1, random_state=0)
    first = weights_of(clf.fit(colour_images, colour_labels))
    assert same_weights(first, weights_of(clf.fit(colour_images, colour_labels)))


@pytest.mark.parametrize("kind", ["features", "array", "list", "paths", "Dataset"])
def test_warm_start_rejects_other_samples_of_equal_labels(kind, tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 10)
    order = np.r_[9:-1:-1, 19:9:-1]  # each class in reverse
    if kind == "features":
        X, backbone = rng.normal(size=(20, 4)), "precomputed"
    else:
        images = rng.integers(0, 256, size=(20, 16, 16, 3), dtype=np.uint8)
        X, backbone = images, nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
        if kind == "list":
            X = list(images)
        elif kind == "paths":
            X = [tmp_path / f"{number}.png" for number in range(20)]
            for image, path in zip(images, X, strict=True):
                Image.fromarray(image).save(path)
        elif kind == "Dataset":
            X = TensorDataset(torch.from_numpy(images))
    clf = CLCEClassifier(backbone, early_stopping=True, validation_fraction=0.2, max_epochs=1)
    clf.set_params(warm_start=True, weight=0.0, random_state=0).fit(X, y)
    clf.save(tmp_path / "clf.safetensors")
    module = None if kind == "features" else backbone
    loaded = CLCEClassifier.load(tmp_path / "clf.safetensors", backbone=module).fit(X, y)
    assert loaded.n_iter_ == 2
    if kind == "Dataset":  # which may be random
        return
    other = X[order] if isinstance(X, np.ndarray) else [X[index] for index in order]
    with pytest.raises(ValueError, match="the samples of X, in their order, must be those"):
        loaded.fit(other, y)
