"""How much a sample is like those that the network was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .inference import infer
from .module import CLCEModule
from .net import CLCENet
from .parameters import CLCEParameters
from .samples import Samples

PER_DISTANCE = 0.25  # 1/8 and 1/2 are alike


def likeness_scores(parameters: CLCEParameters, net: CLCENet, samples: Samples) -> np.ndarray:
    """Return a score for each sample, of shape (n,): higher is more like the training samples."""
    if not (net.module_.class_counts > 0).any():
        raise ValueError(
            "score_samples needs the mean of each class, which a fit that was interrupted in its "
            "last pass does not hold: fit again, or partial_fit on some images of all classes"
        )

    def score(batch: Any) -> tuple[Tensor]:
        read, logits = net.read(batch)
        return (energy_less_distance(net.module_, read, logits),)

    (scores,) = infer(parameters, net, samples, score)
    return scores.numpy()


def energy_less_distance(module: CLCEModule, read: Tensor, logits: Tensor) -> Tensor:
    """Take from the energy of logits the squared distance to the nearest mean of a class.

    What is far from all classes may have large logits for that alone. The sum is the logarithm of a
    density where classes are clouds of one shape. Distances are those of features, because
    their scale is settled and an embedding may not have been trained.

    Shapes: read (n, n_read), logits (n, n_classes) -> (n,).
    """
    logits, read, means, counts = (
        part.detach().float().cpu().double()  # in float32 the sums would depend on the batch
        for part in (logits, read, module.class_means, module.class_counts)
    )
    n_features = len(module.standardize.mean)
    features, means = read[:, :n_features], means[counts > 0, :n_features]
    squares = features.square().sum(dim=1)[:, None] + means.square().sum(dim=1)
    distances = squares - 2 * features @ means.T  # (n, n_known)
    centred = logits - logits.mean(dim=1, keepdim=True)  # the same for all classes says nothing
    return centred.logsumexp(dim=1) - PER_DISTANCE * distances.amin(dim=1)
