"""Stochastic depth: residual blocks of a backbone that are left out at random while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

# Of the last block; measured on ten images a class. BEiT's fine-tuning has the same.
DROP_PATH = 0.1
PLACES = ("drop_path", "drop_path1", "drop_path2")  # timm's names, in blocks of all its networks


@contextmanager
def stochastic_depth(backbone: nn.Module, rate: float = DROP_PATH) -> Iterator[None]:
    """Leave out blocks of a timm backbone for single samples, deeper ones more often [1]_.

    Its layers are as before in the end, so that nothing that is saved or exported knows of it.
    Blocks that drop their paths already, and layers that timm did not make, stay as they are.

    References
    ----------
    .. [1] Huang, G. et al. "Deep Networks with Stochastic Depth", arXiv:1603.09382, 2016.
    """
    from timm.layers import DropPath

    places = [
        [(block, name, getattr(block, name)) for name in PLACES if hasattr(block, name)]
        for block in backbone.modules()
    ]
    blocks = [found for found in places if found]
    emptied = [
        (block, name, before, rate * depth / (len(blocks) - 1))
        for depth, found in enumerate(blocks)
        for block, name, before in found
        if depth and (before is None or type(before) is nn.Identity)
    ]
    try:
        for block, name, _, share in emptied:
            setattr(block, name, DropPath(share).train(block.training))
        yield
    finally:
        for block, name, before, _ in emptied:
            if before is None:  # else torch would keep it as a layer that is None
                delattr(block, name)
            setattr(block, name, before)
