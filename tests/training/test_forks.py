"""A forked child of a process whose other threads hold locks."""

import multiprocessing
import os
import sys
import threading
from contextlib import ExitStack

import numpy as np
import pytest
import torch

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce._system import ProcessLock, gpu_lock, locks, processes, seeded_torch
from sklearn_clce._system.devices import own_torch
from small_backbones import TinyBackbone

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests need fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

X = np.random.default_rng(0).random((8, 8, 8))
Y = np.arange(8) % 2


class Held:
    """Holds a context in another thread."""

    def __init__(self, context, wait=60):
        self.context = context
        self.wait = wait
        self.entered, self.left = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold, daemon=True)

    def hold(self):
        with self.context:
            self.entered.set()
            self.left.wait(60)

    def __enter__(self):
        self.thread.start()
        self.entered.wait(self.wait)
        return self

    def __exit__(self, *error):
        self.left.set()
        self.thread.join(self.wait)


def in_child(function):
    """Return what a function gives in a forked child; a child that waits for ever is an error."""
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    child = context.Process(target=lambda: found.put(function()))
    child.start()
    try:
        return found.get(timeout=30)
    finally:
        child.kill()
        child.join()


def fit_and_load(folder):
    clf = CLCEClassifier(TinyBackbone(), image_size=32, max_epochs=1, random_state=0).fit(X, Y)
    clf.save(folder / "model")
    loaded = CLCEClassifier.load(folder / "model", backbone=TinyBackbone())
    BackboneFeatures("test_resnet", pretrained=False, image_size=32).transform(X)
    return loaded.predict(X)


def test_child_fits_and_loads_while_every_lock_is_held(tmp_path):
    expected = fit_and_load(tmp_path)
    held = ExitStack()
    for lock in [*locks._locks]:
        held.enter_context(Held(lock))
    with held:
        np.testing.assert_array_equal(in_child(lambda: fit_and_load(tmp_path)), expected)


def test_child_of_a_fitting_process_fits_and_loads(tmp_path):
    expected = fit_and_load(tmp_path)
    stop = threading.Event()

    def fit_for_long():
        clf = CLCEClassifier(TinyBackbone(), image_size=32, max_epochs=1, random_state=0)
        while not stop.is_set():
            clf.fit(X, Y)

    thread = threading.Thread(target=fit_for_long)
    thread.start()
    try:
        for _ in range(3):
            np.testing.assert_array_equal(in_child(lambda: fit_and_load(tmp_path)), expected)
    finally:
        stop.set()
        thread.join()


def test_every_lock_of_a_module_is_a_process_lock():
    kinds = (type(threading.Lock()), type(threading.RLock()))
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] == "sklearn_clce"]
    assert len(modules) > 50
    for module in modules:
        found = [name for name, value in vars(module).items() if isinstance(value, kinds)]
        assert not found, (module.__name__, found)


def test_child_keeps_locks_of_the_thread_that_forks():
    lock = ProcessLock()

    def is_held():
        with Held(lock, wait=0.5) as held:
            return not held.entered.is_set()

    with lock:
        assert in_child(is_held)
    assert not in_child(is_held)


def test_child_has_the_callers_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        with Held(own_torch()):
            assert torch.get_default_dtype() == torch.float32
            assert in_child(torch.get_default_dtype) == torch.float64
        with own_torch():
            assert in_child(torch.get_default_dtype) == torch.float32
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_child_draws_while_a_thread_has_the_generators():
    with Held(seeded_torch(3)):
        assert in_child(lambda: _drawn(0)) == _drawn_alone(0)


def _drawn(seed):
    with seeded_torch(seed):
        return torch.rand(1).item()


def _drawn_alone(seed):
    return torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()


def test_child_takes_the_gpu_once_a_thread_of_its_parent_gives_it_up(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_shared_gpu", lambda device: "gpu-of-a-parent")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held = Held(gpu_lock(torch.device("cuda")))

    def take():
        with gpu_lock(torch.device("cuda")):
            return True

    timer = threading.Timer(0.5, held.left.set)
    with held:
        timer.start()
        assert in_child(take)
    timer.join()
