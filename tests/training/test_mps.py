"""Apple's GPU, as far as it can be tested without one."""

import pytest
import torch

from sklearn_clce._network import grad_cache
from sklearn_clce._system import (
    autocast,
    device_rng_state,
    devices,
    highest_precision_dtype,
    processes,
    resolve_device,
    resolve_precision,
    seeded_torch,
    set_device_rng_state,
)

MPS = torch.device("mps")


@pytest.fixture
def generator(monkeypatch):
    """A generator in the place of Apple's."""
    generator = torch.Generator()
    monkeypatch.setattr("torch.mps.get_rng_state", generator.get_state)
    monkeypatch.setattr("torch.mps.set_rng_state", generator.set_state)
    monkeypatch.setattr("torch.mps.manual_seed", generator.manual_seed)
    return generator


@pytest.mark.parametrize(
    ("cuda", "mps", "gpu_of_process", "expected"),
    [
        (True, True, None, "cuda"),
        (True, True, 1, "cuda:1"),
        (False, True, None, "mps"),
        (False, True, 1, "cpu"),  # processes have no means to exchange what is on it
        (False, False, None, "cpu"),
    ],
)
def test_auto_device_prefers_cuda_then_mps_then_cpu(
    cuda, mps, gpu_of_process, expected, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    monkeypatch.setattr(devices, "local_gpu", lambda: gpu_of_process)
    assert resolve_device("auto") == torch.device(expected)


def test_mps_computes_in_float32():
    assert resolve_precision("auto", MPS) == "float32"
    with autocast("float32", MPS):
        assert not torch.is_autocast_enabled("mps")
    assert highest_precision_dtype(MPS) == torch.float32
    assert highest_precision_dtype(torch.device("cpu")) == torch.float64


def test_mps_generator_is_seeded_and_restored(generator):
    generator.manual_seed(7)
    expected = torch.rand(3, generator=generator)
    generator.manual_seed(7)
    inside = []

    def breaks():
        with seeded_torch(0, MPS):
            inside.append(torch.rand(3, generator=generator))
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        breaks()
    assert torch.equal(inside[0], torch.rand(3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.rand(3, generator=generator), expected)


def test_micro_batch_random_state_is_restored(generator):
    state = grad_cache._random_state(MPS)
    first = torch.rand(3, generator=generator), torch.rand(3)
    grad_cache._set_random_state(state, MPS)
    again = torch.rand(3, generator=generator), torch.rand(3)
    assert all(map(torch.equal, first, again))


def test_cpu_has_no_device_random_state():
    cpu = torch.device("cpu")
    assert device_rng_state(cpu) is None
    set_device_rng_state(None, cpu)
    assert processes._shared_gpu(MPS) is None  # no turns are taken at it
