"""Devices: which one, in which precision, and the state of their random generators."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from .locks import ProcessLock
from .processes import local_gpu

CPU = torch.device("cpu")

_generators = ProcessLock()


@contextmanager
def own_torch() -> Iterator[None]:
    """Compute in torch's usual state, and leave the caller's state as it was.

    Gradient and inference mode, autocast, default device and default dtype may be anything around
    a call. The default dtype belongs to the process: the last thread to leave restores it.
    """
    with ExitStack() as usual:
        usual.enter_context(torch.inference_mode(False))
        usual.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                usual.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != CPU:  # a mode that every operation would pay for
            usual.enter_context(CPU)
        usual.enter_context(_float32)
        yield


class _DefaultDtype:
    """Sets the default dtype of the process while any thread is inside."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.lock = ProcessLock(self._forget_other_threads)
        self.inside: list[int] = []  # threads, each as often as it has entered

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = torch.get_default_dtype()
                torch.set_default_dtype(self.dtype)
            self.inside.append(threading.get_ident())

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside.remove(threading.get_ident())
            self._restore_if_left()

    def _forget_other_threads(self) -> None:
        if self.inside:
            self.inside = [thread for thread in self.inside if thread == threading.get_ident()]
            self._restore_if_left()

    def _restore_if_left(self) -> None:
        if not self.inside:
            torch.set_default_dtype(self.before)


_float32 = _DefaultDtype(torch.float32)


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
        if str(device).split(":")[0].lower() in ("gpu", "nvidia"):
            reason = "did you mean 'cuda'?"
        elif reason.startswith("Expected one of"):  # a list of all that torch may be built for
            reason = "torch knows 'cpu', 'cuda', 'cuda:1' and 'mps'"
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
