"""The network of a saved estimator: described, and made again from its description."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from .._network import Network
from .._system import seeded_torch
from ..backbones import BackboneConfig, load_backbone
from ._backbone import (
    MAX_NUMBER,
    check_fits,
    check_tensors,
    describe_backbone,
    rebuild_backbone,
    restore_lower_blocks,
)
from ._plain import from_json, take, to_json

MAX_WIDTH = 2**24
OF_CLASSES = ("class_means", "class_counts")
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")


def describe_module(module: Network) -> dict[str, Any]:
    """Describe a network without its tensors."""
    parameters = dict(module.named_parameters())
    return {
        "backbone": describe_backbone(module.backbone),
        "config": None if module.config is None else to_json(asdict(module.config)),
        "n_features": len(module.head.standardize.mean),
        "projection_dim": None if module.head.projection is None else module.head.n_embedding,
        "floor": module.head.standardize.floor,
        "started": module.head.is_initialised,
        "pretrained": module.pretrained,
        "lora": module.lora,
        "frozen": [name for name, p in parameters.items() if not p.requires_grad],
    }


def weights_of(module: Network) -> dict[str, Tensor]:
    """Return all tensors that a network needs to be what it is."""
    state = module.state_dict()
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"backbone={type(module.backbone).__name__} keeps {others[0]!r} in its state_dict, "
            "which is not a tensor: a model file holds tensors; pickle can hold it"
        )
    return state | {name: getattr(module.head, name) for name in OF_CLASSES}


def check_backbone(description: dict[str, Any], backbone: Any) -> None:
    """Refuse a user's module where none is needed, and the lack of one where it is."""
    saved = take(description, "backbone", dict, NoneType)
    is_module = saved is not None and "module" in saved
    if is_module and not isinstance(backbone, nn.Module):
        name = take(saved, "module", str)[:80]
        raise ValueError(
            f"backbone={backbone!r}: it was fitted with a module of class {name} as backbone, and "
            f"a module of that architecture is required, load(path, backbone={name}(...))"
        )
    if not is_module and backbone is not None:
        raise ValueError(
            f"backbone={type(backbone).__name__}: the file holds its whole backbone; leave it out"
        )


def check_restorable(
    description: dict[str, Any], n_classes: int, tensors: dict[str, Tensor]
) -> None:
    """Refuse to describe a network that :func:`restore_module` would not make."""
    try:
        if description["config"] is not None:
            _config(from_json(description["config"]))
        if "module" not in (description["backbone"] or {}):
            weights, _ = _separated(tensors)
            check_fits(partial(build_module, description, n_classes, None), weights)
    except ValueError as error:
        raise ValueError(f"no model file can hold this model: {error}; a pickle can") from error


def restore_module(
    description: dict[str, Any],
    n_classes: int,
    tensors: dict[str, Tensor],
    backbone: nn.Module | None,
) -> Network:
    """Make a network again."""
    build = partial(build_module, description, n_classes, backbone)
    weights, of_classes = _separated(tensors)
    with seeded_torch(0):  # random weights come first
        if backbone is None:
            check_fits(build, weights)
        module = build()
    check_tensors(module, weights)
    _fill_out_buffers(module)
    module.load_state_dict(weights)
    _take_class_means(module, of_classes)
    return module


def _fill_out_buffers(module: nn.Module) -> None:
    """Give each number of an expanded buffer a place of its own, so that it can be written."""
    for layer in module.modules():
        for name, buffer in layer.named_buffers(recurse=False):
            if buffer.layout == torch.strided and 0 in buffer.stride():
                setattr(layer, name, buffer.clone())


def _separated(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Separate weights from what is known of the classes, which earlier files do not hold."""
    of_classes = {name: tensors[name] for name in OF_CLASSES if name in tensors}
    return {name: tensors[name] for name in tensors if name not in OF_CLASSES}, of_classes


def _take_class_means(module: Network, found: dict[str, Tensor]) -> None:
    if not found:
        module.head.class_counts.fill_(-1)
        return
    wanted = {name: getattr(module.head, name) for name in OF_CLASSES}
    same = found.keys() == wanted.keys() and all(
        (tensor.shape, tensor.dtype) == (wanted[name].shape, wanted[name].dtype)
        and tensor.isfinite().all()
        for name, tensor in found.items()
    )
    if not same:
        raise ValueError(f"its {' and '.join(OF_CLASSES)} are not those of its classes")
    for name, tensor in found.items():
        wanted[name].copy_(tensor)


def build_module(
    description: dict[str, Any], n_classes: int, backbone: nn.Module | None
) -> Network:
    """Build a network from its description, with whatever weights."""
    described = take(description, "config", dict, NoneType)
    config = None if described is None else _config(from_json(described))
    saved = take(description, "backbone", dict, NoneType)
    if (saved is None) != (config is None):
        raise ValueError("it has a backbone without preprocessing, or the reverse")
    if backbone is not None:
        backbone, _ = load_backbone(backbone)
    elif saved is not None and config is not None:
        backbone = rebuild_backbone(saved, config)
    n_features = _width(description, "n_features", int)
    if backbone is not None and saved is not None:
        restore_lower_blocks(backbone, saved, n_features)
        _freeze(backbone, take(description, "frozen", list))
    projection_dim = _width(description, "projection_dim", int, NoneType)
    module = Network(
        backbone,
        config,
        n_features=n_features,
        n_classes=n_classes,
        projection_dim=projection_dim,
        pretrained="pretrained" in description and take(description, "pretrained", bool),
    )
    if "lora" in description:  # earlier files had none
        module.lora = take(description, "lora", bool)
    if "floor" in description:  # earlier files took no root
        module.head.standardize.floor = _floor(take(description, "floor", float, NoneType))
    if "started" in description:  # earlier files went on as they were
        module.head.is_initialised = take(description, "started", bool)
    return module


def _freeze(backbone: nn.Module, frozen: list[Any]) -> None:
    """Take the gradients from what did not train."""
    names = {name for name in frozen if type(name) is str}
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(f"backbone.{name}" not in names)


def _floor(floor: float | None) -> float | None:
    if floor is not None and not 0 <= floor <= torch.finfo(torch.float32).max:
        raise ValueError("floor is negative or not finite in float32")
    return floor


def _width(description: dict[str, Any], name: str, *types: type) -> Any:
    width = take(description, name, *types)
    if width is not None and not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"{name} is not in 1..{MAX_WIDTH}")
    return width


def _config(saved: Any) -> BackboneConfig:
    """Read how a backbone wants its images, within what images can be."""
    config = BackboneConfig(
        name=take(saved, "name", str),
        image_size=take(saved, "image_size", int, NoneType),
        n_channels=take(saved, "n_channels", int),
        mean=take(saved, "mean", tuple),
        std=take(saved, "std", tuple),
        interpolation=take(saved, "interpolation", str),
        crop_pct=take(saved, "crop_pct", float, int),
        crop_mode=take(saved, "crop_mode", str),
    )
    numbers = [*config.mean, *config.std]
    possible = (
        (config.image_size is None or 1 <= config.image_size <= MAX_NUMBER)
        and 1 <= config.n_channels <= MAX_NUMBER
        and {len(config.mean), len(config.std)} == {config.n_channels}
        and all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        and all(config.std)
        and 0.1 <= config.crop_pct <= 2
        and config.interpolation in INTERPOLATIONS
        and config.crop_mode in CROP_MODES
    )
    if not possible:
        raise ValueError("its preprocessing is impossible")
    return config
