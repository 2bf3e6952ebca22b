"""max_time, tested with a clock that only the tests move."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from sklearn_clce import CLCEClassifier
from sklearn_clce._training import fit, time_limit
from small_fits import head, same_weights, weights_of

N_STEPS = 3  # of an epoch of the clouds


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time_limit, "monotonic", clock)
    return clock


class Takes(Callback):
    """Moves the clock at steps, validation batches and ends of epochs; records the rates."""

    def __init__(self, clock, step=1.0, validation=0.0, epoch=0.0, crash_after=None):
        self.clock = clock
        self.step = step
        self.validation = validation
        self.epoch = epoch
        self.crash_after = crash_after
        self.rates = []
        self.start = clock.now

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        self.clock.now += self.step if training else self.validation
        if training:
            self.rates.append(net.optimizer_.param_groups[0]["lr"])

    def on_epoch_begin(self, net, **kwargs):
        if net.state.epochs_done == self.crash_after:
            raise RuntimeError("crash")

    def on_epoch_end(self, net, **kwargs):
        self.clock.now += self.epoch

    @property
    def taken(self):
        return self.clock.now - self.start


def limited(takes, **params):
    defaults = {"max_epochs": 100, "batch_size": 20, "max_time": 30.0, "callbacks": [takes]}
    return head(**defaults | params)


def test_learning_rate_reaches_zero_within_max_time(clock, clouds):
    takes = Takes(clock)
    clf = limited(takes, max_time=29.5, warmup_fraction=0.0).fit(*clouds)
    assert takes.taken == 29  # another step would have been too long
    assert clf.n_iter_ == 10
    assert clf.history_[-1, "lr"] == 0
    expected = 0.01 * 0.5 * (1 + np.cos(np.pi * np.array([0.0, *np.arange(1, 29)]) / 28.5))
    assert_allclose(takes.rates, expected)


def test_warmup_follows_max_time(clock, clouds):
    takes = Takes(clock)
    limited(takes, warmup_fraction=0.5).fit(*clouds)
    assert takes.rates.index(max(takes.rates)) == 15
    assert takes.rates[0] < takes.rates[5] < takes.rates[14]


def test_max_time_ends_training_within_an_epoch(clock, clouds):
    clf = limited(Takes(clock), max_time=8.5).fit(*clouds)
    assert clf.n_iter_ == 3
    assert clf.history_[:, "train_batch_count"] == [N_STEPS, N_STEPS, 2]
    assert len(clf.history_[-1]["batches"]) == 2


def test_unneeded_max_time_changes_nothing(clock, clouds):
    takes = Takes(clock)
    clf = limited(takes, max_epochs=4, max_time=1e9).fit(*clouds)
    plain = head(max_epochs=4, batch_size=20).fit(*clouds)
    assert takes.taken == 12
    assert same_weights(weights_of(clf), weights_of(plain))


def test_learning_rate_follows_steps_until_time_overtakes(clock, clouds):
    takes = Takes(clock)
    clf = limited(takes, max_epochs=10, max_time=40.0, warmup_fraction=0.0)
    takes.on_epoch_end = lambda net, **kwargs: setattr(takes, "step", 2.0)
    clf.fit(*clouds)
    shares = np.arccos(np.array(takes.rates) / 0.005 - 1) / np.pi
    assert_allclose(shares[:4], np.arange(4) / 30, atol=1e-6)
    assert shares[-1] == pytest.approx(1 - 2 / 40, abs=0.03)
    assert takes.taken < 42


@pytest.mark.parametrize("tail", [{"validation": 2.0}, {"epoch": 4.0}, {"validation": 9.0}])
def test_max_time_includes_end_of_epoch(tail, clock, clouds):
    takes = Takes(clock, **tail)
    clf = limited(takes, early_stopping=True, validation_fraction=0.2, n_iter_no_change=99)
    clf.fit(*clouds)
    assert 30 - max(tail.values()) - 3 <= takes.taken <= 31
    assert clf.best_validation_score_ == max(clf.validation_scores_)
    assert len(clf.validation_scores_) == clf.n_iter_


def test_max_time_keeps_best_weights(clock, clouds):
    scores = iter([0.1, 0.5, *np.linspace(0.4, 0.0, 99)])
    params = {"early_stopping": True, "n_iter_no_change": 99, "max_time": 12.0}
    clf = limited(Takes(clock), scoring=lambda *args: next(scores), **params).fit(*clouds)
    assert clf.best_validation_score_ == 0.5
    assert clf.n_iter_ > 2
    scores = iter([0.1, 0.5])
    two = limited(Takes(clock), scoring=lambda *args: next(scores), **params)
    two.set_params(callbacks=[Takes(clock), Ends(2)]).fit(*clouds)
    assert same_weights(weights_of(clf), weights_of(two))


class Ends(Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, net, **kwargs):
        net.state.stopped = net.state.epochs_done == self.epochs


def test_max_time_includes_feature_pass(clock, tiny_backbone, colour_images, colour_labels):
    def slow(module, images, output):
        clock.now += len(images[0])

    tiny_backbone.register_forward_hook(slow)
    takes = Takes(clock)
    clf = CLCEClassifier(tiny_backbone, trainable="head", max_time=20.0, max_epochs=99)
    clf.set_params(callbacks=[takes], batch_size=6, warmup_fraction=0.0).fit(
        colour_images, colour_labels
    )
    assert takes.taken == 19
    assert len(takes.rates) == 7  # after 12 images that took a second each
    assert_allclose(takes.rates[0], 0.001)
    assert takes.rates[-1] < 0.0001


def test_max_time_over_before_first_step_warns(clock, clouds, monkeypatch):
    begin_steps = time_limit.TimeLimit.begin_steps

    def late(limit):
        clock.now += 100
        begin_steps(limit)

    monkeypatch.setattr(time_limit.TimeLimit, "begin_steps", late)
    clf = limited(Takes(clock), max_time=5)
    with pytest.warns(ConvergenceWarning, match=r"max_time=5 was over .* 100.0 s after"):
        clf.fit(*clouds)
    assert clf.n_iter_ == 1
    assert len(clf.history_[-1]["batches"]) == 1
    assert clf.score(*clouds) > 0.5  # the closed form at which a head starts


def test_resumed_fit_has_the_remaining_time(clock, clouds, tmp_path):
    whole = Takes(clock)
    limited(whole).fit(*clouds)
    crashing = Takes(clock, crash_after=4)
    with pytest.raises(RuntimeError, match="crash"):
        limited(crashing, checkpoint=tmp_path).fit(*clouds)
    assert len(crashing.rates) == 12
    clock.now += 1e6  # nobody trains
    rest = Takes(clock)
    clf = limited(rest, checkpoint=tmp_path).fit(*clouds)
    assert clf.n_iter_ == 10
    assert_allclose(crashing.rates + rest.rates, whole.rates)
    again = Takes(clock)
    finished = limited(again, checkpoint=tmp_path).fit(*clouds)
    assert again.rates == []
    assert same_weights(weights_of(finished), weights_of(clf))


def test_warm_start_fit_has_full_max_time(clock, clouds):
    takes = Takes(clock)
    clf = limited(takes, warm_start=True, max_time=9.0).fit(*clouds)
    clf.fit(*clouds)
    assert clf.n_iter_ == 6
    assert takes.taken == 16


def test_verbose_shows_remaining_time(clock, clouds, capsys):
    limited(Takes(clock, step=10.0), max_time=85.0, verbose=1).fit(*clouds)
    shown = capsys.readouterr().out
    assert "up to 100 epochs of 3 steps, batches of up to 20, for at most 85 s" in shown
    assert shown.rstrip().splitlines()[-1].startswith("epoch   3/100")
    assert "left" not in shown.rstrip().splitlines()[-1]


@pytest.mark.parametrize(("seconds_of_a_pass", "closes"), [(4.0, True), (20.0, False)])
def test_final_pass_fits_in_max_time_or_is_skipped(
    seconds_of_a_pass, closes, clock, monkeypatch, colour_images, colour_labels, tmp_path
):
    passes = []

    def pass_over(kind):
        def timed(*args, **kwargs):
            clock.now += seconds_of_a_pass
            passes.append(kind)
            return by_name[kind](*args, **kwargs)

        return timed

    by_name = {name: getattr(fit, name) for name in ("_build", "_refit")}
    for name in by_name:
        monkeypatch.setattr(fit, name, pass_over(name))
    takes = Takes(clock)

    def run(**params):
        return CLCEClassifier(
            image_size=32, batch_size=6, max_time=30.5, max_epochs=99, random_state=0, **params
        ).fit(colour_images, colour_labels)

    clf = run(callbacks=[takes], checkpoint=tmp_path)
    assert passes == ["_build", "_refit"][: 1 + closes]
    assert 29 <= takes.taken <= 30.5
    given_back = run(checkpoint=tmp_path)
    assert_array_equal(given_back.predict_proba(colour_images), clf.predict_proba(colour_images))


@pytest.mark.parametrize("max_time", [0, -1.0, True, "1 h"])
def test_invalid_max_time_is_rejected(max_time, clouds):
    with pytest.raises(ValueError, match="max_time"):
        head(max_time=max_time).fit(*clouds)


def test_partial_fit_rejects_max_time(clouds):
    with pytest.raises(ValueError, match="partial_fit does not support max_time=60"):
        head(max_time=60).partial_fit(*clouds, classes=[0, 1, 2])


def test_max_time_holds_on_real_clock(clouds):
    """The limit holds with the real clock too."""
    clf = head(max_time=1.0, max_epochs=10**6).fit(*clouds)
    assert sum(clf.history_[:, "dur"]) < 5  # generous, for a busy machine
    # the time may also be over after the last step of an epoch
    assert clf.history_[-1, "lr"] < 0.01 * clf.learning_rate
    assert torch.isfinite(clf.module_.head.classifier.weight).all()
