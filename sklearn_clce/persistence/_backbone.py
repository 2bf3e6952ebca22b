"""A timm backbone built again from its description: no download, no surprise in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..backbones import BackboneConfig, build_timm
from ._plain import from_json, take, to_json

MAX_NUMBER = 16384  # of pixels, layers or channels that a description may ask for
MAX_LIST = 64
SPARE_BYTES = 32 * 2**20
CALLS_PER_TENSOR = 100
SPARE_CALLS = 50_000

# Old versions of timm read numbers from tensors while they build. What must then be computed, in
# turn, and up to how many integers or floats: nothing; rates of stochastic depth, layer by
# layer; widths of layers too. Positions are integers, and tables of all their pairs come of
# them, so those of arange are few.
RATES = {torch.linspace: (0, 256)}
WIDTHS = {torch.arange: (16, 256), torch.tensor: (64, 256)}
COMPUTED = ({}, RATES, RATES | WIDTHS)

# What timm calls the arguments of its factory that are no architecture.
RESERVED_ARGS = {"pretrained", "checkpoint_path", "cache_dir", "features_only", "kd_model_fn"}


def describe_backbone(backbone: nn.Module | None) -> dict[str, Any] | None:
    """Describe a backbone so that :func:`rebuild_backbone` can build it.

    Parameters
    ----------
    backbone : nn.Module or None
        What :func:`~sklearn_clce.backbones.load_backbone` gave.

    Returns
    -------
    dict or None
        Architecture and arguments; the name of its class alone for a user's own
        module; None without a backbone.
    """
    if backbone is None:
        return None
    args = getattr(backbone, "factory_args", None)
    if args is None:
        return {"module": type(backbone).__name__}
    cfg = backbone.pretrained_cfg
    return {
        "architecture": cfg["architecture"],
        "fixed_input_size": bool(cfg.get("fixed_input_size", False)),
        "args": to_json(args),
    }


def rebuild_backbone(description: dict[str, Any], config: BackboneConfig) -> nn.Module:
    """Build a timm backbone without weights.

    Parameters
    ----------
    description : dict
        From :func:`describe_backbone`, of values that anybody may have written.
    config : BackboneConfig
        How the backbone wants its images.

    Returns
    -------
    nn.Module
        On the CPU, or without memory inside :func:`sketch`.

    Raises
    ------
    ValueError
        If timm can't build it.
    """
    import timm

    architecture = take(description, "architecture", str)
    args = from_json(take(description, "args", dict))
    if not architecture.isidentifier() or not timm.is_model(architecture):
        raise ValueError(f"timm {timm.__version__} does not know {architecture[:80]!r}")
    if type(args) is not dict or RESERVED_ARGS & args.keys() or not _is_small(args):
        raise ValueError(f"{architecture!r} can't be built with its arguments")
    size = config.image_size
    cfg = {
        "architecture": architecture,
        "input_size": (config.n_channels, size, size),
        "fixed_input_size": take(description, "fixed_input_size", bool),
        "mean": config.mean,
        "std": config.std,
        "interpolation": config.interpolation,
        "crop_pct": config.crop_pct,
        "crop_mode": config.crop_mode,
    }
    try:
        backbone = build_timm(architecture, args, pretrained_cfg=cfg)
    except Exception as error:  # of any architecture, with any arguments
        raise ValueError(f"{architecture!r} can't be built ({type(error).__name__})") from error
    return backbone.to(memory_format=torch.channels_last).eval()


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
    """Refuse tensors that are not those of a module, before the module takes memory.

    Parameters
    ----------
    build : callable
        Builds the module.
    tensors : dict of str to Tensor
        Weights and buffers by name.

    Raises
    ------
    ValueError
        If the module has other tensors, or needs much more memory than they take.
    """
    limit = SPARE_CALLS + CALLS_PER_TENSOR * len(tensors)
    for computed in COMPUTED:
        try:
            module = _sketch(build, limit, computed)
            break
        except ValueError:
            if computed is COMPUTED[-1]:
                raise
    check_tensors(module, tensors)
    needed = sum(map(_n_bytes, [*module.parameters(), *module.buffers()]))
    if needed > 2 * sum(map(_n_bytes, tensors.values())) + SPARE_BYTES:
        raise ValueError(f"the module would take {needed} bytes, far more than its tensors")


def check_tensors(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Compare tensors with those of a module by name, shape and dtype.

    Parameters
    ----------
    module : nn.Module
        The module.
    tensors : dict of str to Tensor
        Weights and buffers by name.

    Raises
    ------
    ValueError
        If they differ.
    """
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


def _sketch(
    build: Callable[[], nn.Module], limit: int, computed: dict[Any, tuple[int, int]]
) -> nn.Module:
    """Build a module whose tensors have shapes and no memory."""
    with torch.device("meta"), _FewCalls(limit, computed):
        return build()


def _n_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _FewCalls(TorchFunctionMode):
    """Give up on a module of endless layers; compute what is read while it is built."""

    def __init__(self, limit: int, computed: dict[Any, tuple[int, int]]) -> None:
        super().__init__()
        self.left = limit
        self.computed = computed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError("the module has far more layers than tensors")
        kwargs = kwargs or {}
        if func in self.computed and kwargs.get("device") is None:
            result = func(*args, **kwargs | {"device": "meta"})
            if result.numel() <= self.computed[func][result.is_floating_point()]:
                kwargs = kwargs | {"device": "cpu"}
        return func(*args, **kwargs)
