"""Batches of images or features, with their labels and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class LabelledImages(Dataset):
    """Batches of transformed images with their labels and weights.

    A batch is asked for by its rows at once (``__getitems__``) and comes collated.

    Parameters
    ----------
    images : sequence of Tensor
        Images of shape (C, H, W).
    transform : callable
        Maps an image to the tensor that a batch stacks.
    labels : ndarray of shape (n,), int64, default=None
        Class indices; None for prediction.
    weights : ndarray of shape (n,), float32, default=None
        Weight of each row.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        transform: Callable[[Tensor], Tensor],
        labels: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.transform = transform
        self.targets = _Targets(len(images), labels, weights)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch = [self.transform(self.images[row]) for row in rows]
        shapes = {tuple(image.shape) for image in batch}
        if len(shapes) > 1:
            raise ValueError(
                f"images of sizes {sorted(shapes)} can't share a batch: image_size=... is required "
                "for a backbone that has no input size of its own"
            )
        return torch.stack(batch), self.targets[rows]


class LabelledFeatures(Dataset):
    """Batches of features with their labels and weights, all on one device.

    Parameters
    ----------
    features : Tensor of shape (n, n_features), float32
        One row a sample.
    labels : ndarray of shape (n,), int64, default=None
        Class indices; None for prediction.
    weights : ndarray of shape (n,), float32, default=None
        Weight of each row.
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

    def __getitems__(self, rows: list[int] | Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.features[rows], self.targets[rows]

    def to(self, device: torch.device) -> LabelledFeatures:
        """Move everything to a device.

        Parameters
        ----------
        device : torch.device
            The device.

        Returns
        -------
        LabelledFeatures
            Itself.
        """
        self.features = self.features.to(device)
        self.targets.labels = self.targets.labels.to(device)
        self.targets.weights = self.targets.weights.to(device)
        return self


class FeatureBatches:
    """Batches of features for an epoch: rows of tensors, no worker, no row in Python.

    Parameters
    ----------
    dataset : LabelledFeatures
        On the device where the batches are wanted.
    batch_sampler : Sampler or list of list of int
        Rows of the batches.
    """

    def __init__(self, dataset: LabelledFeatures, batch_sampler: Any) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor]]]:
        batches = list(self.batch_sampler)
        # in one transfer for the epoch: each makes the host wait
        order = torch.as_tensor(list(chain(*batches)), dtype=torch.int64)
        order = order.to(self.dataset.features.device)
        for rows in order.split([len(batch) for batch in batches]):
            yield self.dataset.__getitems__(rows)


class _Targets:
    """Labels and weights by row; zeros and ones where there are none."""

    def __init__(self, n: int, labels: np.ndarray | None, weights: np.ndarray | None) -> None:
        self.labels = torch.zeros(n, dtype=torch.int64) if labels is None else _tensor(labels)
        self.weights = torch.ones(n) if weights is None else _tensor(weights)

    def __getitem__(self, rows: list[int] | Tensor) -> tuple[Tensor, Tensor]:
        return self.labels[rows], self.weights[rows]


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
