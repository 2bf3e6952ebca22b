"""Worker processes do not share a GPU; no GPU is needed to test the claim."""

import os
import time

import joblib
import pytest
import torch

from sklearn_clce._distributed import claim_gpu


def claim_in_worker(device, visible):
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    try:
        claim_gpu(torch.device(device))
        claim_gpu(torch.device(device))  # its own claim does not stand in its way
        time.sleep(2)
    except RuntimeError as error:
        return str(error)
    return ""


def claims(*devices_and_visible):
    jobs = (joblib.delayed(claim_in_worker)(*pair) for pair in devices_and_visible)
    return sorted(joblib.Parallel(n_jobs=2)(jobs))


def test_two_workers_on_one_gpu():
    free, refused = claims(("cuda", "gpu-a"), ("cuda:0", "gpu-a"))
    assert free == ""
    assert "another worker process computes on GPU gpu-a. n_jobs=1 is required" in refused


@pytest.mark.parametrize(
    "pairs",
    [
        [("cuda", "gpu-b"), ("cuda", "gpu-c")],
        [("cuda:0", "gpu-d,gpu-e"), ("cuda:1", "gpu-d,gpu-e")],
        [("cpu", "gpu-f"), ("cpu", "gpu-f")],
    ],
)
def test_workers_with_a_device_each(pairs):
    assert claims(*pairs) == ["", ""]


def test_the_main_process_claims_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    claim_gpu(torch.device("cuda"))
    assert list(tmp_path.iterdir()) == []
