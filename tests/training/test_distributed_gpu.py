"""Worker processes take turns on a GPU; these tests need none."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sklearn_clce._system import gpu_lock

SEARCH = """
import numpy as np, simulated_gpu
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn_clce import CLCEClassifier

X, y = load_digits(n_class=3, return_X_y=True)
X, y = X[:60].reshape(-1, 8, 8) / 16, y[:60]
clf = CLCEClassifier(simulated_gpu.OnSimulatedGPU(), max_epochs=1, random_state=0, batch_size=16)
grid = {"temperature": [0.1, 0.5], "trainable": ["all", "head"]}
one, two = (GridSearchCV(clf, grid, cv=2, n_jobs=n, refit=False).fit(X, y) for n in (1, 2))
np.testing.assert_array_equal(*(s.cv_results_["mean_test_score"] for s in (one, two)))
assert np.isfinite(two.cv_results_["mean_test_score"]).all()
"""


def take_turn(device, visible, started, turns):
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    started.wait(60)
    with gpu_lock(torch.device(device)), gpu_lock(torch.device(device)):  # within its own
        begin = time.time()
        time.sleep(0.3)
        turns.put((begin, time.time()))


def overlap(*devices_and_visible):
    """Return how long two workers computed at the same time."""
    context = multiprocessing.get_context("fork")
    started, turns = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=take_turn, args=(*pair, started, turns))
        for pair in devices_and_visible
    ]
    for worker in workers:
        worker.start()
    begins, ends = zip(*(turns.get(timeout=60) for _ in workers), strict=True)
    for worker in workers:
        worker.join(60)
    return min(ends) - max(begins)


pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tests need fork")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_on_one_gpu_take_turns():
    assert overlap(("cuda", "gpu-a"), ("cuda:0", "gpu-a")) < 0


@pytest.mark.parametrize(
    "pairs",
    [
        [("cuda", "gpu-b"), ("cuda", "gpu-c")],
        [("cuda:0", "gpu-d,gpu-e"), ("cuda:1", "gpu-d,gpu-e")],
        [("cpu", "gpu-f"), ("cpu", "gpu-f")],
    ],
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_on_separate_devices_do_not_wait(pairs):
    assert overlap(*pairs) > 0


def test_main_process_takes_no_gpu_lock(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with gpu_lock(torch.device("cuda")):
        assert list(tmp_path.iterdir()) == []


def test_parallel_search_on_one_gpu_keeps_scores(tmp_path):
    """The simulated GPU is out of memory when two processes compute at once."""
    helpers = Path(__file__).parents[1] / "helpers"
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(helpers), os.environ.get("PYTHONPATH", "")])
    with open(tmp_path / "errors", "w+") as errors:
        done = subprocess.run(
            [sys.executable, "-c", SEARCH],
            env=environment | {"PYTHONPATH": path},
            cwd=Path(__file__).parents[2],
            stderr=errors,
            timeout=300,
        )
        errors.seek(0)
        assert done.returncode == 0, errors.read()[-3000:]
