"""Checkpoints: which fits are the same, one fit at a time, damaged files."""

import errno
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn
from torchvision.transforms import v2

from sklearn_clce import CLCEClassifier
from sklearn_clce._training import checkpoint as checkpoint_file


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X / 8, y


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 200, size=(8, 12, 12, 3), dtype=np.uint8)
    X[::2, :, :6] += 50
    return X, np.array(["left", "none"] * 4)


def head(folder, **parameters):
    """Return a head on features; an epoch takes 10 ms."""
    return CLCEClassifier(
        "precomputed", checkpoint=folder, **{"max_epochs": 3, "random_state": 0} | parameters
    )


def small(folder, *layers, **parameters):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(27, 8), *layers)
    return CLCEClassifier(net, checkpoint=folder, max_epochs=1, random_state=0, **parameters)


class Shift:
    """A custom augmentation."""

    def __init__(self, by):
        self.by = by

    def __call__(self, images):
        return images.roll(self.by, -1)


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ([nn.ReLU()], [nn.Tanh()], "backbone"),
        ([nn.LeakyReLU(0.1)], [nn.LeakyReLU(0.2)], "backbone"),
        (v2.RandomRotation(10), v2.RandomRotation(90), "augment"),
        (Shift(1), Shift(2), "augment"),
        (lambda images: images.flip(-1), lambda images: images.flip(-2), "augment"),
        ({"optimizer__betas": (0.9, 0.99)}, {"optimizer__betas": (0.8, 0.99)}, "skorch_params"),
        (
            {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
            {"optimizer": torch.optim.RMSprop, "optimizer__momentum": 0.9},
            "skorch_params",
        ),
    ],
)
def test_checkpoint_distinguishes_fits_by_one_difference(tmp_path, pictures, one, other, named):
    def classifier(change):
        if named == "backbone":
            return small(tmp_path, *change)
        return small(tmp_path, **{named: change})

    first = classifier(one).fit(*pictures)
    again = classifier(one).fit(*pictures)
    assert_array_equal(again.predict_proba(pictures[0]), first.predict_proba(pictures[0]))
    with pytest.raises(ValueError, match=f"is of another fit: {named} differ"):
        classifier(other).fit(*pictures)


def change_unnoticed(path, write):
    """Change a file and keep its size and modification time."""
    before = path.stat()
    write()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_image_files_are_compared_by_content(tmp_path, pictures):
    X, y = pictures
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = [folder / f"{number}.bmp" for number in range(len(X))]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)
    first = small(tmp_path / "checkpoint").fit(paths, y)
    moved = [shutil.copy(path, tmp_path / path.name) for path in paths]
    given_back = small(tmp_path / "checkpoint").fit(moved, y)
    assert_array_equal(given_back.predict_proba(X), first.predict_proba(X))
    change_unnoticed(paths[3], lambda: Image.fromarray(255 - X[3]).save(paths[3]))
    with pytest.raises(ValueError, match="is of another fit: X differ"):
        small(tmp_path / "checkpoint").fit(paths, y)


def test_weights_file_is_compared_by_content(tmp_path, pictures):
    path = tmp_path / "weights.safetensors"
    weights = timm.create_model("test_resnet", num_classes=0).state_dict()
    clf = CLCEClassifier("test_resnet", pretrained=path, image_size=32, max_epochs=1)
    clf.set_params(trainable="head", random_state=0, checkpoint=tmp_path / "checkpoint")
    save_file(weights, path)
    clf.fit(*pictures)
    negated = {name: -value if value.ndim == 4 else value for name, value in weights.items()}
    change_unnoticed(path, lambda: save_file(negated, path))
    with pytest.raises(ValueError, match="is of another fit: pretrained differ"):
        clf.fit(*pictures)


def test_undescribable_fit_is_not_checkpointed(tmp_path, pictures):
    def augment(images):
        return eval("images.flip(-1)")

    with pytest.warns(UserWarning, match=r"augment can't be described: it calls eval.* not kept"):
        clf = small(tmp_path, augment=augment).fit(*pictures)
    assert clf.n_iter_ == 1
    assert list(tmp_path.iterdir()) == []


def test_damaged_checkpoint_is_rejected(tmp_path, iris):
    head(tmp_path).fit(*iris)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, len(content) - 1, *rng.integers(len(content), size=100)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"its end is missing|not what was written"):
            checkpoint_file.read_state(path)
    with pytest.raises(ValueError, match=r"not a checkpoint of this version, or damaged"):
        head(tmp_path).fit(*iris)
    assert path.read_bytes() == damaged
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"its end is missing.* or remove the file"):
        head(tmp_path).fit(*iris)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_unwritable_folder_is_rejected_before_first_epoch(tmp_path, iris, place):
    (tmp_path / "file").write_text("mine")
    clf = head(tmp_path / place)
    with pytest.raises(OSError, match=r"checkpoint=.* can't be written to, choose another folder"):
        clf.fit(*iris)
    assert not hasattr(clf, "net_")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder of the kernel's")
def test_folder_without_permission_is_rejected_before_first_epoch(iris):
    with pytest.raises(OSError, match=r"checkpoint='/proc/self' can't be written to"):
        head("/proc/self").fit(*iris)


def test_full_disk_warns_once_and_fit_continues(tmp_path, iris, monkeypatch):
    save, calls = checkpoint_file.write_state, []

    def full(state, file):
        calls.append(1)
        if len(calls) in (2, 3):
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, file)

    monkeypatch.setattr(checkpoint_file, "write_state", full)
    with pytest.warns(UserWarning, match=r"No space left.*would resume from epoch 1") as warned:
        clf = head(tmp_path, max_epochs=5).fit(*iris)
    assert len(warned) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert checkpoint_file.read_state(tmp_path / "checkpoint.pt")["epochs_done"] == 5
    assert_array_equal(
        clf.predict_proba(iris[0]), head(None, max_epochs=5).fit(*iris).predict_proba(iris[0])
    )


class AfterFirstEpoch(Callback):
    """Does something after the first epoch."""

    def __init__(self, action):
        self.action = action

    def on_epoch_begin(self, net, **kwargs):
        if net.state.epochs_done == 1:
            self.action()


def test_concurrent_fit_in_one_folder_is_rejected(tmp_path, iris):
    unfinished = tmp_path / ".checkpoint.pt.1-1.unfinished"
    refused = []

    def second_fit():
        unfinished.write_bytes(b"being written")
        with pytest.raises(ValueError, match="another fit is running in this folder") as error:
            head(tmp_path).fit(*iris)
        refused.append(error)
        assert unfinished.read_bytes() == b"being written"

    clf = head(tmp_path, callbacks=[AfterFirstEpoch(second_fit)]).fit(*iris)
    assert len(refused) == 1
    assert clf.n_iter_ == 3
    given_back = head(tmp_path).fit(*iris)
    assert_array_equal(given_back.predict_proba(iris[0]), clf.predict_proba(iris[0]))


def test_failed_fit_releases_folder_lock(tmp_path, iris):
    def fail():
        raise OSError("as it happens")

    with pytest.raises(OSError, match="as it happens") as error:
        head(tmp_path, callbacks=[AfterFirstEpoch(fail)]).fit(*iris)
    assert error.traceback  # whose frames hold the fit
    assert head(tmp_path).fit(*iris).n_iter_ == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_surviving_child_does_not_hold_folder_lock(tmp_path, iris):
    held = checkpoint_file.Lock(tmp_path)
    assert held.acquire(wait=False)
    (began, begins), (ends, end) = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        os.write(begins, b"1")
        os.read(ends, 1)
        os._exit(0)
    os.read(began, 1)
    os.close(held.descriptor)  # as when the process is killed
    try:
        assert checkpoint_file.Lock(tmp_path).acquire(wait=False)
    finally:
        os.write(end, b"1")
        os.waitpid(child, 0)


def test_search_gives_each_fit_its_own_folder(tmp_path, iris):
    grid = {"temperature": [0.1, 0.5], "weight": [0.0, 0.5]}
    search = GridSearchCV(head(tmp_path), grid, cv=3).fit(*iris)
    plain = GridSearchCV(head(None), grid, cv=3).fit(*iris)
    assert_array_equal(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("fit-*/checkpoint.pt")}
    assert len(files) == 4 * 3 + 1
    again = GridSearchCV(head(tmp_path), grid, cv=3).fit(*iris)
    assert again.best_params_ == search.best_params_
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.glob("fit-*/checkpoint.pt")}


def test_clone_of_interrupted_fit_resumes(tmp_path, iris):
    def fail():
        raise OSError("killed")

    whole = head(None).fit(*iris).predict_proba(iris[0])
    with pytest.raises(OSError, match="killed"):
        clone(head(tmp_path, callbacks=[AfterFirstEpoch(fail)])).fit(*iris)
    (path,) = tmp_path.glob("fit-*/checkpoint.pt")
    assert checkpoint_file.read_state(path)["epochs_done"] < 3
    assert_array_equal(clone(head(tmp_path)).fit(*iris).predict_proba(iris[0]), whole)
    assert list(tmp_path.glob("fit-*/checkpoint.pt")) == [path]


def test_warm_start_has_its_own_checkpoint(tmp_path, iris):
    def two_fits(folder, callbacks=()):
        clf = head(folder, warm_start=True).fit(*iris)
        clf.set_params(callbacks=list(callbacks), max_epochs=2).fit(*iris)
        return clf

    def fail():
        raise OSError("killed")

    expected = two_fits(None)
    assert len(expected.history_) == 5
    with pytest.raises(OSError, match="killed"):
        two_fits(tmp_path, [AfterFirstEpoch(fail)])
    resumed = two_fits(tmp_path)
    assert len(resumed.history_) == 5
    assert_array_equal(resumed.predict_proba(iris[0]), expected.predict_proba(iris[0]))
    assert len(list(Path(tmp_path).rglob("checkpoint.pt"))) == 2
