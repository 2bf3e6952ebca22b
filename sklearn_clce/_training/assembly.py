"""An estimator's parameters become a network, and the net that trains it."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from skorch.history import History
from torch import Tensor, nn

from .._system import resolve_device
from ..backbones import (
    BackboneConfig,
    FrozenBackbone,
    count_features,
    frozen_backbone,
    load_backbone,
)
from ..data import EvaluationTransform, ImageBatches
from ..losses import CLCELoss
from .course import Course, begin, mix_seed
from .low_rank import adapt, is_adapted, merge
from .module import CLCEModule, trains
from .net import CLCENet, identity_collate, probabilities
from .optim import fixed_in, freeze, settled_trainable
from .parameters import CLCEParameters
from .samples import Samples, kept_features
from .skorch_params import check_skorch_params

PROJECTION_DIM = 128


def make_module(
    parameters: CLCEParameters,
    samples: Samples,
    n_classes: int,
    device: torch.device,
    seed: int,
) -> tuple[CLCEModule, Tensor | None]:
    """Build the network on the CPU, and return what is known of the samples' features.

    A pretrained backbone runs once over the images even if it trains: the head starts from that.
    """
    pretrained = is_pretrained(parameters)
    backbone: nn.Module | None = None
    config: BackboneConfig | None = None
    features: Tensor | None = None
    if isinstance(samples, Tensor):
        features, n_features = samples, samples.shape[1]
        _warn_if_memory(parameters, "X holds features already (backbone='precomputed')")
    else:
        shared, backbone, config = _load(parameters, samples.n_channels)
        set_what_trains(parameters, backbone, seed)
        if shared is None:
            n_features = count_features(backbone, EvaluationTransform(config)(samples[0]))
        else:
            features = kept_features(parameters, samples, shared, device, parameters.verbose)
            n_features = features.shape[1]
    projection_dim = parameters.projection_dim
    if projection_dim == "auto":
        projection_dim = PROJECTION_DIM if pretrained or features is not None else None
    torch.manual_seed(mix_seed(seed))  # whether or not the backbone had to be loaded
    module = CLCEModule(
        backbone,
        config,
        n_features=n_features,
        n_classes=n_classes,
        projection_dim=projection_dim,
        pretrained=pretrained,
    )
    if parameters.compile:
        module.compile()
    return module, features


def _load(
    parameters: CLCEParameters, n_channels: int | None
) -> tuple[FrozenBackbone | None, nn.Module, BackboneConfig]:
    """Load the backbone: what runs once over the images, if anything does, and one to train."""
    settings: dict[str, Any] = {
        "pretrained": parameters.pretrained,
        "image_size": parameters.image_size,
        "n_channels": n_channels,
    }
    backbone = parameters.backbone
    if parameters.trainable == "head" or is_pretrained(parameters) or _is_frozen(backbone):
        alone = parameters.trainable == "head" and is_pretrained(parameters)
        shared = frozen_backbone(backbone, **settings, lower_blocks=alone)
        return shared, copy.deepcopy(shared.module), shared.config
    cause = f"the backbone trains (trainable={parameters.trainable!r})"
    _warn_if_memory(parameters, f"{cause}; features are kept with trainable='head'")
    return None, *load_backbone(backbone, **settings)


def _warn_if_memory(parameters: CLCEParameters, why_not: str) -> None:
    """Warn that a folder was given for features, and none is kept."""
    if parameters.memory is not None:
        warnings.warn(
            f"memory={parameters.memory!r}: nothing is kept, because {why_not}",
            UserWarning,
            stacklevel=4,
        )


def is_pretrained(parameters: CLCEParameters) -> bool:
    """Tell whether a backbone comes with weights that know more than the images can teach."""
    named = isinstance(parameters.backbone, str) and parameters.backbone != "precomputed"
    return named and parameters.pretrained is not False


def set_what_trains(parameters: CLCEParameters, backbone: nn.Module, seed: int) -> None:
    """Freeze what is not to train, and save memory where the rest does."""
    trainable = settled_trainable(
        parameters.trainable, backbone, pretrained=is_pretrained(parameters)
    )
    if trainable == "lora":
        adapt(backbone, parameters.lora_rank, mix_seed(seed))
    freeze(backbone, trainable, fixed_in(parameters.backbone))
    if trains(backbone):
        checkpoint_gradients(backbone, parameters.gradient_checkpointing)


def _is_frozen(backbone: str | nn.Module) -> bool:
    return isinstance(backbone, nn.Module) and not trains(backbone)


def checkpoint_gradients(backbone: Any, on: bool) -> None:
    """Save memory at the price of time, or raise a ValueError."""
    if not (on or hasattr(backbone, "set_grad_checkpointing")):
        return
    try:
        backbone.set_grad_checkpointing(on)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        if on:
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
        "warmup_fraction": parameters.warmup_fraction,
        "max_grad_norm": parameters.max_grad_norm,
        "micro_batch_size": parameters.micro_batch_size,
        "n_views": parameters.n_views,
        "precision": parameters.precision,
        "patience": parameters.n_iter_no_change if parameters.early_stopping else None,
        "tol": parameters.tol,
        "keep_optimizer": parameters.warm_start,
        "max_epochs": parameters.max_epochs,
        "batch_size": parameters.batch_size,
        "train_split": None,
        "predict_nonlinearity": probabilities,
        "callbacks": parameters.callbacks,
        "callbacks__print_log": None,
        "device": device,
        "verbose": parameters.verbose,
    }
    for loader in ("iterator_train", "iterator_valid"):
        if loader in extra:  # one like torch's DataLoader
            options[f"{loader}__collate_fn"] = identity_collate
            if loader == "iterator_valid":  # training draws from torch's, which each epoch seeds
                options[f"{loader}__generator"] = torch.Generator()
        else:
            options |= {
                loader: ImageBatches,
                f"{loader}__num_workers": parameters.num_workers,
                f"{loader}__device": device,
            }
    return CLCENet(**options | extra).initialize()


def continued_net(
    parameters: CLCEParameters,
    net: CLCENet,
    device: torch.device,
    module: CLCEModule | None = None,
) -> CLCENet:
    """Copy weights, history and optimizer state into a net with parameters as they are now.

    ``module``: one with another classifier, to be used in place of a copy.
    """
    assert net.course is not None  # it has trained
    module = copy.deepcopy(net.module_) if module is None else module
    if module.backbone is not None:
        changed = any(net.course.changed(parameters, name) for name in ("trainable", "lora_rank"))
        is_merged = parameters.trainable == "lora" and not is_adapted(module.backbone)
        if changed or is_merged:
            merge(module.backbone)
            set_what_trains(parameters, module.backbone, net.course.seed)
            module.settle_what_trains()
        elif net.course.changed(parameters, "gradient_checkpointing") and not module.frozen:
            checkpoint_gradients(module.backbone, parameters.gradient_checkpointing)
    if parameters.compile:
        module.compile()
    continued = make_net(parameters, module, device)
    # No call costs more than the first: old epochs are shared, and keep no rows of their batches.
    continued.history_ = History(
        {**epoch, "batches": []} if epoch["batches"] else epoch for epoch in net.history_
    )
    continued.scaling = net.scaling
    _copy_optimizer_state(net, continued)
    return continued


def _copy_optimizer_state(net: CLCENet, continued: CLCENet) -> None:
    """Hand on the state of each parameter that still trains, to an optimizer of the same kind."""
    before: Any = getattr(net, "optimizer_", None)
    now: Any = continued.optimizer_
    if type(before) is not type(now) or _switches(before) != _switches(now):
        return
    earlier = dict(net.module_.named_parameters())
    origin = {
        p: earlier[name]
        for name, p in continued.module_.named_parameters()
        if name in earlier and earlier[name].shape == p.shape
    }
    parameters = [p for group in now.param_groups for p in group["params"]]
    state = {
        place: copy.deepcopy(before.state[origin[p]])
        for place, p in enumerate(parameters)
        if origin.get(p) in before.state and origin[p].shape == p.shape
    }
    now.load_state_dict(now.state_dict() | {"state": state})  # moves it to the device


def _switches(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the settings that decide what an optimizer's state holds, such as amsgrad."""
    return {name: value for name, value in optimizer.defaults.items() if isinstance(value, bool)}


def restored_net(
    parameters: CLCEParameters,
    module: CLCEModule,
    history: list[dict[str, Any]],
    course: Course | None = None,
) -> CLCENet:
    """Make the net of a fit that was saved."""
    if module.backbone is not None and not module.frozen:
        checkpoint_gradients(module.backbone, parameters.gradient_checkpointing)
    net = make_net(parameters, module, resolve_device(parameters.device))
    net.history_ = History(history)
    net.course = begin(parameters) if course is None else course
    return net
