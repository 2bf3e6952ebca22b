"""A timm backbone built again from its description: no download, no surprise in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from ..backbones import (
    BackboneConfig,
    block_widths,
    build_timm,
    lower_blocks_of,
    part_widths,
    set_lower_blocks,
)
from ._plain import from_json, take, to_json

MAX_NUMBER = 16384  # of pixels, layers or channels that a description may ask for
MAX_LIST = 64
SPARE_BYTES = 32 * 2**20
LAYERS_PER_TENSOR = 20  # timm's own architectures register at most 5 layers and tensors for each
SPARE_LAYERS = 1000

# What timm calls the arguments of its factory that do not describe an architecture.
RESERVED_ARGS = {"pretrained", "checkpoint_path", "cache_dir", "features_only", "kd_model_fn"}


def describe_backbone(backbone: Any) -> dict[str, Any] | None:
    """Describe a backbone by architecture and arguments; a user's own module by its class alone."""
    if backbone is None:
        return None
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


def rebuild_backbone(description: dict[str, Any], config: BackboneConfig) -> nn.Module:
    """Build a timm backbone without weights, from a description that anybody may have written."""
    import timm

    architecture = take(description, "architecture", str)
    args = from_json(take(description, "args", dict))
    if not architecture.isidentifier() or not timm.is_model(architecture):
        raise ValueError(f"timm {timm.__version__} does not know {architecture[:80]!r}")
    if type(args) is not dict or RESERVED_ARGS & args.keys() or not _is_small(args):
        raise ValueError(f"{architecture!r} can't be built with its arguments")
    cfg = {
        "architecture": architecture,
        "fixed_input_size": take(description, "fixed_input_size", bool),
        **config.in_timms_form(),
    }
    try:
        backbone = build_timm(architecture, args, pretrained_cfg=cfg)
    except Exception as error:  # of any architecture, with any arguments
        raise ValueError(f"{architecture!r} can't be built ({type(error).__name__})") from error
    return backbone.to(memory_format=torch.channels_last).eval()


def restore_lower_blocks(backbone: nn.Module, description: dict[str, Any], n_features: int) -> None:
    """Let a backbone give the blocks that it gave, if it has them; earlier files had none."""
    blocks = take(description, "lower_blocks", list) if "lower_blocks" in description else []
    n_blocks = len(block_widths(backbone)) if blocks else 0
    if any(type(block) is not int or not 0 <= block < n_blocks for block in blocks):
        raise ValueError(f"{type(backbone).__name__} does not show such lower blocks")
    if tuple(blocks) != lower_blocks_of(backbone):  # or it would no longer be known as the same
        set_lower_blocks(backbone, blocks)
    if part_widths(backbone, n_features)[0] < 1:
        raise ValueError("n_features is less than its lower blocks have")


def _is_small(value: Any) -> bool:
    """Tell whether numbers and lists are such as architectures are made of."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return len(value) <= MAX_LIST and all(map(_is_small, value))
    if isinstance(value, str):
        return len(value) <= MAX_LIST
    if isinstance(value, (int, float)):
        return -MAX_NUMBER <= value <= MAX_NUMBER
    return value is None


def check_fits(build: Callable[[], nn.Module], tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that are not those of a module, before the module takes memory."""
    with torch.device("meta"), _few_layers(SPARE_LAYERS + LAYERS_PER_TENSOR * len(tensors)):
        module = build()
    check_tensors(module, tensors)
    needed = sum(map(_n_bytes, [*module.parameters(), *module.buffers()]))
    if needed > 2 * sum(map(_n_bytes, tensors.values())) + SPARE_BYTES:
        raise ValueError(f"the module would take {needed} bytes, far more than its tensors")


def check_tensors(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that differ from those of a module by name, shape or dtype."""
    wanted = module.state_dict()
    if different := sorted(wanted.keys() ^ tensors.keys()):
        raise ValueError(f"tensors are missing or too many: {different[:5]}")
    for name, tensor in wanted.items():
        found = tensors[name]
        if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(
                f"{name} is of shape {tuple(found.shape)} and {found.dtype}, where "
                f"{tuple(tensor.shape)} and {tensor.dtype} are required"
            )


@contextmanager
def _few_layers(limit: int) -> Iterator[None]:
    """Give up on a module of endless layers while it is built."""
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


def _n_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
