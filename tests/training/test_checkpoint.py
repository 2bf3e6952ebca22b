"""A killed fit that is started again ends with the weights of an uninterrupted one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from checkpointed_fit import classifier, data
from sklearn_clce import CLCEClassifier
from sklearn_clce._system import write_atomically


class Recording(Callback):
    """Record a number and a matrix in each epoch."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("number", np.float32(3))
        net.history.record("matrix", np.ones((2, 2)))


SCRIPT = Path(__file__).parents[1] / "helpers" / "checkpointed_fit.py"


def run(folder, result, moment):
    command = [sys.executable, SCRIPT, folder, result, moment]
    return subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    result = tmp_path_factory.mktemp("whole") / "result.pt"
    whole = run(result.parent / "checkpoint", result, "never")
    assert whole.returncode == 0, whole.stderr
    return torch.load(result)


@pytest.mark.skipif(os.name != "posix", reason="a process is killed by a signal")
@pytest.mark.parametrize(
    "moment", ["step:1", "epoch:2", "step:5", "writing:1", "writing:3", "renaming:4", "epoch:5"]
)
def test_killed_fit_resumes_bit_for_bit(moment, uninterrupted, tmp_path):
    folder, result = tmp_path / "checkpoint", tmp_path / "result.pt"
    killed = run(folder, result, moment)
    assert killed.returncode == -signal.SIGKILL
    assert not result.exists()
    again = run(folder, result, "never")
    assert again.returncode == 0, again.stderr
    resumed = torch.load(result)
    assert resumed.pop("history") == uninterrupted["history"]
    assert all(torch.equal(value, uninterrupted[name]) for name, value in resumed.items())
    assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]


def test_checkpoint_does_not_change_result(tmp_path):
    X, y = data()
    with_checkpoint = classifier(tmp_path / "checkpoint").fit(X, y)
    without = classifier(None).fit(X, y)
    assert_array_equal(with_checkpoint.predict_proba(X), without.predict_proba(X))


def test_finished_fit_is_restored(tmp_path):
    X, y = data()
    first = classifier(tmp_path).fit(X, y)
    before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    second = classifier(tmp_path).fit(X, y)
    assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert second.n_iter_ == 5
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before


def test_unseeded_fit_is_restored(tmp_path):
    X, y = data()
    first = classifier(tmp_path, random_state=None).fit(X, y)
    second = classifier(tmp_path, random_state=None).fit(X, y)
    assert_array_equal(first.predict_proba(X), second.predict_proba(X))


def test_head_checkpoint_omits_backbone(tmp_path):
    X, y = data()
    heavy = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 2000))
    clf = CLCEClassifier(heavy, trainable="head", projection_dim=8, checkpoint=tmp_path)
    clf.set_params(max_epochs=2, random_state=0).fit(X, y)
    assert (tmp_path / "checkpoint.pt").stat().st_size < 192 * 2000 * 4 / 2
    again = CLCEClassifier(heavy, trainable="head", projection_dim=8, checkpoint=tmp_path)
    again.set_params(max_epochs=2, random_state=0).fit(X, y)
    assert_array_equal(again.predict_proba(X), clf.predict_proba(X))


def changed_data(X, y):
    X = X.copy()
    X[3, 0, 0, 0] += 1
    return X, y


@pytest.mark.parametrize(
    ("params", "change", "named"),
    [
        ({"temperature": 0.2}, None, "temperature"),
        ({"max_epochs": 6}, None, "max_epochs"),
        ({"random_state": 1}, None, "random_state"),
        ({"backbone": nn.Flatten()}, None, "backbone"),
        ({"class_weight": "balanced"}, None, "class_weight or sample_weight"),
        ({}, changed_data, "X"),
        ({}, lambda X, y: (X, y[::-1]), "y"),
    ],
)
def test_checkpoint_of_another_fit_is_rejected(params, change, named, tmp_path):
    X, y = data()
    y[0] = "none"
    clf = classifier(tmp_path, max_epochs=1, early_stopping=False).fit(X, y)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    clf.set_params(**params)
    with pytest.raises(ValueError, match=f"is of another fit: {named} differs?; choose another"):
        clf.fit(*(change(X, y) if change else (X, y)))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("patience", [2, 3])
def test_fit_ended_by_callback_is_restored(patience, tmp_path):
    X, y = data()

    def fit():
        stop = EarlyStopping("train_loss", patience=patience, threshold=1e9, load_best=False)
        params = {"early_stopping": False, "max_epochs": 9, "callbacks": [Recording(), stop]}
        return classifier(tmp_path, **params).fit(X, y)

    first, again = fit(), fit()
    assert first.n_iter_ == again.n_iter_ == patience + 1
    assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert len(again.history_[:, "number"]) == patience + 1  # of the last epoch, too
    assert again.history_[:, "matrix"] == [None] * (patience + 1)  # is not a number


def test_checkpoint_works_without_schedule(tmp_path):
    X, y = data()
    fits = [
        classifier(folder, max_epochs=2, skorch_params={"callbacks__lr_scheduler": None}).fit(X, y)
        for folder in (None, tmp_path, tmp_path)
    ]
    for clf in fits[1:]:
        assert_array_equal(clf.predict_proba(X), fits[0].predict_proba(X))


def test_checkpoint_ignores_parameters_without_effect_on_result(tmp_path):
    X, y = data()
    clf = classifier(tmp_path, max_epochs=1).fit(X, y)
    clf.set_params(num_workers=1, callbacks=[]).fit(X, y)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_foreign_checkpoint_file_is_rejected(content, tmp_path):
    path = tmp_path / "checkpoint.pt"
    if content is None:
        torch.save({"weights": np.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"checkpoint.pt is not a checkpoint .* choose another folder"
    ):
        classifier(tmp_path).fit(*data())


def test_write_error_keeps_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fails)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


class Replaces(Callback):
    """Puts something else in the place of the file after the first epoch."""

    def __init__(self, path, put):
        self.path, self.put = path, put

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            self.path.unlink()
            self.put(self.path)


@pytest.mark.skipif(os.name != "posix", reason="there are no pipes")
@pytest.mark.parametrize("put", [os.mkdir, os.mkfifo])
def test_checkpoint_file_that_became_something_else_does_not_end_the_fit(put, tmp_path):
    X, y = data()
    callback = Replaces(tmp_path / "checkpoint.pt", put)
    with pytest.warns(UserWarning, match=r"can't be written .* resume from epoch 1"):
        clf = classifier(tmp_path, callbacks=[callback]).fit(X, y)
    assert clf.n_iter_ == 5
    with pytest.raises(ValueError, match="it is a folder, a pipe or a device"):
        classifier(tmp_path).fit(X, y)
