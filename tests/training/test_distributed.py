"""Several processes train the model that one process would, up to rounding."""

import json
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
        ("gradients_of_several_labels", {"y": fits.INDICATOR}),
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


@pytest.mark.parametrize(
    "name", ["uneven_batches", "early_stopping", "scorer", "several_labels", "probabilities"]
)
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
    assert printed.count("trains all of ") == 1
    assert "trains" not in complaints
    assert printed.count("all 13 images were in memory") == 1


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


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """What two processes get from calls that differ, by the name of the call."""
    if os.name != "posix":
        pytest.skip("torchrun over gloo")
    folder = tmp_path_factory.mktemp("errors")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    script = SCRIPT.with_name("distributed_errors.py")
    done = subprocess.run(
        [*COMMAND[:-1], script, folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"errors-{rank}.json").read_text()) for rank in range(2)]


DIFFERENT = {  # what the message names
    "predict part": "X is float64 (6, 8, 8, 3) ",
    "predict fewer": "X is float64 (13, 8, 8, 3) ",
    "predict none": "X is float64 (0, 8, 8, 3) ",
    "predict order": "X is ",
    "predict_proba features": "X is ",
    "decision_function list": "X is 6 items ",
    "transform Subset": "X is Subset of 6 [0, 2, 4, 6, 8, 10] in process 0 and Subset of 6 [1, 3,",
    "score_samples": "X is ",
    "predict paths": "X is 13 items ",
    "predict other method": "the method is CLCEClassifier.predict in process 0 and "
    "CLCEClassifier.predict_proba in process 1",
    "predict NaN": "X is ",
    "predict other model": "number of epochs is 1 in process 0 and 2 in process 1",
    "fit part": "X is ",
    "fit order": "X is ",
    "fit labels": "y is ",
    "fit weights": "sample_weight is ",
    "fit no weights": "sample_weight is None in process 0 and float64 (13,) ",
    "fit validation": "X_val is ",
    "partial_fit": "X is ",
    "add_classes": "X is ",
    "features": "X is ",
    "features of others": "backbone is PlainBackbone ",
    "max_epochs": "max_epochs is 1 in process 0 and 2 in process 1",
    "batch_size": "batch_size is 6 in process 0 and 7 in process 1",
    "wrong value": "max_epochs is 0 in process 0 and 1 in process 1",
    "early_stopping": "early_stopping is False in process 0 and True in process 1",
    "checkpoint": "checkpoint is False in process 0 and True in process 1",
}


@pytest.mark.parametrize("call", DIFFERENT)
def test_calls_that_differ_are_errors_in_all_processes(errors, call):
    for found in errors:
        kind, message, seconds = found[call]
        assert kind == "DisagreementError"
        assert message.startswith(DIFFERENT[call])
        assert "Pass all samples to every process" in message
        assert seconds < 5


@pytest.mark.parametrize(
    ("call", "failing", "error"),
    [
        ("predict unfitted", 1, "NotFittedError"),
        ("raised in 0", 0, "KeyError"),
        ("interrupted in 0", 0, "KeyboardInterrupt"),
        ("signal in 1", 1, "KeyboardInterrupt"),
        ("signal in a head", 1, "KeyboardInterrupt"),
        ("unreadable in 1", 1, "ValueError"),
    ],
)
def test_error_in_one_process_ends_the_call_in_all(errors, call, failing, error):
    kind, _, seconds = errors[failing][call]
    assert kind == error
    assert seconds < 10
    kind, message, seconds = errors[1 - failing][call]
    assert kind == "RuntimeError"
    assert message.startswith("another of the 2 processes that train together has ended this call")
    assert seconds < 10


def test_processes_train_together_again_after_errors(errors):
    assert [found["as before"] for found in errors] == [True, True]
