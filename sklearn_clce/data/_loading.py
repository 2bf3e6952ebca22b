"""Batches of images for an epoch, read ahead while the network runs, in memory used again."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from .._system import loader_processes
from ._batches import LabelledImages, Targets
from ._pixels import as_float
from ._processes import read_in_processes

# Batches that are read before they are asked for, by the type of the device: one of floats takes
# the memory of four of bytes, which other devices get.
AHEAD, MOST_AHEAD = {"cpu": 1}, 2
MOST_WORKERS = 16  # without a number
N_KEPT = 3  # the batch that is being used, and two that are being read

# Made here, once: looking for libraries in one thread while another imports an extension
# is a deadlock, of the loader's lock with Python's.
_thread_pools = ThreadpoolController()

Batch = tuple[Tensor, Targets]


class ImageBatches:
    """Batches of images on a device, float32 in 0..1, with labels and weights.

    Threads read, decode, resize and crop, which releases Python's lock. A Dataset of the
    user's own may not be thread-safe: it is read in this thread, or in processes if
    workers are asked for. Neither the number of workers nor what is kept changes a
    batch. On the CPU each image becomes floats where it is cropped, while it is in the
    processor's cache; other devices get bytes and make them floats.
    """

    def __init__(
        self,
        dataset: LabelledImages,
        batch_sampler: Any,
        *,
        num_workers: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        is_thread_safe = dataset.images.is_thread_safe
        if num_workers is None:
            num_workers = min(joblib.cpu_count(), MOST_WORKERS) if is_thread_safe else 0
        self.num_workers = int(num_workers)
        self.start_method = ""
        if not is_thread_safe:
            options = loader_processes(self.num_workers)
            self.num_workers = options["num_workers"]
            self.start_method = options.get("multiprocessing_context", "")
        self.device = torch.device(device)
        self._memory = BatchMemory()

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        draw = self.dataset.numbers()
        if self.num_workers == 0:
            for indices in self.batch_sampler:
                yield self._batch(indices, draw(len(indices)))
        elif self.start_method:
            yield from self._from_processes(draw)
        else:
            yield from self._from_threads(draw)

    def _from_threads(self, draw: Any) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(self.num_workers, initializer=_compute_alone)
        ahead: deque[Callable[[], Batch]] = deque()
        try:
            for indices in self.batch_sampler:
                ahead.append(self._submit(pool, self._begin(indices, draw(len(indices)))))
                if len(ahead) > AHEAD.get(self.device.type, MOST_AHEAD):
                    yield ahead.popleft()()
            while ahead:
                yield ahead.popleft()()
        finally:
            pool.shutdown(cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, batch: _BatchInWork) -> Callable[[], Batch]:
        """Let threads read a batch; return a function that waits for it."""
        # equal and neighbouring images go to one thread, which reads them together
        order = np.argsort(batch.indices, kind="stable")
        parts = [part.tolist() for part in np.array_split(order, self.num_workers) if len(part)]
        futures = [pool.submit(batch.read, part) for part in parts]

        def wait() -> Batch:
            for future in futures:
                future.result()
            return batch.collated(self.device)

        return wait

    def _from_processes(self, draw: Any) -> Iterator[Batch]:
        batches = list(self.batch_sampler)
        missing = [self.dataset.not_kept(indices) for indices in batches]
        # the epoch's own, for what a Dataset draws; the global one stays as it is
        generator = torch.Generator().manual_seed(torch.initial_seed())
        found = read_in_processes(
            self.dataset.images,
            self.dataset.transform,
            missing,
            num_workers=self.num_workers,
            start_method=self.start_method,
            seed=int(torch.empty((), dtype=torch.int64).random_(generator=generator)),
        )
        with closing(found):
            for indices, read, images in zip(batches, missing, found, strict=True):
                yield self._batch(indices, draw(len(indices)), dict(zip(read, images, strict=True)))

    def _batch(
        self, indices: list[int], numbers: Tensor | None, found: dict[int, Tensor] | None = None
    ) -> Batch:
        batch = self._begin(indices, numbers)
        batch.read(list(range(len(indices))), found)
        return batch.collated(self.device)

    def _begin(self, indices: list[int], numbers: Tensor | None) -> _BatchInWork:
        """Prepare a batch, in memory for its floats where its shape is known."""
        shape, rows = self.dataset.transform.shape, None
        if shape is not None and self.device.type == "cpu":
            rows = self._memory.floats((len(indices), *shape))
        return _BatchInWork(self.dataset, indices, numbers, rows)


@dataclass
class _BatchInWork:
    """A batch whose images are read in parts."""

    dataset: LabelledImages
    indices: list[int]
    numbers: Tensor | None  # random ones, for the crops
    rows: Tensor | None  # where the crops are put (n, C, H, W); None: in crops
    crops: dict[int, Tensor] = field(default_factory=dict)  # by their places

    def read(self, places: list[int], found: dict[int, Tensor] | None = None) -> None:
        """Read the crops of some places, or take those that are found."""
        indices = [self.indices[place] for place in places]
        numbers = None if self.numbers is None else self.numbers[places]
        for place, crop in zip(places, self.dataset.crops(indices, numbers, found), strict=True):
            if self.rows is None:
                self.crops[place] = crop
            else:
                as_float(crop, self.rows[place])

    def collated(self, device: torch.device) -> Batch:
        """Return the batch, all of whose images have been read."""
        if self.rows is not None:
            return self.rows, self.dataset.targets[self.indices]
        crops = [self.crops[place] for place in range(len(self.indices))]
        images, targets = self.dataset.collated(self.indices, crops)
        return as_float(images.to(device, non_blocking=True)), targets


class BatchMemory:
    """Memory for one float32 batch after another, used again once no tensor lies in it.

    The first use of memory that is new to a process takes about as long as cropping images
    for it: without this class an epoch of kept images takes 18 to 40 % longer.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []

    def floats(self, shape: Sequence[int]) -> Tensor:
        """Return a tensor of any content."""
        n = math.prod(shape)
        free = [memory for memory, user in self._kept if user() is None and len(memory) >= n]
        memory = free[0] if free else torch.empty(n).numpy()
        part = memory[:n].reshape(shape)  # which whatever shares the tensor's memory keeps alive
        others = [kept for kept in self._kept if kept[0] is not memory]
        self._kept = [*others, (memory, weakref.ref(part))][-N_KEPT:]
        return torch.from_numpy(part)


def _compute_alone() -> None:
    """Let a thread that reads compute on one core: there are as many threads as cores."""
    torch.get_num_threads()  # or torch would set its number later
    _thread_pools.limit(limits=1, user_api="openmp")
