"""Several processes train the model that one process would, up to rounding."""

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

import distributed_fit as fits
from sklearn_clce import CLCEClassifier, label_aware_contrastive_loss
from sklearn_clce._system import processes, resolve_device

SCRIPT = Path(fits.__file__)
COMMAND = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", SCRIPT]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the script in two processes over gloo; return their results and output."""
    if os.name != "posix":
        pytest.skip("torchrun over gloo")
    folder = tmp_path_factory.mktemp("run")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*COMMAND, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [np.load(folder / f"{rank}.npz") for rank in range(2)]
    return found, done.stdout, done.stderr, [path.name for path in folder.glob("*.safetensors")]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gradients", {}),
        ("gradients_in_parts", {}),
        ("gradients_of_cross_entropy", {"weight": 0.0}),
    ],
)
def test_two_processes_match_whole_batch_gradients(run, name, parameters):
    expected = fits.first_gradients(**parameters)
    assert np.abs(expected).max() > 1e-3
    for found in run[0]:
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-7)


def test_custom_loop_matches_whole_batch_gradients(run):
    expected = fits.own_loop()
    assert np.abs(expected).max() > 1e-3
    for found in run[0]:
        np.testing.assert_allclose(found["own_loop"], expected, rtol=1e-4, atol=1e-7)


def test_loss_without_gather_warns(run):
    together = label_aware_contrastive_loss(torch.eye(3).repeat(2, 1), torch.arange(6) % 3)
    for found in run[0]:
        np.testing.assert_allclose(found["losses"], [0, 0, together.item()], rtol=1e-6)
        np.testing.assert_array_equal(found["n_warnings"], [1, 0, 0])


@pytest.mark.parametrize("name", ["uneven_batches", "early_stopping", "scorer", "probabilities"])
def test_two_process_fit_matches_single_process(run, name):
    expected = getattr(fits, name)()
    for found in run[0]:
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["uneven_batches", "unseeded", "resumed", "probabilities"])
def test_processes_end_with_equal_models(run, name):
    first, second = (found[name] for found in run[0])
    np.testing.assert_array_equal(first, second)


def test_two_process_fit_resumes_from_checkpoint(run):
    resumed, whole = run[0][0]["resumed"]
    np.testing.assert_array_equal(resumed, whole)


def test_frozen_backbone_runs_once_per_image_across_processes(run, tmp_path):
    found = run[0]
    assert [int(part["n_images"]) for part in found] == [7, 6]
    (expected, _), _ = fits.frozen_features(tmp_path)
    for part in found:
        for features in part["features"]:
            np.testing.assert_allclose(features, expected, rtol=1e-5)


def test_unshareable_batch_is_rejected_in_every_process(run):
    for found in run[0]:
        assert str(found["refused"]).startswith("a batch of 1 can't be shared by 2 processes")


def test_only_first_process_prints_and_saves(run):
    _, printed, complaints, saved = run
    assert saved == ["saved_by_0.safetensors"]
    assert printed.count("training 683 of 683 parameters") == 1
    assert "training" not in complaints
    assert printed.count("running the backbone on 13 of 13 images") == 1


def test_uninitialised_process_group_warns(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    clf = CLCEClassifier("precomputed", max_epochs=1)
    with pytest.warns(UserWarning, match=r"started 2 processes.*init_process_group"):
        clf.fit(np.eye(8), [0, 1] * 4)
    monkeypatch.setenv("RANK", "1")
    clf.fit(np.eye(8), [0, 1] * 4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_process_shares_cover_rows_in_order(monkeypatch, n):
    monkeypatch.setattr(processes, "n_processes", lambda: n)
    shares = []
    for rank in range(n):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(processes.own_share(list(range(7))))
    assert list(chain(*shares)) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_process_takes_its_local_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(processes, "n_processes", lambda: 2)
    monkeypatch.setattr(processes, "rank", lambda: 5)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device("auto") == torch.device("cuda:1")
