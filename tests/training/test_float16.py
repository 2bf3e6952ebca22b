"""float16: loss scaling may skip steps; a fit that only skips steps is an error."""

import copy
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import nn

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce._system import autocast, resolve_precision
from sklearn_clce._training.step_metrics import MAX_SKIPPED
from small_fits import Recorder, same_weights, weights_of

START = 2.0**16  # torch's scale


class Overflowing(nn.Module):
    """A backbone whose gradient overflows at some training steps, counted from 1."""

    def __init__(self, steps=(), loss_at=None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(3, 6)
        self.steps = frozenset(steps)
        self.loss_at = loss_at
        self.n_steps = 0

    def forward(self, images):
        self.n_steps += self.training
        features = self.layer(images.mean(dim=(2, 3)))
        if self.training and self.n_steps in self.steps:
            features.register_hook(lambda gradient: gradient * torch.inf)
        return features * (torch.nan if self.n_steps == self.loss_at else 1)


def classifier(backbone=None, **params):
    defaults = {"precision": "float16", "batch_size": 6, "max_epochs": 3, "augment": None}
    defaults |= {"random_state": 0, "learning_rate": 0.01}
    return CLCEClassifier(backbone or Overflowing(), **defaults | params)


def norms(clf):
    return [b["train_grad_norm"] for epoch in clf.history_ for b in epoch["batches"]]


def scale(clf):
    return clf.net_.scaling.scaler.get_scale()


def test_network_runs_in_float16_with_float32_weights(tiny_backbone, colour_images, colour_labels):
    dtypes = []
    recorder = Recorder(lambda net, batch: dtypes.append(net.infer(batch[0])[0].dtype))
    clf = classifier(tiny_backbone, callbacks=[recorder]).fit(colour_images, colour_labels)
    assert set(dtypes) == {torch.float16}
    assert all(p.dtype == torch.float32 for p in clf.module_.parameters())
    proba = clf.predict_proba(colour_images)
    assert proba.dtype == np.float32
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    plain = classifier(tiny_backbone, precision="float32").fit(colour_images, colour_labels)
    assert_allclose(proba, plain.predict_proba(colour_images), atol=0.02)
    assert plain.net_.scaling is None


@pytest.mark.parametrize("params", [{}, {"micro_batch_size": 3}, {"max_grad_norm": None}])
def test_gradients_are_independent_of_loss_scale(params, colour_images, colour_labels):
    low = classifier(**params).fit(colour_images, colour_labels)
    full = classifier(precision="float32", **params).fit(colour_images, colour_labels)
    assert_allclose(norms(low), norms(full), rtol=0.02)
    for name, value in weights_of(full).items():
        assert_allclose(weights_of(low)[name], value, atol=0.01)


class Weights(Callback):
    def __init__(self):
        self.seen = []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.seen.append({n: p.detach().clone() for n, p in net.module_.named_parameters()})


@pytest.mark.parametrize("optimizer", ["fused", "SGD"])
@pytest.mark.parametrize("steps", [{1}, {2, 3}, {6}])
def test_skipped_step_changes_no_weights(steps, optimizer, colour_images, colour_labels):
    watched = Weights()
    params = {} if optimizer == "fused" else {"skorch_params": {"optimizer": torch.optim.SGD}}
    clf = classifier(Overflowing(steps), callbacks=[watched], **params)
    clf.fit(colour_images, colour_labels)  # a warning would be an error
    assert clf.n_iter_ == 3
    found = {n + 1 for n, norm in enumerate(norms(clf)) if not np.isfinite(norm)}
    assert found == steps
    assert scale(clf) == START / 2 ** len(steps)
    stayed = {
        n + 2
        for n, (before, now) in enumerate(zip(watched.seen, watched.seen[1:], strict=False))
        if all(torch.equal(before[name], now[name]) for name in now)
    }
    assert stayed == steps - {1}
    assert all(value.isfinite().all() for value in weights_of(clf).values())


@pytest.mark.parametrize(("max_epochs", "n_steps"), [(2, 4), (30, MAX_SKIPPED)])
def test_fit_of_only_skipped_steps_raises(max_epochs, n_steps, colour_images, colour_labels):
    clf = classifier(Overflowing(range(999)), max_epochs=max_epochs)
    message = f"overflow.* float16 .*{n_steps} steps.* precision='float32'.*nothing is kept"
    with pytest.raises(ValueError, match=message):
        clf.fit(colour_images, colour_labels)
    assert not hasattr(clf, "classes_")


def test_run_of_skipped_steps_ends_fit(colour_images, colour_labels):
    clf = classifier(Overflowing(range(5, 999)), max_epochs=99)
    with pytest.warns(ConvergenceWarning, match=r"20 steps in a row .* until epoch 12, step 2"):
        clf.fit(colour_images, colour_labels)
    assert clf.n_iter_ == 11
    two = classifier(max_epochs=99, callbacks=[Stop(2)]).fit(colour_images, colour_labels)
    weights = weights_of(two)
    assert same_weights(weights, weights_of(clf))


class Stop(Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, net, **kwargs):
        net.state.stopped = net.state.epochs_done == self.epochs


def test_non_finite_loss_is_divergence(colour_images, colour_labels):
    clf = classifier(Overflowing(loss_at=1))
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1, step 1.*'float16', which"):
        clf.fit(colour_images, colour_labels)


def test_checkpoint_restores_loss_scale(colour_images, colour_labels, tmp_path):
    class Crash(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if net.state.epochs_done == 2:
                raise RuntimeError("crash")

    whole = classifier(Overflowing({2, 3})).fit(colour_images, colour_labels)
    clf = classifier(Overflowing({2, 3}), checkpoint=tmp_path, callbacks=[Crash()])
    with pytest.raises(RuntimeError, match="crash"):
        clf.fit(colour_images, colour_labels)
    clf.set_params(callbacks=None, backbone=Overflowing({2, 3}))
    clf.backbone.n_steps = 0
    resumed = NoMoreOverflow(whole)
    clf.set_params(callbacks=[resumed]).fit(colour_images, colour_labels)
    assert resumed.scales[0] == START / 4
    assert scale(clf) == scale(whole)


class NoMoreOverflow(Callback):
    """Records the scales; from now on no step overflows."""

    def __init__(self, whole):
        self.scales = []

    def on_epoch_begin(self, net, **kwargs):
        net.module_.backbone.steps = frozenset()
        self.scales.append(net.scaling.scaler.get_scale())


@pytest.mark.parametrize("copied", [lambda net: net, lambda net: pickle.loads(pickle.dumps(net))])
def test_partial_fit_continues_with_loss_scale(copied, colour_images, colour_labels):
    clf = classifier(Overflowing({1, 2}))
    clf.partial_fit(colour_images, colour_labels, classes=["left", "none"])
    assert scale(clf) == START / 4
    clf.net_ = copied(clf.net_)
    clf.net_.module_.backbone.steps = frozenset({4})
    clf.partial_fit(colour_images, colour_labels)
    assert scale(clf) == START / 8
    clf = copy.deepcopy(clf).set_params(precision="float32")
    clf.partial_fit(colour_images, colour_labels)
    assert clf.net_.scaling is None


def test_loss_scale_falls_across_skipped_calls(colour_images, colour_labels):
    clf = classifier(Overflowing(range(3, 999)))
    clf.partial_fit(colour_images, colour_labels, classes=["left", "none"])
    before = clf.predict_proba(colour_images)
    for n_calls in range(1, MAX_SKIPPED // 2):
        clf.partial_fit(colour_images, colour_labels)
        assert scale(clf) == START / 4**n_calls
    assert_array_equal(clf.predict_proba(colour_images), before)
    with pytest.raises(ValueError, match=r"20 steps in a row .* nothing is kept"):
        clf.partial_fit(colour_images, colour_labels)
    clf.net_.module_.backbone.steps = frozenset()
    clf.partial_fit(colour_images, colour_labels)
    assert (clf.predict_proba(colour_images) != before).any()


def test_features_in_float16_are_close_or_rejected(tiny_backbone, colour_images, colour_labels):
    full = BackboneFeatures(tiny_backbone, precision="float32").fit_transform(colour_images)
    half = BackboneFeatures(tiny_backbone, precision="float16").fit_transform(colour_images)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.01

    class Large(nn.Module):
        def forward(self, images):
            return nn.functional.linear(images.mean(dim=(2, 3)), torch.eye(3) * 1e6)

    clf = classifier(Large(), trainable="head")
    with pytest.raises(ValueError, match=r"not finite.*precision='float32' holds more"):
        clf.fit(colour_images, colour_labels)
    clf.set_params(precision="float32").fit(colour_images, colour_labels)


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_auto_precision_follows_gpu_support(has_bfloat16, expected, monkeypatch):
    asked = []

    @contextmanager
    def current(device):
        asked.append(device)
        yield

    def supported(including_emulation):
        assert not including_emulation  # which a T4 has
        return has_bfloat16

    monkeypatch.setattr("torch.cuda.device", current)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", supported)
    assert resolve_precision("auto", torch.device("cuda:1")) == expected
    assert asked == [torch.device("cuda:1")]
    assert resolve_precision("auto", torch.device("cpu")) == "float32"
    assert resolve_precision("auto", torch.device("mps")) == "float32"
    with autocast(expected, torch.device("cpu")):
        assert torch.get_autocast_dtype("cpu") == getattr(torch, expected)
