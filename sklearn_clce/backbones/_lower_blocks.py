"""What lower blocks of a backbone tell, beside its last features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOST_BLOCKS = 4  # of twelve of a transformer these are as good as all


def give_lower_blocks(backbone: nn.Module, n_channels: int, image_size: int) -> None:
    """Let a timm backbone give means of lower blocks beside its last features, if it can.

    What it ends with suits the pictures that it was trained on; lower blocks tell more of others.
    The last block is none of them where its mean is what the backbone ends with, as in a ResNet.
    """
    widths = block_widths(backbone)
    shape = (1, n_channels, image_size, image_size)
    image = torch.linspace(0, 1, math.prod(shape)).reshape(shape)
    try:
        with torch.no_grad():
            last, both = backbone(image), _beside(backbone, image, range(len(widths)))
    except Exception:  # of an architecture that timm can't look into; without them it runs, or not
        return
    if widths and both.shape == (1, last.shape[1] + sum(widths)):
        repeated = torch.allclose(both[:, -last.shape[1] :], last, rtol=1e-4)
        set_lower_blocks(backbone, chosen(len(widths) - repeated))


def set_lower_blocks(backbone: nn.Module, blocks: Sequence[int]) -> None:
    """Let a timm backbone give means of these blocks beside its last features."""
    backbone.lower_blocks = tuple(blocks)  # type: ignore[assignment]


def lower_blocks_of(backbone: nn.Module | None) -> tuple[int, ...]:
    """Return the blocks whose means a backbone gives beside its last features."""
    return getattr(backbone, "lower_blocks", ())


def block_widths(backbone: Any) -> list[int]:
    """Return the channels of each block that timm can show of a backbone."""
    known = getattr(backbone, "feature_info", None)
    return [info["num_chs"] for info in known] if isinstance(known, list) else []


def part_widths(backbone: nn.Module | None, n_features: int) -> list[int]:
    """Split the width of a backbone's features into that of the last ones and of each block."""
    blocks = lower_blocks_of(backbone)
    widths = [block_widths(backbone)[block] for block in blocks]
    return [n_features - sum(widths), *widths]


def call_backbone(backbone: nn.Module, images: Tensor) -> Any:
    """Run a backbone on images as it likes them, and return what it gives."""
    blocks = lower_blocks_of(backbone)
    return _beside(backbone, images, blocks) if blocks else backbone(images)


def chosen(n_blocks: int) -> list[int]:
    """Choose of so many blocks at most four, at equal distances up to the last."""
    n_chosen = min(n_blocks, MOST_BLOCKS)
    return [-(-n_blocks * place // n_chosen) - 1 for place in range(1, n_chosen + 1)]


def _beside(backbone: Any, images: Tensor, blocks: Sequence[int]) -> Tensor:
    """Return last features and means of blocks over height and width: -> (n, n_features)."""
    last, maps = backbone.forward_intermediates(images, indices=list(blocks))
    means = [of_block.mean(dim=(2, 3)) for of_block in maps]
    return torch.cat([backbone.forward_head(last), *means], dim=1)
