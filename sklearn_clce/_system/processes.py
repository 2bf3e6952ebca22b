"""Several processes: the share of each, and turns at what only one may have.

Several processes train one model if the script has called
``torch.distributed.init_process_group``; each runs the whole script. In a single process the
functions return their argument. The workers of a search know nothing of each other and take turns.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .progress import warn

START_METHODS = ("fork", "forkserver", "spawn")

_turns: dict[tuple[int, str], FileLock] = {}  # by process, as a child may not use those it inherits
_groups: list[dist.ProcessGroup] = []  # within a joint call, the one that it uses


def n_processes() -> int:
    """Count the processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0 on."""
    return dist.get_rank() if n_processes() > 1 else 0


def is_main() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0


def group() -> dist.ProcessGroup | None:
    """Return the process group of the joint call that is running; None: torch's own."""
    return _groups[-1] if _groups else None


@contextmanager
def using(own: dist.ProcessGroup) -> Iterator[None]:
    """Let processes exchange all in a group."""
    _groups.append(own)
    try:
        yield
    finally:
        _groups.pop()


def local_gpu() -> int | None:
    """Return the index of this process's GPU on its machine; None if it is alone."""
    return int(os.environ.get("LOCAL_RANK", rank())) if n_processes() > 1 else None


def warn_if_not_joined() -> None:
    """Warn if a launcher has started several processes that were not joined."""
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched > 1 and n_processes() == 1 and os.environ.get("RANK", "0") == "0":
        warn(
            f"a launcher started {launched} processes, and each trains a model of its own: call "
            "torch.distributed.init_process_group() first to train one together"
        )


def broadcast(value: Any) -> Any:
    """Take a value, which must pickle, from the main process."""
    if n_processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=group())
    return values[0]


def gather_objects(value: Any) -> list[Any]:
    """Collect a value, which must pickle, of each process, by rank."""
    if n_processes() == 1:
        return [value]
    values: list[Any] = [None] * n_processes()
    dist.all_gather_object(values, value, group=group())
    return values


def own_share(items: Any) -> Any:
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
            yield own_share(batch)


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
            self.run = DistributedDataParallel(module, process_group=group())

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
            dist.broadcast(buffer, src=0, group=group())


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
        dist.all_gather(counts, own_count, group=group())
        n_rows = torch.cat(counts).tolist()
        padded = rows.new_zeros(max(n_rows), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in n_rows]
        dist.all_gather(parts, padded, group=group())
        start = sum(n_rows[: dist.get_rank()])
        ctx.own = slice(start, start + len(rows))
        return torch.cat([part[:n] for part, n in zip(parts, n_rows, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[ctx.own] * dist.get_world_size()


@contextmanager
def gpu_lock(device: torch.device) -> Iterator[None]:
    """Compute while no other worker process of a parallel search computes on the same GPU.

    Several fits on one GPU end in out-of-memory errors and killed workers. A worker waits
    for its turn, and gives the memory back that torch would keep for its next one.
    """
    if (gpu := _shared_gpu(device)) is None:
        yield
        return
    user = os.getuid() if os.name == "posix" else ""  # others' folders of Windows are apart
    path = Path(tempfile.gettempdir()) / f"sklearn_clce-{user}-gpu-{gpu}.lock"
    with _turns.setdefault(
        (os.getpid(), gpu), FileLock(path, mode=0o600)
    ) as turn:  # within it, taken again
        try:
            yield
        finally:
            if turn.lock_counter == 1:
                gc.collect()
                torch.cuda.empty_cache()


def _shared_gpu(device: torch.device) -> str | None:
    """Name the GPU that other workers may want; None in a main process or a joint training."""
    in_worker = multiprocessing.parent_process() is not None and n_processes() == 1
    return _physical_name(device.index or 0) if device.type == "cuda" and in_worker else None


def _physical_name(index: int) -> str:
    """Name the GPU behind an index, which each process may count in its own way."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[index] if index < len(visible) else str(index)


def loader_processes(number: int) -> dict[str, Any]:
    """Return the arguments of a DataLoader for so many processes.

    joblib's workers would start theirs in a way that torch can't use; those of other kinds
    may have no children, and read images themselves.
    """
    if number == 0 or multiprocessing.current_process().daemon:
        return {"num_workers": 0}
    method = multiprocessing.get_start_method()
    if method not in START_METHODS:
        method = next(m for m in multiprocessing.get_all_start_methods() if m in START_METHODS)
    return {"num_workers": number, "multiprocessing_context": method}
