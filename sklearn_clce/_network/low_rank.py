"""Low-rank adaptation: a large layer stays as it is, a product of two thin ones is learned [1]_.

References
----------
.. [1] Hu, E. J. et al. "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LowRankLinear(nn.Module):
    """A linear layer that is fixed, and what is learned of it: ``up @ down``, at first 0.

    Some backbones, such as BEiT, read the weight of a layer instead of calling it. They get the
    sum, which is right and takes the memory of the whole weight.
    """

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        like: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.down = nn.Parameter(torch.empty(rank, base.in_features, **like))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, **like))
        drawn = torch.empty(rank, base.in_features)  # on the CPU, where the generator is
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        self.down.data.copy_(drawn)

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return self.base.in_features

    @property
    def out_features(self) -> int:
        """Width of the output."""
        return self.base.out_features

    @property
    def weight(self) -> Tensor:
        """The weight as it is now: (out_features, in_features)."""
        return self.base.weight + self.up @ self.down

    @property
    def bias(self) -> Tensor | None:
        """The bias, which stays."""
        return self.base.bias

    def forward(self, batch: Tensor) -> Tensor:
        """Map a batch (..., in_features) -> (..., out_features)."""
        if not self.training:  # bit for bit as the merged layer
            return F.linear(batch, self.weight, self.bias)
        return self.base(batch) + F.linear(F.linear(batch, self.down), self.up)

    def merged(self) -> nn.Linear:
        """Return the layer with the learned product added to its weight."""
        with torch.no_grad():
            self.base.weight += self.up @ self.down
        return self.base


def adapt(backbone: nn.Module, rank: int, seed: int) -> None:
    """Make the linear layers of a backbone adaptable, and fix all else."""
    generator = torch.Generator().manual_seed(seed)
    backbone.requires_grad_(False)
    adapted: dict[nn.Module, LowRankLinear] = {}  # a layer may be in several places
    for parent in list(backbone.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                adapted.setdefault(layer, LowRankLinear(layer, rank, generator))
                setattr(parent, name, adapted[layer])
    if not adapted:
        raise ValueError(
            f"trainable='lora': backbone={type(backbone).__name__} has no linear layers, as "
            "transformers and ConvNeXt have; a number of blocks, 'all' or 'head' is required"
        )


def merge(backbone: nn.Module) -> None:
    """Put plain layers in the place of adapted ones."""
    merged: dict[nn.Module, nn.Linear] = {}
    for parent in list(backbone.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LowRankLinear):
                if layer not in merged:
                    merged[layer] = layer.merged()
                setattr(parent, name, merged[layer])


def is_adapted(backbone: nn.Module) -> bool:
    """Return whether a backbone has low-rank layers to train."""
    return any(isinstance(layer, LowRankLinear) for layer in backbone.modules())
