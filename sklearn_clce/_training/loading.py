"""The batches that a net goes through."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from ..data import FeatureBatches, ImageBatches, LabelledFeatures

Batches = ImageBatches | FeatureBatches | DataLoader


def load(net: Any, dataset: Any, batches: Any, *, training: bool = False) -> Batches:
    """Load batches of indices: features from memory, images with a loader of the net's."""
    if isinstance(dataset, LabelledFeatures):
        return FeatureBatches(dataset.to(net.device), batches)
    loader = "iterator_train" if training else "iterator_valid"
    return getattr(net, loader)(dataset, batch_sampler=batches, **net.get_params_for(loader))


def in_order(net: Any, dataset: Any) -> list[list[int]]:
    """Cut a dataset into batches of nearly equal size that the memory of a step can hold."""
    size = min(net.batch_size, net.micro_batch_size or net.batch_size)
    indices = np.arange(len(dataset))
    return [part.tolist() for part in np.array_split(indices, math.ceil(len(indices) / size))]


class Views:
    """Batches whose samples come several times, to be augmented each time."""

    def __init__(self, batches: Any, n_views: int) -> None:
        self.batches = batches
        self.n_views = n_views

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(indices) * self.n_views for indices in self.batches)
