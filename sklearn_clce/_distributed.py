"""Several processes that train one model: the share of each, and what all have together.

There is more than one where the script has called
``torch.distributed.init_process_group``; each runs the whole script. Alone, everything
here gives back what it gets.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_claims: dict[str, FileLock] = {}  # held until the process ends


def n_processes() -> int:
    """Count the processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0 on."""
    return dist.get_rank() if n_processes() > 1 else 0


def is_main() -> bool:
    """Tell whether this is the process that writes and prints."""
    return rank() == 0


def local_gpu() -> int | None:
    """Return the index of this process's GPU on its machine; None where it is alone."""
    return int(os.environ.get("LOCAL_RANK", rank())) if n_processes() > 1 else None


def warn_if_not_joined() -> None:
    """Warn where a launcher has started several processes that know nothing of each other."""
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched > 1 and n_processes() == 1 and os.environ.get("RANK", "0") == "0":
        warnings.warn(
            f"a launcher started {launched} processes, and each trains a model of its own: call "
            "torch.distributed.init_process_group() first to train one together",
            UserWarning,
            stacklevel=4,
        )


def same_for_all(value: Any) -> Any:
    """Take a value, which must pickle, from the main process."""
    if n_processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def from_all(value: Any) -> list[Any]:
    """Collect a value, which must pickle, of each process, by rank."""
    if n_processes() == 1:
        return [value]
    values: list[Any] = [None] * n_processes()
    dist.all_gather_object(values, value)
    return values


def share_of(items: Any) -> Any:
    """Take this process's part of a sequence: a slice as long as the others', or longer by one."""
    fewest, longer = divmod(len(items), n_processes())
    start = rank() * fewest + min(rank(), longer)
    return items[start : start + fewest + (rank() < longer)]


class SharedBatches:
    """This process's part of each batch; the batches, of indices, are the same in every process."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            if len(batch) < n_processes():
                raise ValueError(
                    f"a batch of {len(batch)} can't be shared by {n_processes()} processes: a "
                    "larger batch_size, more samples or fewer processes are required"
                )
            yield share_of(batch)


def shared(batches: Any) -> Any:
    """Share batches of indices out, if there is more than one process."""
    return batches if n_processes() == 1 else SharedBatches(batches)


class Parallel:
    """A module whose gradients become the mean over all processes in backward.

    Weights of the main process replace those of the others.
    """

    def __init__(self, module: nn.Module) -> None:
        self.run: nn.Module = module
        if n_processes() > 1:
            self.run = DistributedDataParallel(module)

    def __call__(self, batch: Tensor) -> Any:
        """Run the module."""
        return self.run(batch)

    def unsummed(self) -> AbstractContextManager:
        """Return a context whose gradients stay in this process, to be summed later."""
        run = self.run
        return run.no_sync() if isinstance(run, DistributedDataParallel) else nullcontext()


def share_buffers(module: nn.Module) -> None:
    """Give all processes the batch statistics of the main one."""
    if n_processes() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def gather(rows: Tensor) -> Tensor:
    """Put the embeddings of all processes together, in the order of their ranks.

    Every process then computes the same loss of all of them. Backward takes the gradient
    of its own, times the number of processes, for their mean is what :class:`Parallel`
    makes of it.

    Shapes: rows (n, ...), where n may differ -> (sum of n, ...).
    """
    return rows if n_processes() == 1 else _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        own_count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(own_count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, own_count)
        n_rows = torch.cat(counts).tolist()
        padded = rows.new_zeros(max(n_rows), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in n_rows]
        dist.all_gather(parts, padded)
        start = sum(n_rows[: dist.get_rank()])
        ctx.own = slice(start, start + len(rows))
        return torch.cat([part[:n] for part, n in zip(parts, n_rows, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[ctx.own] * dist.get_world_size()


def claim_gpu(device: torch.device) -> None:
    """Refuse to share a GPU with another worker process of a parallel search.

    Several fits on one GPU end in out-of-memory errors and killed workers. The main
    process claims nothing.
    """
    if device.type != "cuda" or multiprocessing.parent_process() is None:
        return
    name = _physical_name(device.index or 0)
    if name in _claims:
        return
    user = os.getuid() if os.name == "posix" else ""  # others' folders of Windows are apart
    path = Path(tempfile.gettempdir()) / f"sklearn_clce-{user}-gpu-{name}.lock"
    claim = FileLock(path, mode=0o600, timeout=0)
    try:
        claim.acquire()
    except Timeout:
        raise RuntimeError(
            f"device={str(device)!r}: another worker process computes on GPU {name}. n_jobs=1 is "
            "required for one GPU; for several, as many workers as GPUs, each with a "
            "CUDA_VISIBLE_DEVICES of its own"
        ) from None
    _claims[name] = claim


def _physical_name(index: int) -> str:
    """Name the GPU behind an index, which each process may count in its own way."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[index] if index < len(visible) else str(index)
