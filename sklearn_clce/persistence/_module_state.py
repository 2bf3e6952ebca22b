"""A network as plain values and tensors, and rebuilt from them: no download, bounded memory.

A file may have been written by anybody: a network is built without memory first, and only
if its tensors are those of the file is it built again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from threading import get_ident
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from .._head import HeadConfig
from .._network import Network
from .._system import seeded_torch
from .._targets import outputs_named
from ..backbones import (
    BackboneConfig,
    Backbones,
    Config,
    JoinedBackbone,
    JoinedConfig,
    block_widths,
    build_timm,
    each_backbone,
    load_backbone,
    lower_blocks_of,
    part_widths,
    set_lower_blocks,
)
from ._plain import from_json, take, take_number, to_json

MAX_WIDTH = 2**24
MAX_NUMBER = 16384  # of pixels, layers or channels that a description may ask for
MAX_LIST = 64
MAX_BACKBONES = 16
SPARE_BYTES = 32 * 2**20
LAYERS_PER_TENSOR = 20  # timm's own architectures register at most 5 layers and tensors for each
SPARE_LAYERS = 1000
CALLS_PER_TENSOR = 200  # of torch while it is built; timm's make 30, and 90 at 1,024 pixels
SPARE_CALLS = 20_000

CLASS_STATISTICS = ("class_means", "class_counts")  # buffers that are not in the state_dict
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
# arguments of timm's factory that do not describe an architecture
RESERVED_ARGS = {"pretrained", "checkpoint_path", "cache_dir", "features_only", "kd_model_fn"}


def module_state(module: Network) -> dict[str, Any]:
    """Describe a network without its tensors."""
    head = module.head
    return {
        "backbone": None if module.backbone is None else _backbone_state(module.backbone),
        "config": None if module.config is None else to_json(asdict(module.config)),
        "n_features": head.n_features,
        "head": to_json(asdict(head.config)),
        "floors": head.standardize.floors,
        "is_initialised": head.is_initialised,
        "outputs": module.outputs.name,
        "pretrained": module.pretrained,
        "lora": module.lora,
        "frozen": [name for name, p in module.named_parameters() if not p.requires_grad],
    }


def _backbone_state(backbone: Any) -> dict[str, Any]:
    """Describe a backbone by architecture and arguments; a user's own module by its class."""
    if isinstance(backbone, JoinedBackbone):
        return {"parts": list(map(_backbone_state, backbone.parts)), "widths": [*backbone.widths]}
    lower_blocks = {"lower_blocks": list(lower_blocks_of(backbone))}
    args = getattr(backbone, "factory_args", None)
    if args is None:
        return {"module": type(backbone).__name__} | lower_blocks
    cfg = backbone.pretrained_cfg
    return {
        "architecture": cfg["architecture"],
        "fixed_input_size": bool(cfg.get("fixed_input_size", False)),
        "args": to_json(args),
    } | lower_blocks


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return all tensors of a network: its state_dict, and the statistics of the classes."""
    tensors = module.state_dict()
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"backbone keeps {name!r} in its state_dict, which is not a tensor: a model file "
                "holds tensors; pickle can hold it"
            )
    others = dict(module.named_buffers())
    return tensors | {name: others[name] for name in others if _is_class_statistic(name)}


def _is_class_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in CLASS_STATISTICS


def states_of_parts(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the states of the backbones that a network has: none, one or several."""
    saved = take(state, "backbone", dict, NoneType)
    if saved is None or "parts" not in saved:
        return [] if saved is None else [saved]
    parts = take(saved, "parts", list)
    if not 2 <= len(parts) <= MAX_BACKBONES or not all(type(part) is dict for part in parts):
        raise ValueError("it does not describe several backbones")
    return parts


def check_backbone(state: dict[str, Any], backbone: Any) -> None:
    """Reject a user's modules where none are needed, and the lack of one where it is."""
    parts = states_of_parts(state)
    names = [take(part, "module", str)[:80] if "module" in part else None for part in parts]
    given = [isinstance(part, nn.Module) for part in each_backbone(backbone)]
    if any(names) and given != [name is not None for name in names]:
        wanted = ", ".join(f"{name}(...)" if name else "'its name'" for name in names)
        wanted = f"({wanted})" if len(names) > 1 else wanted
        raise ValueError(
            f"backbone={_shown(backbone)}: it was fitted with a module of class "
            f"{' and '.join(filter(None, names))} as backbone, and a module of that architecture "
            f"is required, load(path, backbone={wanted})"
        )
    if not any(names) and backbone is not None:
        raise ValueError(
            f"backbone={_shown(backbone)}: the file holds its whole backbone; leave it out"
        )


def _shown(backbone: Any) -> str:
    if isinstance(backbone, (tuple, list)):
        return f"({', '.join(map(_shown, backbone))})"
    return type(backbone).__name__ if isinstance(backbone, nn.Module) else repr(backbone)


def check_restorable(
    module: Network, state: dict[str, Any], n_classes: int, tensors: dict[str, Tensor]
) -> None:
    """Reject the state of a network that :func:`restore_module` would reject."""
    if state["config"] is not None:
        _config(from_json(state["config"]))
    if "module" in (state["backbone"] or {}):
        _check_tensors(module, tensors)
        return
    modules = module.backbone.parts if isinstance(module.backbone, JoinedBackbone) else ()
    check_fits(partial(_build_module, state, n_classes, tuple(modules) or None), tensors)


def restore_module(
    state: dict[str, Any],
    n_classes: int,
    tensors: dict[str, Tensor],
    backbone: Backbones | None,
) -> Network:
    """Build a network from its state, with a user's modules where it has such."""
    build = partial(_build_module, state, n_classes, backbone)
    with seeded_torch(0):  # random weights come first
        if not isinstance(backbone, nn.Module):
            check_fits(build, tensors)
        module = build()
    _check_tensors(module, tensors)
    _fill_out_buffers(module)
    module.load_state_dict({n: tensors[n] for n in tensors if not _is_class_statistic(n)})
    for name, buffer in module.named_buffers():
        if _is_class_statistic(name):
            buffer.copy_(tensors[name])
    return module


def _fill_out_buffers(module: nn.Module) -> None:
    """Give each number of an expanded buffer its own memory, so that it can be written."""
    for layer in module.modules():
        for name, buffer in layer.named_buffers(recurse=False):
            if buffer.layout == torch.strided and 0 in buffer.stride():
                setattr(layer, name, buffer.clone())


def _build_module(
    state: dict[str, Any], n_classes: int, given: Backbones | Sequence[nn.Module] | None
) -> Network:
    """Build a network from its state, with random weights."""
    described = take(state, "config", dict, NoneType)
    config = None if described is None else _config(from_json(described))
    saved = take(state, "backbone", dict, NoneType)
    if (saved is None) != (config is None):
        raise ValueError("it has a backbone without preprocessing, or the reverse")
    n_features = take_number(state, "n_features", 1, MAX_WIDTH, int)
    backbone = None
    if saved is not None and config is not None:
        backbone = _restored_backbone(state, config, given, n_features)
        _freeze(backbone, take(state, "frozen", list))
    module = Network(
        backbone,
        config,
        n_features=n_features,
        n_classes=n_classes,
        head=_head_config(from_json(take(state, "head", dict))),
        outputs=outputs_named(take(state, "outputs", str)),
        pretrained=take(state, "pretrained", bool),
    )
    module.lora = take(state, "lora", bool)
    module.head.standardize.floors = _floors(state, len(module.head.standardize.widths))
    module.head.is_initialised = take(state, "is_initialised", bool)
    return module


def _restored_backbone(
    state: dict[str, Any],
    config: Config,
    given: Backbones | Sequence[nn.Module] | None,
    n_features: int,
) -> nn.Module:
    """Rebuild one backbone or several, or take a user's modules."""
    states = states_of_parts(state)
    if isinstance(config, BackboneConfig):
        return _restored_part(states[0], config, given, n_features)
    widths = take(state["backbone"], "widths", list)
    each_given = [None] * len(states) if given is None else each_backbone(given)
    if len({len(states), len(widths), len(config.parts), len(each_given)}) > 1:
        raise ValueError("its backbones are not as many as their widths, or their preprocessing")
    if not all(type(width) is int and width > 0 for width in widths) or sum(widths) != n_features:
        raise ValueError("the widths of its backbones are not those of its features")
    parts = list(map(_restored_part, states, config.parts, each_given, widths))
    return JoinedBackbone(parts, config, widths)


def _restored_part(
    saved: dict[str, Any], config: BackboneConfig, given: Any, n_features: int
) -> nn.Module:
    is_users = "module" in saved and isinstance(given, nn.Module)
    backbone = load_backbone(given)[0] if is_users else _rebuild(saved, config)
    _restore_lower_blocks(backbone, take(saved, "lower_blocks", list), n_features)
    return backbone


def _floors(state: dict[str, Any], n: int) -> list[float | None]:
    saved = take(state, "floors", list)
    if len(saved) != n:
        raise ValueError("its entry 'floors' is not one for each part of the features")
    most = torch.finfo(torch.float32).max
    floors = {f"floors[{place}]": floor for place, floor in enumerate(saved)}
    return [take_number(floors, name, 0, most, float, NoneType) for name in floors]


def _head_config(saved: Any) -> HeadConfig:
    if type(saved) is not dict or saved.keys() != {each.name for each in fields(HeadConfig)}:
        raise ValueError("its head is not described")
    return HeadConfig(**saved)


def _rebuild(saved: dict[str, Any], config: BackboneConfig) -> nn.Module:
    """Build a timm backbone without weights."""
    import timm

    architecture = take(saved, "architecture", str)
    args = from_json(take(saved, "args", dict))
    if not architecture.isidentifier() or not timm.is_model(architecture):
        raise ValueError(f"timm {timm.__version__} does not know {architecture[:80]!r}")
    if type(args) is not dict or RESERVED_ARGS & args.keys() or not _is_small(args):
        raise ValueError(f"{architecture!r} can't be built with its arguments")
    cfg = {
        "architecture": architecture,
        "fixed_input_size": take(saved, "fixed_input_size", bool),
        **config.in_timms_form(),
    }
    try:
        backbone = build_timm(architecture, args, pretrained_cfg=cfg)
    except Exception as error:  # of any architecture, with any arguments
        raise ValueError(f"{architecture!r} can't be built ({type(error).__name__})") from error
    return backbone.to(memory_format=torch.channels_last).eval()


def _is_small(value: Any) -> bool:
    """Check that numbers and lists are such as architectures are made of."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return len(value) <= MAX_LIST and all(map(_is_small, value))
    if isinstance(value, str):
        return len(value) <= MAX_LIST
    if isinstance(value, (int, float)):
        return -MAX_NUMBER <= value <= MAX_NUMBER
    return value is None


def _restore_lower_blocks(backbone: nn.Module, blocks: list[Any], n_features: int) -> None:
    """Let a backbone return its lower blocks, if it has them."""
    n_blocks = len(block_widths(backbone)) if blocks else 0
    if any(type(block) is not int or not 0 <= block < n_blocks for block in blocks):
        raise ValueError(f"{type(backbone).__name__} does not show such lower blocks")
    if tuple(blocks) != lower_blocks_of(backbone):  # or its fingerprint would change
        set_lower_blocks(backbone, blocks)
    if part_widths(backbone, n_features)[0][0] < 1:
        raise ValueError("n_features is less than its lower blocks have")


def _freeze(backbone: nn.Module, frozen: list[Any]) -> None:
    names = {name for name in frozen if type(name) is str}
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(f"backbone.{name}" not in names)


def _config(saved: Any) -> Config:
    """Read how backbones take their images, within what images can be."""
    if type(saved) is not dict or "parts" not in saved:
        return _config_of_one(saved)
    parts = tuple(map(_config_of_one, take(saved, "parts", tuple)))
    if len(parts) > MAX_BACKBONES or any(part.image_size is None for part in parts):
        raise ValueError("its preprocessing is impossible for several backbones")
    return JoinedConfig(parts)


def _config_of_one(saved: Any) -> BackboneConfig:
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


def check_fits(build: Callable[[], nn.Module], tensors: dict[str, Tensor]) -> None:
    """Reject tensors that are not those of a module, before the module takes memory."""
    few_layers = _few_layers(SPARE_LAYERS + LAYERS_PER_TENSOR * len(tensors))
    few_calls = _FewCalls(SPARE_CALLS + CALLS_PER_TENSOR * len(tensors))
    with torch.device("meta"), few_layers, few_calls:
        module = build()
    _check_tensors(module, tensors)
    needed = sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])
    if needed > 2 * sum(tensor.nbytes for tensor in tensors.values()) + SPARE_BYTES:
        raise ValueError(f"the module would take {needed} bytes, far more than its tensors")


def _check_tensors(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Reject tensors that differ from those of a module by name, shape or dtype."""
    wanted = tensors_of(module)
    if different := sorted(wanted.keys() ^ tensors.keys()):
        raise ValueError(f"tensors are missing or too many: {different[:5]}")
    for name, tensor in wanted.items():
        found = tensors[name]
        if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(
                f"{name} is of shape {tuple(found.shape)} and {found.dtype}, where "
                f"{tuple(tensor.shape)} and {tensor.dtype} are required"
            )
        if _is_class_statistic(name) and not found.isfinite().all():
            raise ValueError(f"{name} is not finite")


class _FewCalls(TorchFunctionMode):
    """Stop building a module that computes for far too long."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.left = limit

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError("the module computes for far too long while it is built")
        return func(*args, **(kwargs or {}))


@contextmanager
def _few_layers(limit: int) -> Iterator[None]:
    """Stop building a module of far too many layers."""
    left, thread = limit, get_ident()

    def count(*registered: Any) -> None:
        nonlocal left
        left -= get_ident() == thread  # the hooks are called in every thread
        if left < 0:
            raise ValueError("the module has far more layers than tensors")

    handles = [
        hooks.register_module_module_registration_hook(count),
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
