"""Which parts of a backbone are trainable: all, none, the upper blocks, or low-rank matrices."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

from torch import nn

from .low_rank import adapt
from .network import Network, is_trainable

TRAINED_SHARE = 2 / 3  # of the blocks of a pretrained backbone, from the top


def blocks_of(backbone: Any) -> list[list[str]]:
    """List the names of a timm backbone's parameters, block by block."""
    from timm.models import group_parameters

    if not hasattr(backbone, "group_matcher"):
        raise ValueError(
            f"backbone={type(backbone).__name__} does not list its blocks (timm's group_matcher): "
            "trainable must be 'auto', 'all' or 'head'"
        )
    groups = group_parameters(backbone, backbone.group_matcher(coarse=False))
    blocks = [groups[index] for index in sorted(groups)]
    parameters = dict(backbone.named_parameters())
    if len(blocks) > 1 and all(parameters[name].ndim < 2 for name in blocks[-1]):
        tail = blocks.pop()
        blocks[-1] += tail
    return blocks


def trainable_names(backbone: nn.Module, trainable: str | int) -> set[str]:
    """Name the parameters of a backbone that ``trainable`` asks for."""
    names = {name for name, _ in backbone.named_parameters()}
    if trainable == "head":
        return set()
    if trainable == "lora":
        return {name for name in names if name.endswith((".up", ".down"))}
    if isinstance(trainable, str):
        return names
    blocks = blocks_of(backbone)
    if trainable > len(blocks):
        raise ValueError(
            f"trainable={trainable!r}: the backbone has {len(blocks)} blocks; 'all' trains all"
        )
    return set(chain(*blocks[len(blocks) - trainable :]))


def freeze(backbone: nn.Module, trainable: str | int, fixed: frozenset[str] = frozenset()) -> None:
    """Freeze all parameters but the trainable ones, and those that are fixed for good."""
    names = trainable_names(backbone, trainable) - fixed
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in names)


def fixed_parameters(backbone: Any) -> frozenset[str]:
    """Name the parameters of a user's module that require no gradients; they stay as they are."""
    if not isinstance(backbone, nn.Module):
        return frozenset()
    return frozenset(name for name, p in backbone.named_parameters() if not p.requires_grad)


def resolve_trainable(trainable: str | int, backbone: nn.Module, *, pretrained: bool) -> str | int:
    """Decide "auto": the upper blocks of a pretrained backbone that lists them, else all."""
    if trainable != "auto":
        return trainable
    if not pretrained or not hasattr(backbone, "group_matcher"):
        return "all"
    return math.ceil(TRAINED_SHARE * len(blocks_of(backbone)))


def set_trainable(
    backbone: nn.Module,
    trainable: str | int,
    *,
    fixed: frozenset[str],
    lora_rank: int,
    seed: int,
    gradient_checkpointing: bool,
) -> None:
    """Freeze a backbone but for its trainable parameters, and save memory in training these."""
    if trainable == "lora":
        adapt(backbone, lora_rank, seed)
    freeze(backbone, trainable, fixed)
    if is_trainable(backbone):
        checkpoint_gradients(backbone, gradient_checkpointing)


def checkpoint_gradients(backbone: Any, on: bool) -> None:
    """Save memory at the price of time, or raise a ValueError."""
    if not (on or hasattr(backbone, "set_grad_checkpointing")):
        return
    try:
        backbone.set_grad_checkpointing(on)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        if on:
            raise ValueError(
                f"gradient_checkpointing=True: {type(backbone).__name__} does not support it"
            ) from error


def trainable_of(network: Network) -> str | int:
    """Return the trainable parts of a network, as the parameter ``trainable`` names them."""
    if network.lora:
        return "lora"
    if network.frozen or network.backbone is None:
        return "head"
    if network.trains_whole or not hasattr(network.backbone, "group_matcher"):
        return "all"  # of what requires gradients
    training = {name for name, p in network.backbone.named_parameters() if p.requires_grad}
    return sum(not training.isdisjoint(block) for block in blocks_of(network.backbone))
