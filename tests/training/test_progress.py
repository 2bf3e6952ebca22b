"""What a fit prints and records."""

import io
import pickle
import re
import sys

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from sklearn_clce import CLCEClassifier
from sklearn_clce._system import duration
from small_fits import head


def test_verbose_prints_plan_and_epoch_lines(clouds, capfd):
    clf = head(verbose=1, early_stopping=True, max_epochs=2, batch_size=9).fit(*clouds)
    shown, red = capfd.readouterr()
    first, second, *epochs = shown.splitlines()
    assert first == str(clf.plan_)
    assert first.startswith("trains a head: 54 samples, up to 2 epochs of 6 steps, ")
    assert first.endswith(", batches of up to 9, float32 on cpu")
    assert second == "training 17,813 of 17,813 parameters"
    assert len(epochs) == 2
    assert re.fullmatch(r"epoch 1/2: .*, [\d.]+ s, [\d.]+ s left", epochs[0])
    assert re.fullmatch(r"epoch 2/2: .*, [\d.]+ s", epochs[1])
    for line, epoch in zip(epochs, clf.history_, strict=True):
        assert f"loss {epoch['train_loss']:.3f}" in line
        assert f"validation loss {epoch['valid_loss']:.3f}" in line
        assert f"validation accuracy {epoch['valid_acc']:.3f}" in line
    assert red == ""


def test_verbose_counts_trained_parameters(capfd, colour_images, colour_labels):
    clf = CLCEClassifier("resnet10t", pretrained=False, trainable=1, verbose=1, max_epochs=1)
    clf.set_params(image_size=32).fit(colour_images, colour_labels)
    parameters = list(clf.module_.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    assert trained < total
    assert f"training {trained:,} of {total:,} parameters" in capfd.readouterr().out


def test_verbose_shows_feature_pass_only_in_fit(capfd, colour_images, colour_labels, tiny_backbone):
    clf = CLCEClassifier(tiny_backbone, trainable="head", max_epochs=1, verbose=1, batch_size=6)
    clf.fit(colour_images, colour_labels)
    shown, red = capfd.readouterr()
    assert "features: running the backbone on 12 of 12 images\nfeatures: " in shown
    assert red == ""
    clf.predict(colour_images)
    assert capfd.readouterr() == ("", "")


def test_default_verbosity_prints_nothing(capfd, clouds):
    head(max_epochs=2).fit(*clouds)
    assert capfd.readouterr() == ("", "")


def test_terminal_shows_transient_progress_bar(clouds, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    head(verbose=1, max_epochs=2, batch_size=6).fit(*clouds)
    text = terminal.getvalue()
    assert "step" in text
    assert text.rsplit("\r", 1)[-1].strip().startswith("epoch 2/2: loss")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (80, "80 s"), (600, "10 min"), (9000, "2.5 h")],
)
def test_duration_is_readable(seconds, text):
    assert duration(seconds) == text


def test_progress_bar_works_in_grid_search(clouds, capfd):
    pytest.importorskip("sklearn.callback")
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    search = GridSearchCV(head(max_epochs=3), {"weight": [0.0, 0.5]}, cv=2)
    search.set_callbacks(ProgressBar()).fit(*clouds)
    assert search.best_params_["weight"] in (0.0, 0.5)
    shown = capfd.readouterr().out
    assert "GridSearchCV" in shown
    assert "CLCEClassifier" in shown
    pickle.loads(pickle.dumps(search.best_estimator_))
    with pytest.raises(ValueError, match="one class"):  # and the callback ends with the fit
        head().set_callbacks(ProgressBar()).fit(clouds[0], np.zeros(60, dtype=int))


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_history_records_both_terms_of_criterion(weight, clouds):
    clf = head(weight=weight).fit(*clouds)
    for row in clf.history_:
        expected = (1 - weight) * row["train_cross_entropy"]
        if weight:
            expected += weight * row["train_contrastive"]
        assert row["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert ("train_contrastive" in clf.history_[0]) == (weight > 0)


class Slow(Callback):
    """Lets each step take a second of a clock of its own."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("sklearn_clce._training.callbacks.time.monotonic", lambda: self.now)

    def on_batch_begin(self, net, training=False, **kwargs):
        self.now += training


def test_estimate_follows_the_first_steps(clouds, monkeypatch, capfd):
    clf = head(max_epochs=4, batch_size=10, verbose=1, callbacks=[Slow(monkeypatch)])
    clf.fit(*clouds)
    lines = capfd.readouterr().out.splitlines()
    assert "training takes about 24 s" in lines[2]
    assert lines[3].startswith("epoch 1/4")


def test_verbose_fit_without_standard_output(monkeypatch, tiny_backbone, colour_images):
    """A program without a console, such as pythonw, has neither stream."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    for trainable in ("all", "head"):
        clf = CLCEClassifier(tiny_backbone, trainable=trainable, verbose=1, max_epochs=1)
        assert len(clf.fit(colour_images, [0, 1] * 6).predict(colour_images)) == 12
