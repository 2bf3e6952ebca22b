"""Batches of images for an epoch, read ahead while the network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .._system import loader_processes
from ._batches import LabelledImages, Targets
from ._memory import BatchMemory
from ._pixels import as_float

# Batches that are read before they are asked for, by the type of the device: one of floats takes
# the memory of four of bytes, which other devices get.
AHEAD, MOST_AHEAD = {"cpu": 1}, 2
MOST_WORKERS = 16  # of "auto"

# Looked for here, once: to look for libraries in one thread while another imports an extension
# is a deadlock, of the loader's lock with Python's.
_thread_pools = ThreadpoolController()

Batch = tuple[Tensor, Targets]


class ImageBatches:
    """Batches of images on a device, float32 in 0..1, with labels and weights.

    Threads read, decode, resize and crop, which lets go of Python's lock. A Dataset of
    the user's own may not bear threads: it is read in this thread, or in processes if
    workers are asked for. Neither the number of workers nor what is kept changes a
    batch. On the CPU each picture becomes floats where it is cropped, while it is in the
    processor's cache; another device gets bytes and makes them floats.
    """

    def __init__(
        self,
        dataset: LabelledImages,
        batch_sampler: Any,
        *,
        num_workers: int | str = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        is_thread_safe = dataset.images.is_thread_safe
        if num_workers == "auto":
            num_workers = min(joblib.cpu_count(), MOST_WORKERS) if is_thread_safe else 0
        self.num_workers = int(num_workers)
        self.in_processes = self.num_workers > 0 and not is_thread_safe
        self.device = torch.device(device)
        self._memory = BatchMemory()

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        draw = self.dataset.numbers()
        if self.num_workers == 0:
            for indices in self.batch_sampler:
                yield self._whole(indices, draw(len(indices)))
        elif self.in_processes:
            yield from self._from_processes(draw)
        else:
            yield from self._from_threads(draw)

    def _from_threads(self, draw: Any) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(self.num_workers, initializer=_compute_alone)
        ahead: deque[tuple[list[int], Tensor | None, list[np.ndarray], list[Future]]] = deque()
        try:
            for indices in self.batch_sampler:
                numbers = draw(len(indices))
                # equal and neighbouring images go to one thread, which reads them together
                parts = np.array_split(np.argsort(indices, kind="stable"), self.num_workers)
                parts = [part for part in parts if len(part)]
                rows = self._rows(len(indices))
                ahead.append(
                    (
                        indices,
                        rows,
                        parts,
                        [
                            pool.submit(
                                self._read,
                                [indices[place] for place in part],
                                None if numbers is None else numbers[torch.from_numpy(part)],
                                rows,
                                part.tolist(),
                            )
                            for part in parts
                        ],
                    )
                )
                if len(ahead) > AHEAD.get(self.device.type, MOST_AHEAD):
                    yield self._gathered(*ahead.popleft())
            while ahead:
                yield self._gathered(*ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _gathered(
        self,
        indices: list[int],
        rows: Tensor | None,
        parts: list[np.ndarray],
        futures: list[Future],
    ) -> Batch:
        crops: list[Any] = [None] * len(indices)
        for part, future in zip(parts, futures, strict=True):
            for place, crop in zip(part, future.result(), strict=True):
                crops[place] = crop
        return self._batch(indices, rows, crops)

    def _from_processes(self, draw: Any) -> Iterator[Batch]:
        batches = list(self.batch_sampler)
        missing = [self.dataset.not_kept(indices) for indices in batches]
        loader = DataLoader(
            _Pictures(self.dataset),
            batch_sampler=missing,
            **loader_processes(self.num_workers),
            collate_fn=_as_it_is,
            # which is the epoch's, for what a Dataset draws; the global one stays as it is
            generator=torch.Generator().manual_seed(torch.initial_seed()),
        )
        for indices, read, pictures in zip(batches, missing, loader, strict=True):
            found = dict(zip(read, pictures, strict=True))
            yield self._whole(indices, draw(len(indices)), found)

    def _whole(
        self, indices: list[int], numbers: Tensor | None, found: dict[int, Tensor] | None = None
    ) -> Batch:
        rows = self._rows(len(indices))
        crops = self._read(indices, numbers, rows, list(range(len(indices))), found)
        return self._batch(indices, rows, crops)

    def _rows(self, n: int) -> Tensor | None:
        """Return memory for a batch (n, C, H, W) of floats, where its shape is known."""
        shape = self.dataset.transform.shape
        if shape is None or self.device.type != "cpu":
            return None
        return self._memory.floats((n, *shape))

    def _read(
        self,
        indices: list[int],
        numbers: Tensor | None,
        rows: Tensor | None,
        places: list[int],
        found: dict[int, Tensor] | None = None,
    ) -> list[Tensor]:
        """Read crops, into their places in a batch where it has rows."""
        crops = self.dataset.crops(indices, numbers, found)
        if rows is None:
            return crops
        return [as_float(crop, rows[place]) for crop, place in zip(crops, places, strict=True)]

    def _batch(self, indices: list[int], rows: Tensor | None, crops: list[Tensor]) -> Batch:
        if rows is not None:
            return rows, self.dataset.targets[indices]
        images, targets = self.dataset.collated(indices, crops)
        return as_float(images.to(self.device, non_blocking=True)), targets


class _Pictures(Dataset):
    """Prepared pictures, for a process that reads."""

    def __init__(self, images: LabelledImages) -> None:
        self.images = images

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        return self.images.prepare(indices)


def _as_it_is(pictures: list[Tensor]) -> list[Tensor]:
    return pictures


def _compute_alone() -> None:
    """Let a thread that reads compute on one core: there are as many threads as cores."""
    torch.get_num_threads()  # or torch would set its number later
    _thread_pools.limit(limits=1, user_api="openmp")
