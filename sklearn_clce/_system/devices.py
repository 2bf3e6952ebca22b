"""Devices: which one, in which precision, and the state of their random generators."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .processes import local_gpu

CPU = torch.device("cpu")

_generators = threading.RLock()


def check_default_dtype() -> None:
    """Reject a default dtype other than float32, in which images come."""
    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        raise ValueError(
            f"torch's default dtype is {dtype}, and networks are built in it: "
            "torch.set_default_dtype(torch.float32) is required"
        )


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn ``device`` into a torch device that is there."""
    if device == "auto":
        alone = local_gpu() is None
        if torch.cuda.is_available():
            return torch.device("cuda" if alone else f"cuda:{local_gpu()}")
        # several processes exchange what they compute, which mps has no means for
        return torch.device("mps" if alone and torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device={device!r} can't be used here; device='auto' takes what there is ({reason})"
        ) from error
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn ``precision`` into the one to compute in."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    with torch.cuda.device(device):  # of several GPUs torch looks at the current one
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float16"


def highest_precision_dtype(device: torch.device) -> torch.dtype:
    """Return the float of most digits that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which a network computes in a precision."""
    low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=low or torch.bfloat16, enabled=low is not None)


@contextmanager
def seeded_torch(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed torch's global generators, and put them back; one thread at a time has them.

    New weights, dropout and augmentation know no other generators.
    """
    with _generators, torch.random.fork_rng(devices=[]):
        state = device_rng_state(device)
        torch.default_generator.manual_seed(seed)  # manual_seed seeds all devices, for good
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            set_device_rng_state(state, device)


def device_rng_state(device: torch.device) -> Tensor | None:
    """Return the state of the generator that a device has of its own."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def set_device_rng_state(state: Tensor | None, device: torch.device) -> None:
    """Set the state of the generator that a device has of its own."""
    if state is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif state is not None and device.type == "mps":
        torch.mps.set_rng_state(state)
