"""Samples as a net takes them: features, or batches of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._system import resolve_precision
from ..backbones import FrozenBackbone
from ..data import (
    Augmentation,
    EvaluationTransform,
    Images,
    LabelledFeatures,
    LabelledImages,
    MemoryBudget,
    PartOfImages,
    RandomCrops,
)
from ..features import FeatureStore, features_of, open_store
from .module import CLCEModule
from .net import CLCENet
from .parameters import CLCEParameters
from .run import Augment

Samples = Tensor | Images  # features, or images


def kept_features(
    parameters: CLCEParameters,
    images: Images,
    backbone: FrozenBackbone,
    device: Any,
    verbose: int | bool,
) -> Tensor:
    """Run a frozen backbone, or take what is kept of it: features (n, n_features) on the CPU."""
    return _features(parameters, images, backbone, device, open_store(parameters.memory), verbose)


def tuned_features(parameters: CLCEParameters, net: CLCENet, images: Images) -> Tensor:
    """Run the backbone as it is after training: features (n, n_features) on the CPU."""
    return _features(parameters, images, _as_frozen(net.module_), net.device)


def _features(
    parameters: CLCEParameters,
    images: Images,
    backbone: FrozenBackbone,
    device: Any,
    store: FeatureStore | None = None,
    verbose: int | bool = 0,
) -> Tensor:
    device = torch.device(device)
    return features_of(
        images,
        backbone,
        store=store,
        batch_size=parameters.batch_size,
        device=device,
        precision=resolve_precision(parameters.precision, device),
        num_workers=parameters.num_workers,
        verbose=verbose,
    )


def _as_frozen(module: CLCEModule) -> FrozenBackbone:
    assert module.backbone is not None
    assert module.config is not None
    return FrozenBackbone(module.backbone.eval(), module.config)


def features_for(
    parameters: CLCEParameters, net: CLCENet, samples: Samples, verbose: int | bool = 0
) -> Tensor | None:
    """Return features of samples, if nothing of the net's backbone trains."""
    if isinstance(samples, Tensor) or not net.module_.frozen:
        return samples if isinstance(samples, Tensor) else None
    return kept_features(parameters, samples, _as_frozen(net.module_), net.device, verbose)


def make_dataset(
    module: CLCEModule,
    samples: Samples,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    *,
    augment: Augment | None = None,
    room: MemoryBudget | None = None,
) -> LabelledFeatures | LabelledImages:
    """Make batches of what a module takes; labels and weights are of shape (n,).

    Photographs that will be augmented come as random crops.
    """
    if isinstance(samples, Tensor):
        return LabelledFeatures(samples, labels, weights)
    assert module.config is not None  # images need a backbone
    is_cropped = isinstance(augment, Augmentation) and not augment.grey
    transform = (RandomCrops if is_cropped else EvaluationTransform)(module.config)
    return LabelledImages(samples, transform, labels, weights, room)


def part_of(samples: Samples, indices: np.ndarray) -> Samples:
    """Take some samples."""
    if isinstance(samples, Tensor):
        return samples[torch.from_numpy(indices)]
    return PartOfImages(samples, indices.tolist())


def make_augmentation(
    parameters: CLCEParameters, module: CLCEModule, samples: Samples
) -> Augment | None:
    """Choose what happens to batches of training images."""
    augment = parameters.augment
    if augment == "auto":
        augment = None
        if not module.frozen and not isinstance(samples, Tensor):
            augment = Augmentation(grey=samples.is_grey)
    if augment is not None and isinstance(samples, Tensor):
        raise ValueError("augment: X holds features; only images can be augmented")
    if augment is None and parameters.n_views > 1:
        raise ValueError(
            f"n_views={parameters.n_views!r}: without augmentation the views of an image are the "
            "same; augment must be a callable, or 'auto' with a backbone that trains"
        )
    return augment
