"""An estimator's parameters become criterion, network, net, datasets and augmentation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .._validation import resolve_precision
from ..backbones import FrozenBackbone, count_features, frozen_backbone, load_backbone
from ..data import Augmentation, EvaluationTransform, LabelledFeatures, LabelledImages, is_grey
from ..features import features_of, open_store
from ..losses import CLCELoss
from .module import CLCEModule
from .net import CLCENet, already_a_batch
from .optim import freeze

FROZEN_PROJECTION_DIM = 128
LOOKED_AT = 8  # images that tell whether all are grey

Rows = Tensor | Sequence[Tensor]  # features, or images


def make_criterion(params: Any) -> CLCELoss:
    """Make the criterion of an estimator.

    Parameters
    ----------
    params : CLCEClassifier
        Where the parameters are read.

    Returns
    -------
    CLCELoss
        The criterion.
    """
    return CLCELoss(
        weight=params.weight,
        temperature=params.temperature,
        hardness=params.hardness,
        label_smoothing=params.label_smoothing,
    )


def make_module(
    params: Any, rows: Rows, n_classes: int, device: torch.device
) -> tuple[CLCEModule, Tensor | None]:
    """Build the network: backbone, projection head and classifier.

    Parameters
    ----------
    params : CLCEClassifier
        Where the parameters are read.
    rows : Tensor or sequence of Tensor
        Features, or images.
    n_classes : int
        Number of logits.
    device : torch.device
        Where features are computed, if the backbone does not train.

    Returns
    -------
    module : CLCEModule
        On the CPU; new weights come from torch's global generator.
    features : Tensor of shape (n, n_features) or None
        Features of the rows, if nothing of the backbone will train.
    """
    backbone, config, features = None, None, None
    if isinstance(rows, Tensor):
        features = rows
    elif params.trainable == "head":
        shared = frozen_backbone(
            params.backbone, pretrained=params.pretrained, image_size=params.image_size
        )
        features = kept_features(params, rows, shared, device)
        backbone, config = copy.deepcopy(shared.module), shared.config
    else:
        backbone, config = load_backbone(
            params.backbone, pretrained=params.pretrained, image_size=params.image_size
        )
        freeze(backbone, params.trainable)
        if params.gradient_checkpointing:
            checkpoint_gradients(backbone)
    if features is None:
        n_features = count_features(backbone, EvaluationTransform(config)(rows[0]))
    else:
        n_features = features.shape[1]
    projection_dim = params.projection_dim
    if projection_dim == "auto":
        projection_dim = None if features is None else FROZEN_PROJECTION_DIM
    module = CLCEModule(
        backbone,
        config,
        n_features=n_features,
        n_classes=n_classes,
        projection_dim=projection_dim,
    )
    if params.compile:
        module.compile()
    return module, features


def kept_features(
    params: Any, images: Sequence[Tensor], backbone: FrozenBackbone, device: torch.device
) -> Tensor:
    """Run a frozen backbone over images, or take the features that are kept of them.

    Parameters
    ----------
    params : CLCEClassifier
        Where the parameters are read.
    images : sequence of Tensor
        Images.
    backbone : FrozenBackbone
        The backbone.
    device : torch.device
        Where to compute.

    Returns
    -------
    Tensor of shape (n, n_features), float32
        Features, on the CPU.
    """
    return features_of(
        images,
        backbone,
        store=open_store(params.memory),
        batch_size=params.batch_size,
        device=device,
        precision=resolve_precision(params.precision, device),
    )


def checkpoint_gradients(backbone: nn.Module) -> None:
    """Save memory at the price of time.

    Parameters
    ----------
    backbone : nn.Module
        It is changed.

    Raises
    ------
    ValueError
        If it does not support that.
    """
    try:
        backbone.set_grad_checkpointing(True)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"gradient_checkpointing=True: {type(backbone).__name__} does not support it"
        ) from error


def make_net(params: Any, module: CLCEModule, device: torch.device) -> CLCENet:
    """Put a module into a net with the estimator's parameters.

    Parameters
    ----------
    params : CLCEClassifier
        Where the parameters are read.
    module : CLCEModule
        What trains.
    device : torch.device
        Where to compute.

    Returns
    -------
    CLCENet
        Initialised.

    Raises
    ------
    ValueError
        If ``skorch_params`` sets what the estimator sets itself.
    """
    extra = params.skorch_params or {}
    taken = [name for name in extra if name.split("__")[0] in ("module", "criterion")]
    if taken:
        raise ValueError(
            f"skorch_params sets {', '.join(taken)}: module and criterion are made from the "
            "estimator's own parameters, such as backbone and weight"
        )
    options: dict[str, Any] = {
        "module": module,
        "criterion": make_criterion(params),
        "optimizer": torch.optim.AdamW,
        **({} if "optimizer" in extra else {"optimizer__fused": True}),
        "lr": params.learning_rate,
        "layer_decay": params.layer_decay,
        "weight_decay": params.weight_decay,
        "warmup": params.warmup,
        "clip_grad": params.clip_grad,
        "micro_batch_size": params.micro_batch_size,
        "n_views": params.n_views,
        "autocast": resolve_precision(params.precision, device) == "bfloat16",
        "patience": params.n_iter_no_change if params.early_stopping else None,
        "tol": params.tol,
        "keep_optimizer": params.warm_start,
        "max_epochs": params.max_epochs,
        "batch_size": params.batch_size,
        "train_split": None,
        "callbacks": params.callbacks,
        "callbacks__print_log": None,
        "device": device,
        "verbose": params.verbose,
    }
    for loader in ("iterator_train", "iterator_valid"):
        options |= {
            f"{loader}__collate_fn": already_a_batch,
            f"{loader}__generator": torch.Generator(),  # or it would draw from the global one
            f"{loader}__num_workers": params.num_workers,
        }
    return CLCENet(**options | extra).initialize()


def continued_net(params: Any, net: CLCENet, device: torch.device) -> CLCENet:
    """Make a net that goes on where another stopped, with parameters as they are now.

    Parameters
    ----------
    params : CLCEClassifier
        Where the parameters are read.
    net : CLCENet
        Trained; it is not changed.
    device : torch.device
        Where to compute.

    Returns
    -------
    CLCENet
        With copies of its weights, its history, and the optimizer's state if it has one.
    """
    continued = make_net(params, copy.deepcopy(net.module_), device)
    continued.history_ = copy.deepcopy(net.history_)
    if isinstance(getattr(net, "optimizer_", None), type(continued.optimizer_)):
        parameters = zip(net.module_.parameters(), continued.module_.parameters(), strict=True)
        for before, now in parameters:
            if before in net.optimizer_.state:
                state = copy.deepcopy(net.optimizer_.state[before])
                continued.optimizer_.state[now] = state
    return continued


def make_dataset(
    module: CLCEModule,
    rows: Rows,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Dataset:
    """Make batches of what a module takes.

    Parameters
    ----------
    module : CLCEModule
        Knows how its backbone wants images.
    rows : Tensor or sequence of Tensor
        Features, or images.
    labels : ndarray of shape (n,), default=None
        Class indices.
    weights : ndarray of shape (n,), default=None
        Weights of the rows.

    Returns
    -------
    Dataset
        Of features or images.
    """
    if isinstance(rows, Tensor):
        return LabelledFeatures(rows, labels, weights)
    return LabelledImages(rows, EvaluationTransform(module.config), labels, weights)


def make_augmentation(params: Any, module: CLCEModule, rows: Rows) -> Any:
    """Choose what happens to training images.

    Parameters
    ----------
    params : CLCEClassifier
        Where the parameters are read.
    module : CLCEModule
        "auto" augments only if its backbone trains.
    rows : Tensor or sequence of Tensor
        Features, or images: the first ones tell whether they are grey.

    Returns
    -------
    callable or None
        Maps a batch of images to an augmented one.

    Raises
    ------
    ValueError
        If views are asked for and nothing makes them differ, or X holds features.
    """
    augment = params.augment
    if augment == "auto":
        augment = None
        if not module.frozen:
            looked_at = [rows[row] for row in range(min(LOOKED_AT, len(rows)))]
            augment = Augmentation(grey=all(map(is_grey, looked_at)))
    if augment is not None and isinstance(rows, Tensor):
        raise ValueError("augment: X holds features; only images can be augmented")
    if isinstance(augment, nn.Module):  # as an attribute, skorch would train and save it
        augment = partial(augment)
    if augment is None and params.n_views > 1:
        raise ValueError(
            f"n_views={params.n_views!r}: without augmentation the views of an image are the same; "
            "augment must be a callable, or 'auto' with a backbone that trains"
        )
    return augment
