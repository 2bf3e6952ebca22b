"""Backbones: their names and weights, running one, and what makes two of them the same."""

from ._fingerprint import UndescribableError, fingerprint
from ._frozen import FrozenBackbone, frozen_backbone
from ._joined import (
    Backbones,
    Config,
    JoinedBackbone,
    JoinedConfig,
    are_several,
    check_several,
    each_backbone,
    name_of,
    pack,
    part_widths,
)
from ._loading import BackboneConfig, backbone_aliases, build_timm, load_backbone
from ._releases import libraries
from ._running import (
    Normalize,
    block_widths,
    count_features,
    lower_blocks_of,
    run_backbone,
    run_in_parts,
    set_lower_blocks,
)
from ._weights import UNSTORED_PATH

__all__ = [
    "UNSTORED_PATH",
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
    "Backbones",
    "Config",
    "JoinedBackbone",
    "JoinedConfig",
    "are_several",
    "check_several",
    "each_backbone",
    "name_of",
    "pack",
    "FrozenBackbone",
    "frozen_backbone",
    "fingerprint",
    "libraries",
    "UndescribableError",
]
