"""What a fit prints and records."""

import copy
import io
import pickle
import re
import sys
import time
import types
from multiprocessing import current_process
from unittest.mock import Mock

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import Callback

from sklearn_clce import CLCEClassifier
from sklearn_clce._system import bar, duration, expect, searches, status
from small_fits import head
from terminal_session import screen_of


class Terminal(io.StringIO):
    """A terminal that remembers what it is sent."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def screen(self):
        return screen_of(self.getvalue())


@pytest.fixture
def terminal(monkeypatch):
    """A function that puts a terminal in the place of standard output: pytest does so before."""

    def open_terminal():
        monkeypatch.setattr("sys.stdout", Terminal())
        return sys.stdout

    monkeypatch.setattr("sklearn_clce._system.status.DRAWN_EVERY", 0.001)
    monkeypatch.setenv("COLUMNS", "140")
    return open_terminal


class Pause(Callback):
    """Let each step take a while."""

    def __init__(self, seconds=0.02):
        self.seconds = seconds

    def on_batch_end(self, net, training=False, **kwargs):
        time.sleep(self.seconds * training)


def test_verbose_prints_plan_and_epoch_lines(clouds, capfd):
    clf = head(verbose=2, early_stopping=True, max_epochs=2, batch_size=9).fit(*clouds)
    shown, red = capfd.readouterr()
    first, second, *epochs = [line for line in shown.splitlines() if line[:9] != "training:"]
    assert first == str(clf.plan_)
    assert first.startswith("trains a head: 54 samples, up to 2 epochs of 6 steps, ")
    assert first.endswith(", batches of up to 9, float32 on cpu")
    assert second == "training 17,813 of 17,813 parameters"
    assert len(epochs) == 2
    assert re.fullmatch(r"epoch 1/2: .*, [\d.]+ s, \d+ s left", epochs[0])
    assert re.fullmatch(r"epoch 2/2: .*, [\d.]+ s", epochs[1])
    for line, epoch in zip(epochs, clf.history_, strict=True):
        assert f"loss {epoch['train_loss']:.3f}" in line
        assert f"validation loss {epoch['valid_loss']:.3f}" in line
        assert f"validation accuracy {epoch['valid_acc']:.3f}" in line
    assert red == ""


def test_file_gets_the_plan_and_the_last_epoch(clouds, capfd):
    clf = head(verbose=1, max_epochs=9).fit(*clouds)
    plan, *_, last = capfd.readouterr().out.splitlines()
    assert plan == str(clf.plan_)
    assert last.startswith("epoch 9/9: loss")


def test_terminal_shows_one_line_that_moves_and_leaves_the_plan(clouds, terminal):
    terminal = terminal()
    clf = head(verbose=1, early_stopping=True, max_epochs=2, batch_size=9, callbacks=[Pause()])
    clf.fit(*clouds)
    assert terminal.screen() == [str(clf.plan_), ""]
    moved = terminal.getvalue().split("\r")
    assert any("preparing" in state for state in moved)
    in_first, in_second = (
        [state for state in moved if state.startswith("training:") and f"epoch {n}/2" in state]
        for n in (1, 2)
    )
    assert in_first
    assert any(
        re.search(r"2/2, \d+ s left, loss \d\.\d+, .*validation accuracy", s) for s in in_second
    )
    head(max_epochs=1, verbose=2, callbacks=[Pause()]).fit(*clouds)
    assert terminal.screen()[-2].startswith("epoch 1/1: loss")


def test_terminal_shows_passes_over_images(colour_images, colour_labels, tiny_backbone, terminal):
    terminal = terminal()

    class Slow(type(tiny_backbone)):
        def forward(self, images):
            time.sleep(0.02)
            return super().forward(images)

    clf = CLCEClassifier(Slow(), trainable="head", max_epochs=1, verbose=1, batch_size=6)
    clf.fit(colour_images, colour_labels)
    assert re.search(r"\rfeatures: \|█{8} {8}\| 6/12 images, 1 s left", terminal.getvalue())
    terminal.truncate(terminal.seek(0))
    clf.predict(colour_images)
    assert re.search(r"\rpredicting: \|█{8} {8}\| 6/12 images, 1 s left", terminal.getvalue())
    clf.set_params(trainable="all").fit(colour_images, colour_labels)
    assert "\rlast pass: " in terminal.getvalue()
    assert terminal.screen()[-1] == ""


def test_search_shows_one_line(clouds, terminal):
    terminal = terminal()
    clf = head(verbose=1, max_epochs=2, callbacks=[Pause()])
    search = GridSearchCV(clf, {"weight": [0.0, 0.5]}, cv=2, refit=False).fit(*clouds)
    plan, end = terminal.screen()
    assert plan.startswith("trains a head: 30 samples")
    assert end == ""
    moved = terminal.getvalue()
    pytest.importorskip("sklearn.callback")
    for number in range(1, 5):
        assert f"\rfit {number} of 4, " in moved
    assert re.search(r"\rfit 4 of 4, 1 s left, training: \|.*\| epoch 2/2, 1 s left, loss", moved)
    assert not hasattr(search, "best_estimator_")


def test_cross_validation_counts_its_fits(clouds, terminal):
    terminal = terminal()
    for _ in range(2):
        terminal.truncate(terminal.seek(0))
        cross_val_score(head(verbose=1, max_epochs=1, callbacks=[Pause()]), *clouds, cv=3)
        assert [line[:13] for line in terminal.screen()] == ["trains a head", ""]
        found = re.findall(r"\rfit (\d), training", terminal.getvalue())
        assert sorted(set(found)) == ["1", "2", "3"]


def test_search_in_a_file_writes_few_lines(clouds, capfd):
    cross_val_score(head(verbose=1, max_epochs=3), *clouds, cv=3)
    lines = capfd.readouterr().out.splitlines()
    assert [line[:6] for line in lines if not line.startswith("fit ")] == ["trains"]


def test_processes_of_a_search_show_nothing(clouds, capfd, monkeypatch):
    monkeypatch.setattr(current_process(), "_name", "LokyProcess-1")
    head(verbose=1, max_epochs=1).fit(*clouds)
    assert capfd.readouterr() == ("", "")


def test_file_gets_lines_ever_more_rarely(capfd, monkeypatch):
    monkeypatch.setattr(status, "WRITTEN_EVERY", 0.05)
    monkeypatch.setattr(status, "WRITTEN_SHARE", 0.5)
    monkeypatch.setattr(status, "DRAWN_EVERY", 0.01)
    for _ in bar(range(40), total=40, unit="image", what="reading"):
        time.sleep(0.02)
    lines = capfd.readouterr().out.splitlines()
    assert all(re.fullmatch(r"reading: \d+/40 images(, \d+ s left)?", line) for line in lines)
    assert 2 <= len(lines) <= 12  # of sixteen or more, if each pause were as long as the first


def test_silence_ends_with_one_hint(clouds, terminal, monkeypatch):
    terminal = terminal()
    monkeypatch.setattr(status, "SILENT", 0.02)
    monkeypatch.setattr(status._line, "has_hinted", False)
    for _ in range(2):
        head(max_epochs=3, batch_size=10, callbacks=[Pause()]).fit(*clouds)
    hint, end = terminal.screen()
    assert re.fullmatch(r"about \d+ s left; verbose=1 shows the progress", hint)
    assert end == ""


def test_hint_counts_what_follows_the_first_pass(monkeypatch):
    now = 0.0
    monkeypatch.setattr(status, "monotonic", lambda: now)
    with bar(what="preparing", deadline=1000.0, shown=False):
        expect(later=360)
        with bar(total=40, unit="image", shown=False) as stage:
            now = 10.0
            stage.update(20)
            assert stage.text() == "20/40 images, 10 s left"
            assert status._line.left() == 10 + 360 / 2
            now = 900.0  # the limit of the time comes first
            assert status._line.left() == 100


def test_part_of_a_stage_counts_for_the_whole():
    with bar(total=40, unit="image", what="predicting", shown=False) as whole:
        with bar(total=20, unit="image", shown=False) as part:
            part.update(8)
            assert status._line.text().startswith("predicting: 8/40 images")
        assert whole.n_done == 0
        whole.update(20)
        assert status._line.text().startswith("predicting: 20/40 images")


def test_search_counts_down(monkeypatch):
    search = searches.Search(start=0.0, costs=[1, 1, 1, 1], n_done=2, updated=20.0)
    monkeypatch.setattr(searches, "monotonic", lambda: 25.0)
    assert str(search) == "fit 3 of 4, 15 s left"
    search.costs = [1, 1, 4, 4]
    assert str(search) == "fit 3 of 4, 75 s left"
    assert str(searches.Search(n_done=1)) == "fit 2"


def test_hint_is_for_people(clouds, capfd, monkeypatch):
    monkeypatch.setattr(status, "SILENT", 0.0)
    monkeypatch.setattr(status._line, "has_hinted", False)
    head(max_epochs=3, callbacks=[Pause()]).fit(*clouds)
    assert capfd.readouterr() == ("", "")


def test_notebook_shows_one_output_for_a_cell(clouds, monkeypatch):
    shown, states = [], []

    class OutStream(io.StringIO):
        __module__ = "ipykernel.iostream"

    class Handle:
        def update(self, data, raw):
            states.append(data["text/plain"])

    def display(data, raw, display_id):
        shown.append(data)
        return Handle()

    shell = Mock(execution_count=1)
    for name in ("IPython", "IPython.display"):
        notebook = types.SimpleNamespace(get_ipython=lambda: shell, display=display)
        monkeypatch.setitem(sys.modules, name, notebook)
    monkeypatch.setattr("sys.stdout", OutStream())
    monkeypatch.setattr(status, "DRAWN_EVERY", 0.001)
    cross_val_score(head(verbose=1, max_epochs=2, callbacks=[Pause()]), *clouds, cv=2)
    assert shown == [{"text/plain": ""}]
    assert any("fit 2, training: |" in state for state in states)
    assert states[-1] == ""
    shell.execution_count = 2
    head(verbose=1, max_epochs=1).fit(*clouds)
    assert len(shown) == 2


def test_verbose_two_counts_trained_parameters(capfd, colour_images, colour_labels):
    clf = CLCEClassifier("resnet10t", pretrained=False, trainable=1, verbose=2, max_epochs=1)
    clf.set_params(image_size=32).fit(colour_images, colour_labels)
    parameters = list(clf.module_.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    assert trained < total
    assert f"training {trained:,} of {total:,} parameters" in capfd.readouterr().out


def test_fit_says_which_images_were_in_memory(capfd, tmp_path, colour_images, colour_labels):
    clf = CLCEClassifier("resnet10t", pretrained=False, trainable="head", max_epochs=1, verbose=1)
    clf.set_params(image_size=32, memory=str(tmp_path), random_state=0)
    for n, line in (
        (4, []),
        (5, ["4 of 5 images were in memory"]),
        (5, ["all 5 images were in memory"]),
    ):
        clf.fit(colour_images[:n], colour_labels[:n])
        shown, red = capfd.readouterr()
        assert [each for each in shown.splitlines()[1:-1] if "memory" in each] == line
        assert red == ""
    clf.predict(colour_images)
    assert "memory" not in capfd.readouterr().out


def test_default_verbosity_prints_nothing(capfd, clouds):
    head(max_epochs=2).fit(*clouds)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.01 s"), (9.94, "9.9 s"), (80, "80 s"), (600, "10 min"), (9000, "2.5 h")],
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


def test_verbose_fit_without_standard_output(monkeypatch, tiny_backbone, colour_images):
    """A program without a console, such as pythonw, has neither stream."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    for trainable in ("all", "head"):
        clf = CLCEClassifier(tiny_backbone, trainable=trainable, verbose=1, max_epochs=1)
        assert len(clf.fit(colour_images, [0, 1] * 6).predict(colour_images)) == 12


def test_history_prints_a_small_table(clouds, tmp_path):
    pd = pytest.importorskip("pandas")
    clf = head(max_epochs=12, early_stopping=True, n_iter_no_change=99).fit(*clouds)
    first, *rows = repr(clf.history_).splitlines()
    names = first.split()
    assert names[0] == "epoch"
    assert {"train_loss", "train_contrastive", "valid_loss", "valid_acc", "lr", "dur"} <= set(names)
    assert [row.split()[0] for row in rows] == [*"12345", "...", *"89", "10", "11", "12"]
    assert len({len(row) for row in rows}) == 1
    assert rows[-1].split()[names.index("valid_acc")] == f"{clf.history_[-1]['valid_acc']:.4g}"
    frame = clf.history_.to_frame()
    assert frame.index.tolist() == list(range(1, 13))
    assert frame["train_loss"].tolist() == [epoch["train_loss"] for epoch in clf.history_]
    assert not [name for name in frame if "batch" in name or name.endswith("_best")]
    clf.save(tmp_path / "model.safetensors")
    for other in (
        CLCEClassifier.load(tmp_path / "model.safetensors"),
        pickle.loads(pickle.dumps(clf)),
        copy.deepcopy(clf).set_params(early_stopping=False).partial_fit(*clouds),
    ):
        pd.testing.assert_frame_equal(other.history_.to_frame()[:12][list(frame)], frame)
