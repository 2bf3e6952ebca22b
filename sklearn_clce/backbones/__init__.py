"""Backbones: their names and weights, running one, and what makes two the same."""

from ._description import UndescribableError, describe, libraries
from ._frozen import FrozenBackbone, frozen_backbone
from ._loading import BackboneConfig, backbone_aliases, build_timm, load_backbone
from ._lower_blocks import block_widths, lower_blocks_of, part_widths, set_lower_blocks
from ._running import Normalize, count_features, run_backbone, run_in_parts

__all__ = [
    "backbone_aliases",
    "load_backbone",
    "build_timm",
    "BackboneConfig",
    "Normalize",
    "run_backbone",
    "run_in_parts",
    "count_features",
    "lower_blocks_of",
    "set_lower_blocks",
    "part_widths",
    "block_widths",
    "FrozenBackbone",
    "frozen_backbone",
    "describe",
    "libraries",
    "UndescribableError",
]
