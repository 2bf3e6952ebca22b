"""Labelled samples, and the batches that a network runs on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .._network import Network
from .._targets import Target
from ..backbones import BackboneConfig
from ..data import (
    Augmentation,
    FeatureBatches,
    ImageBatches,
    Images,
    LabelledFeatures,
    LabelledImages,
    MemoryBudget,
    PartOfImages,
    RandomCrops,
    Transform,
    evaluation_transform,
)

Samples = Tensor | Images  # features, or images
Augment = Callable[[Tensor], Tensor]  # a batch of images to an augmented one
Batches = ImageBatches | FeatureBatches | DataLoader


@dataclass(frozen=True)
class LabelledSamples:
    """Samples with their target, and their indices (n,) in the X that ``fit`` was given."""

    samples: Samples
    target: Target
    rows: np.ndarray
    given: Any

    def __len__(self) -> int:
        return len(self.target)

    def take(self, indices: np.ndarray) -> LabelledSamples:
        """Take some samples, each once, or all as they are."""
        if len(indices) == len(self):
            return self
        samples = part_of(self.samples, indices)
        return LabelledSamples(samples, self.target.take(indices), self.rows[indices], self.given)

    def with_samples(self, samples: Samples) -> LabelledSamples:
        """Return the same samples in another form, such as features."""
        return replace(self, samples=samples)


def part_of(samples: Samples, indices: np.ndarray) -> Samples:
    """Take some samples."""
    if isinstance(samples, Tensor):
        return samples[torch.from_numpy(indices)]
    return PartOfImages(samples, indices.tolist())


def make_dataset(
    network: Network,
    samples: Samples,
    target: Target | None = None,
    *,
    augment: Augment | None = None,
    budget: MemoryBudget | None = None,
) -> LabelledFeatures | LabelledImages:
    """Make the dataset of what a network takes.

    Photographs that will be augmented come as random crops.
    """
    labels, weights = (None, None) if target is None else (target.labels, target.weights)
    if isinstance(samples, Tensor):
        return LabelledFeatures(samples, labels, weights)
    assert network.config is not None  # images need a backbone
    is_cropped = isinstance(augment, Augmentation) and not augment.grey
    if is_cropped and isinstance(network.config, BackboneConfig):
        transform: Transform = RandomCrops(network.config)
    else:
        transform = evaluation_transform(network.config)
    return LabelledImages(samples, transform, labels, weights, budget)


def in_order(n: int, batch_size: int, micro_batch_size: int | None = None) -> list[list[int]]:
    """Cut n samples into batches of nearly equal size that the memory of a step can hold."""
    size = min(batch_size, micro_batch_size or batch_size)
    parts = np.array_split(np.arange(n), math.ceil(n / size))
    return [part.tolist() for part in parts]


class Views:
    """Batches whose samples come several times, to be augmented each time."""

    def __init__(self, batches: Any, n_views: int) -> None:
        self.batches = batches
        self.n_views = n_views

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(indices) * self.n_views for indices in self.batches)
