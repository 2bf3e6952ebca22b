"""Batches of images or features, with their labels and weights, and how many images are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ._pixels import as_float
from ._sequences import Images
from ._transforms import Transform

FREE_SHARE = 0.25  # of the machine's memory, that "auto" leaves free
STEP = 32 * 2**20  # bytes between two looks at the machine
CGROUP = Path("/sys/fs/cgroup")

Targets = tuple[Tensor, Tensor]  # labels and weights


class MemoryBudget:
    """Memory for decoded images; of no size, until a share of the machine's is left."""

    def __init__(self, size: int | None = None) -> None:
        self.automatic = size is None
        self.left = size or 0
        self.full = False
        self._lock = threading.Lock()

    def reserve(self, n_bytes: int) -> bool:
        """Reserve memory, if there is enough; once there is not, never again."""
        with self._lock:
            wants_more = n_bytes > self.left and self.automatic and not self.full
            if wants_more and all(free - STEP > FREE_SHARE * total for free, total in _memory()):
                self.left = max(STEP, n_bytes)
            self.full = self.full or n_bytes > self.left
            if not self.full:
                self.left -= n_bytes
            return not self.full


def _memory() -> Iterator[tuple[int, int]]:
    """Yield free and total bytes, of the machine and of the container, which psutil doesn't see."""
    import psutil

    machine = psutil.virtual_memory()
    yield machine.available, machine.total
    try:
        total = int((CGROUP / "memory.max").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        used = int((CGROUP / "memory.current").read_text()) - int(stat["inactive_file"])
        yield total - used, total
    except (OSError, KeyError, ValueError):  # no container, or one without a limit
        pass


class LabelledImages(Dataset):
    """Batches of transformed images with their labels and weights.

    Transformed images are kept within the budget, unless the next reading may give another
    image; a random crop is cut again each time.

    Shapes: labels (n,), weights (n,).
    """

    def __init__(
        self,
        images: Images,
        transform: Transform,
        labels: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        self.images = images
        self.transform = transform
        self.targets = _Targets(len(images), labels, weights)
        self.budget = budget
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Targets]:
        images, targets = self.collated(indices, self.crops(indices, self.numbers()(len(indices))))
        return as_float(images), targets

    def numbers(self) -> Callable[[int], Tensor | None]:
        """Return a function that draws random numbers for n crops, all from one seed."""
        if not self.transform.n_numbers:
            return lambda n: None
        seed = int(torch.empty((), dtype=torch.int64).random_())
        generator = torch.Generator().manual_seed(seed)
        return lambda n: torch.rand(n, self.transform.n_numbers, generator=generator)

    def not_kept(self, indices: list[int]) -> list[int]:
        """Return those of the images that must be read, each once."""
        return [index for index in dict.fromkeys(indices) if index not in self._kept]

    def crops(
        self, indices: list[int], numbers: Tensor | None, read: dict[int, Tensor] | None = None
    ) -> list[Tensor]:
        """Return what a batch stacks, of images that are kept, have been or must be read."""
        if read is None:
            missing = self.not_kept(indices)
            found = prepare(self.images, self.transform, missing)
            read = dict(zip(missing, found, strict=True))
        self._keep(read)
        images = [read[index] if index in read else self._kept[index] for index in indices]
        rows: Any = [None] * len(indices) if numbers is None else numbers
        return list(map(self.transform.finish, images, rows))

    def collated(self, indices: list[int], crops: list[Tensor]) -> tuple[Tensor, Targets]:
        """Stack images to (n, C, H, W), uint8 or float32, with labels and weights."""
        shapes = {tuple(crop.shape) for crop in crops}
        if len(shapes) > 1:
            raise ValueError(
                f"images of sizes {sorted(shapes)} can't share a batch: image_size=... is required "
                "for a backbone that has no input size of its own"
            )
        if len({crop.dtype for crop in crops}) > 1:
            crops = list(map(as_float, crops))
        return _stack(crops), self.targets[indices]

    def _keep(self, read: dict[int, Tensor]) -> None:
        if self.images.is_stochastic:
            return
        for index, image in read.items():
            in_memory = tuple(image.shape[1:]) == self.images.size
            if in_memory or self.budget is None or not self.budget.reserve(image.nbytes):
                return
            self._kept[index] = image


def prepare(images: Images, transform: Transform, indices: list[int]) -> list[Tensor]:
    """Read images and transform them."""
    return [_dense(transform(image)) for image in images.decode_many(indices, transform.at_least)]


def _dense(image: Tensor) -> Tensor:
    """Return an image (C, H, W) that is not a part of a larger one, its colours side by side."""
    if image.is_contiguous():
        return image
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _stack(images: list[Tensor]) -> Tensor:
    """Stack images (C, H, W) to (n, C, H, W), in the order in memory that the first has."""
    if images[0].is_contiguous():
        return torch.stack(images)
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


class LabelledFeatures(Dataset):
    """Batches of features with their labels and weights, all on one device.

    Shapes: features (n, n_features), labels (n,), weights (n,).
    """

    def __init__(
        self,
        features: Tensor,
        labels: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.features = features
        self.targets = _Targets(len(features), labels, weights)

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, indices: list[int] | Tensor) -> tuple[Tensor, Targets]:
        return self.features[indices], self.targets[indices]

    def to(self, device: torch.device) -> LabelledFeatures:
        """Move everything to a device."""
        self.features = self.features.to(device)
        self.targets.labels = self.targets.labels.to(device)
        self.targets.weights = self.targets.weights.to(device)
        return self


class FeatureBatches:
    """Batches of features for an epoch: rows of tensors, no worker, no row in Python."""

    def __init__(self, dataset: LabelledFeatures, batch_sampler: Any) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Targets]]:
        batches = list(self.batch_sampler)
        # in one transfer for the epoch: each makes the host wait
        order = torch.as_tensor(list(chain(*batches)), dtype=torch.int64)
        order = order.to(self.dataset.features.device)
        for rows in order.split([len(batch) for batch in batches]):
            yield self.dataset.__getitems__(rows)


class _Targets:
    """Labels and weights of samples; zeros and ones where there are none."""

    def __init__(self, n: int, labels: np.ndarray | None, weights: np.ndarray | None) -> None:
        self.labels = torch.zeros(n, dtype=torch.int64) if labels is None else _tensor(labels)
        self.weights = torch.ones(n) if weights is None else _tensor(weights)

    def __getitem__(self, indices: list[int] | Tensor) -> Targets:
        return self.labels[indices], self.weights[indices]


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
