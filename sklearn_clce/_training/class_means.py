"""The mean of each class, as the classifier reads it: what is kept of the training samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .inference import infer_batches
from .module import CLCEModule
from .net import CLCENet
from .samples import Samples, make_dataset, part_of

MAX_PER_CLASS = 20  # images that the backbone runs on once more; more hardly move a mean


def keep_class_means(
    net: CLCENet, samples: Samples, labels: np.ndarray, weights: np.ndarray, *, goes_on: bool
) -> None:
    """Note the means of the classes of samples; ``goes_on``: beside those of earlier samples."""
    counts = net.module_.class_counts
    trained = torch.from_numpy(np.unique(labels)).to(counts.device)
    counts[trained] = torch.where(counts[trained] == 0, -1, counts[trained])  # whatever follows
    if not isinstance(samples, Tensor):
        few = spread_over_classes(labels)
        samples, labels, weights = part_of(samples, few), labels[few], weights[few]
    read, _ = infer_batches(net, make_dataset(net.module_, samples), net.read)
    note_class_means(
        net.module_, read, torch.from_numpy(labels), torch.from_numpy(weights), goes_on=goes_on
    )


def note_class_means(
    module: CLCEModule, read: Tensor, labels: Tensor, weights: Tensor, *, goes_on: bool = False
) -> None:
    """Take weighted means of what the classifier reads of samples.

    Shapes: read (n, n_read), labels (n,), weights (n,).
    """
    means, counts = (part.cpu().double() for part in (module.class_means, module.class_counts))
    of_class = one_hot(labels, len(means)) * weights[:, None].double()  # (n, n_classes)
    # of many calls the later ones count: the network has moved since the first
    before = counts.clamp(0, MAX_PER_CLASS) * goes_on
    seen = of_class.sum(dim=0)
    sums = before[:, None] * means + of_class.T @ read.double()
    means = torch.where(seen[:, None] > 0, sums / (before + seen)[:, None], means)
    module.class_counts.copy_(torch.where(seen > 0, before + seen, counts).float())
    module.class_means.copy_(means.float())


def spread_over_classes(labels: np.ndarray) -> np.ndarray:
    """Choose some samples of each class, evenly from the first to the last: -> indices, sorted."""
    chosen = []
    for label in np.unique(labels):
        indices = np.flatnonzero(labels == label)
        places = np.linspace(0, len(indices) - 1, min(len(indices), MAX_PER_CLASS))
        chosen.append(indices[places.astype(int)])
    return np.sort(np.concatenate(chosen))
