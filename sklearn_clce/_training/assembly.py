"""An estimator's parameters become criterion, network, net, datasets and augmentation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from skorch.history import History
from torch import Tensor, nn

from .._parameters import CLCEParameters
from .._validation import resolve_device, resolve_precision
from ..backbones import (
    BackboneConfig,
    FrozenBackbone,
    count_features,
    frozen_backbone,
    load_backbone,
)
from ..data import Augmentation, EvaluationTransform, LabelledFeatures, LabelledImages, is_grey
from ..features import features_of, open_store
from ..losses import CLCELoss
from .module import CLCEModule
from .net import CLCENet, already_a_batch
from .optim import freeze
from .run import Augment
from .skorch_params import check_skorch_params

FROZEN_PROJECTION_DIM = 128
LOOKED_AT = 8  # images that tell whether all are grey

Samples = Tensor | Sequence[Tensor]  # features, or images


def make_module(
    parameters: CLCEParameters, samples: Samples, n_classes: int, device: torch.device
) -> tuple[CLCEModule, Tensor | None]:
    """Build the network on the CPU, and return the samples' features if its backbone is frozen."""
    backbone: nn.Module | None = None
    config: BackboneConfig | None = None
    features: Tensor | None = None
    if isinstance(samples, Tensor):
        features, n_features = samples, samples.shape[1]
    elif parameters.trainable == "head":
        shared = frozen_backbone(
            parameters.backbone, pretrained=parameters.pretrained, image_size=parameters.image_size
        )
        features = kept_features(parameters, samples, shared, device)
        backbone, config = copy.deepcopy(shared.module), shared.config
        n_features = features.shape[1]
    else:
        backbone, config = load_backbone(
            parameters.backbone, pretrained=parameters.pretrained, image_size=parameters.image_size
        )
        freeze(backbone, parameters.trainable)
        if parameters.memory is not None:
            warnings.warn(
                f"memory={parameters.memory!r}: nothing is kept, because the backbone trains "
                f"(trainable={parameters.trainable!r}); features are kept with trainable='head'",
                UserWarning,
                stacklevel=2,
            )
        if parameters.gradient_checkpointing:
            checkpoint_gradients(backbone)
        n_features = count_features(backbone, EvaluationTransform(config)(samples[0]))
    projection_dim = parameters.projection_dim
    if projection_dim == "auto":
        projection_dim = None if features is None else FROZEN_PROJECTION_DIM
    module = CLCEModule(
        backbone,
        config,
        n_features=n_features,
        n_classes=n_classes,
        projection_dim=projection_dim,
    )
    if parameters.compile:
        module.compile()
    return module, features


def kept_features(
    parameters: CLCEParameters, images: Sequence[Tensor], backbone: FrozenBackbone, device: Any
) -> Tensor:
    """Run a frozen backbone, or take what is kept of it: features (n, n_features) on the CPU."""
    device = torch.device(device)
    return features_of(
        images,
        backbone,
        store=open_store(parameters.memory),
        batch_size=parameters.batch_size,
        device=device,
        precision=resolve_precision(parameters.precision, device),
    )


def features_for(parameters: CLCEParameters, net: CLCENet, samples: Samples) -> Tensor | None:
    """Return features of samples, if nothing of the net's backbone trains."""
    if isinstance(samples, Tensor) or not net.module_.frozen:
        return samples if isinstance(samples, Tensor) else None
    backbone = FrozenBackbone(net.module_.eval().backbone, net.module_.config)
    return kept_features(parameters, samples, backbone, net.device)


def checkpoint_gradients(backbone: Any) -> None:
    """Save memory at the price of time, or raise a ValueError."""
    try:
        backbone.set_grad_checkpointing(True)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"gradient_checkpointing=True: {type(backbone).__name__} does not support it"
        ) from error


def make_net(parameters: CLCEParameters, module: CLCEModule, device: torch.device) -> CLCENet:
    """Put a module into an initialised net with the estimator's parameters."""
    extra = parameters.skorch_params or {}
    check_skorch_params(extra, parameters.get_params(deep=False))
    options: dict[str, Any] = {
        "module": module,
        "criterion": CLCELoss(
            weight=parameters.weight,
            temperature=parameters.temperature,
            hardness=parameters.hardness,
            label_smoothing=parameters.label_smoothing,
            gather=True,
        ),
        "optimizer": torch.optim.AdamW,
        **({} if "optimizer" in extra else {"optimizer__fused": True}),
        "lr": parameters.learning_rate,
        "layer_decay": parameters.layer_decay,
        "weight_decay": parameters.weight_decay,
        "warmup": parameters.warmup,
        "clip_grad": parameters.clip_grad,
        "micro_batch_size": parameters.micro_batch_size,
        "n_views": parameters.n_views,
        "precision": parameters.precision,
        "patience": parameters.n_iter_no_change if parameters.early_stopping else None,
        "tol": parameters.tol,
        "keep_optimizer": parameters.warm_start,
        "max_epochs": parameters.max_epochs,
        "batch_size": parameters.batch_size,
        "train_split": None,
        "callbacks": parameters.callbacks,
        "callbacks__print_log": None,
        "device": device,
        "verbose": parameters.verbose,
    }
    for loader in ("iterator_train", "iterator_valid"):
        options |= {
            f"{loader}__collate_fn": already_a_batch,
            f"{loader}__generator": torch.Generator(),  # or it would draw from the global one
            f"{loader}__num_workers": parameters.num_workers,
        }
    return CLCENet(**options | extra).initialize()


def continued_net(parameters: CLCEParameters, net: CLCENet, device: torch.device) -> CLCENet:
    """Copy weights, history and optimizer state into a net with parameters as they are now."""
    continued = make_net(parameters, copy.deepcopy(net.module_), device)
    continued.history_ = copy.deepcopy(net.history_)
    if isinstance(getattr(net, "optimizer_", None), type(continued.optimizer_)):
        pairs = zip(net.module_.parameters(), continued.module_.parameters(), strict=True)
        for before, now in pairs:
            if before in net.optimizer_.state:
                state = copy.deepcopy(net.optimizer_.state[before])
                continued.optimizer_.state[now] = state
    return continued


def restored_net(
    parameters: CLCEParameters, module: CLCEModule, history: list[dict[str, Any]]
) -> CLCENet:
    """Make the net of a fit that was saved."""
    if parameters.gradient_checkpointing and module.backbone is not None and not module.frozen:
        checkpoint_gradients(module.backbone)
    net = make_net(parameters, module, resolve_device(parameters.device))
    net.history_ = History(history)
    return net


def make_dataset(
    module: CLCEModule,
    samples: Samples,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> LabelledFeatures | LabelledImages:
    """Make batches of what a module takes; labels and weights are of shape (n,)."""
    if isinstance(samples, Tensor):
        return LabelledFeatures(samples, labels, weights)
    assert module.config is not None  # images need a backbone
    return LabelledImages(samples, EvaluationTransform(module.config), labels, weights)


def make_augmentation(
    parameters: CLCEParameters, module: CLCEModule, samples: Samples
) -> Augment | None:
    """Choose what happens to batches of training images."""
    augment = parameters.augment
    if augment == "auto":
        augment = None
        if not module.frozen:
            looked_at = [samples[index] for index in range(min(LOOKED_AT, len(samples)))]
            augment = Augmentation(grey=all(map(is_grey, looked_at)))
    if augment is not None and isinstance(samples, Tensor):
        raise ValueError("augment: X holds features; only images can be augmented")
    if augment is None and parameters.n_views > 1:
        raise ValueError(
            f"n_views={parameters.n_views!r}: without augmentation the views of an image are the "
            "same; augment must be a callable, or 'auto' with a backbone that trains"
        )
    return augment
