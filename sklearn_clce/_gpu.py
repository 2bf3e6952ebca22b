"""One process for each GPU, where a search runs in several."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path

import torch

_claims: dict[str, int] = {}  # descriptors of locked files, held until the process ends


def claim_gpu(device: torch.device) -> None:
    """Refuse to share a GPU with another worker process of a parallel search.

    Several fits on one GPU end in out-of-memory errors and killed workers. The claim is
    a locked file, given up when the process ends. The main process claims nothing.

    Parameters
    ----------
    device : torch.device
        Where the process is going to compute.

    Raises
    ------
    RuntimeError
        If another worker process has claimed the GPU.
    """
    if device.type != "cuda" or multiprocessing.parent_process() is None or os.name != "posix":
        return
    import fcntl

    name = _physical_name(device.index or 0)
    if name in _claims:
        return
    path = Path(tempfile.gettempdir()) / f"sklearn_clce-{os.getuid()}-gpu-{name}.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise RuntimeError(
            f"device={str(device)!r}: another worker process computes on GPU {name}. n_jobs=1 is "
            "required for one GPU; for several, as many workers as GPUs, each with a "
            "CUDA_VISIBLE_DEVICES of its own"
        ) from None
    _claims[name] = descriptor


def _physical_name(index: int) -> str:
    """Name the GPU behind an index, which each process may count in its own way."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[index] if index < len(visible) else str(index)
