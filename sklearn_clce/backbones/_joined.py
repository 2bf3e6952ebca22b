"""Several backbones as one: each takes the images in its own way, and their features are joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.utils._param_validation import InvalidParameterError
from torch import Tensor, nn

from ._loading import ALIASES, BackboneConfig
from ._running import Normalize, block_widths, count_features, lower_blocks_of, run_backbone

Backbones = str | nn.Module | Sequence[str | nn.Module]
Shape = tuple[int, int, int]  # of an image (C, H, W)


@dataclass(frozen=True)
class JoinedConfig:
    """How several backbones want their images.

    A batch holds what each of them takes, one after the other: (n, 1, 1, n_numbers).

    Parameters
    ----------
    parts : tuple of BackboneConfig
        How each backbone wants its images.
    """

    parts: tuple[BackboneConfig, ...]

    @property
    def n_channels(self) -> int:
        """Channels of an image."""
        return self.parts[0].n_channels

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shapes of what each backbone takes."""
        sizes = [(config.n_channels, config.image_size or 0) for config in self.parts]
        return tuple((n_channels, side, side) for n_channels, side in sizes)


Config = BackboneConfig | JoinedConfig


class JoinedBackbone(nn.Module):
    """Backbones that run one after the other; ``widths`` are those of their features."""

    def __init__(
        self, parts: Sequence[nn.Module], config: JoinedConfig, widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.normalize = nn.ModuleList(Normalize(each.mean, each.std) for each in config.parts)
        self.shapes = config.shapes
        self.widths = tuple(widths)
        self.eval()  # as its parts are, and as it stays

    def forward(self, batch: Tensor) -> Tensor:
        """Run each backbone on its part: batch (n, 1, 1, n_numbers) -> (n, n_features)."""
        images = zip(self.normalize, unpack(batch, self.shapes), strict=True)
        normalized = [normalize(of_part) for normalize, of_part in images]
        return torch.cat(list(map(run_backbone, self.parts, normalized)), dim=1)


def join(loaded: Sequence[tuple[nn.Module, BackboneConfig]]) -> tuple[JoinedBackbone, JoinedConfig]:
    """Join backbones, each with its preprocessing."""
    config = JoinedConfig(tuple(of_part for _, of_part in loaded))
    for of_part in config.parts:
        if of_part.image_size is None:
            raise ValueError(
                f"image_size=None: {of_part.name} has no input size of its own, and shares its "
                "images with another backbone; image_size=... is required, or an attribute "
                "pretrained_cfg in timm's form"
            )
    parts = [module for module, _ in loaded]
    images = map(torch.zeros, config.shapes)
    return JoinedBackbone(parts, config, list(map(count_features, parts, images))), config


def pack(images: Sequence[Tensor]) -> Tensor:
    """Put what each backbone takes into one tensor: (..., C, H, W) -> (..., 1, 1, n_numbers)."""
    return torch.cat([image.flatten(-3) for image in images], dim=-1)[..., None, None, :]


def unpack(batch: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Take apart what :func:`pack` put together: (n, 1, 1, n_numbers) -> (n, C, H, W)."""
    parts = batch.flatten(1).split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


def part_widths(backbone: nn.Module | None, n_features: int) -> list[list[int]]:
    """Split the width of features: of each backbone that of its last ones and of each block."""
    if isinstance(backbone, JoinedBackbone):
        return list(map(_widths_of_one, backbone.parts, backbone.widths))
    return [_widths_of_one(backbone, n_features)]


def _widths_of_one(backbone: nn.Module | None, n_features: int) -> list[int]:
    widths = [block_widths(backbone)[block] for block in lower_blocks_of(backbone)]
    return [n_features - sum(widths), *widths]


def are_several(backbone: Any) -> bool:
    """Return whether a parameter is several backbones: a tuple, a list, or what joined them."""
    return isinstance(backbone, (tuple, list, JoinedBackbone))


def each_backbone(backbone: Any) -> tuple[Any, ...]:
    """Return the backbones that a parameter names, one or several."""
    if isinstance(backbone, JoinedBackbone):
        return tuple(backbone.parts)
    return tuple(backbone) if are_several(backbone) else (backbone,)


def name_of(backbone: Any) -> str:
    """Name one or several backbones, for people."""
    parts = each_backbone(backbone)
    return " + ".join(part if isinstance(part, str) else type(part).__name__ for part in parts)


def check_several(backbone: Any, pretrained: Any) -> None:
    """Raise an error unless several backbones, if there are several, can be joined."""
    if not are_several(backbone):
        return
    parts = each_backbone(backbone)
    given = f"backbone={tuple(map(_shown, parts))!r}"
    wrong = [part for part in parts if not _may_be_joined(part)]
    if wrong:
        mistake = f"names and modules are required, which {_shown(wrong[0])!r} is not"
    elif len(parts) < 2:
        mistake = "two backbones or more are required; pass one without a tuple or list"
    elif len(set(map(_key_of, parts))) < len(parts):
        mistake = "one is there twice, which takes time and adds nothing; others are required"
    elif not isinstance(pretrained, bool):
        mistake = (
            f"pretrained={pretrained!r} holds the weights of one of them; load it into a module, "
            "and pass that in the place of its name"
        )
    else:
        return
    raise InvalidParameterError(f"{given}: {mistake}")


def _may_be_joined(part: Any) -> bool:
    return isinstance(part, nn.Module) or (isinstance(part, str) and part != "precomputed")


def _key_of(part: str | nn.Module) -> Any:
    """Return what is equal for two names of one backbone."""
    return ALIASES.get(part, part) if isinstance(part, str) else part


def _shown(part: Any) -> Any:
    """Return what a message shows of a part: a module's class, or what it is."""
    return part if isinstance(part, (str, int, float, type(None))) else type(part).__name__
