"""Which parts of a backbone are trainable, and at which rate each learns."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

from torch import nn

from ..backbones import JoinedBackbone
from .low_rank import adapt
from .network import Network, is_trainable

TRAINED_SHARE = 2 / 3  # of the blocks of a pretrained backbone, from the top
PRETRAINED_RATE = 0.3  # share of the learning rate at which a pretrained backbone learns


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
    """Decide "auto": a head on several, the upper blocks that a pretrained one lists, or all."""
    if trainable != "auto":
        return trainable
    if isinstance(backbone, JoinedBackbone):
        return "head"
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


def resolve_layer_decay(backbone: nn.Module | None, layer_decay: float | str) -> float:
    """Decide the factor between the learning rates of neighbouring blocks."""
    if not isinstance(layer_decay, str):
        return layer_decay
    if backbone is None or not hasattr(backbone, "group_matcher"):
        return 1.0
    has_attention = any("Attention" in type(part).__name__ for part in backbone.modules())
    return 0.75 if has_attention else 0.95


def parameter_groups(
    network: Network, *, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Group parameters by learning rate and weight decay.

    New layers learn at ``learning_rate``; each block of the backbone at ``layer_decay``
    times the rate of the one above it, as in BEiT's fine-tuning [1]_, and all of a
    pretrained one at a share of that. Norms, biases and timm's own list (position
    embeddings) do not decay.

    References
    ----------
    .. [1] Bao, H. et al. "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022.
    """
    groups = _as_groups(network.head, weight_decay)
    if network.backbone is not None and network.lora:
        groups += _as_groups(network.backbone, weight_decay)  # its trainable parameters are new
    elif network.backbone is not None and not network.frozen:
        share = PRETRAINED_RATE if network.pretrained else 1.0
        for group in _backbone_groups(network.backbone, weight_decay, layer_decay):
            groups.append(group | {"lr_scale": group["lr_scale"] * share})
    merged: dict[tuple[float, float], list[nn.Parameter]] = {}
    for group in groups:  # few groups, because an optimizer steps group by group
        trained = [p for p in group["params"] if p.requires_grad]
        merged.setdefault((group.get("lr_scale", 1.0), group["weight_decay"]), []).extend(trained)
    return [
        {"params": parameters, "lr": learning_rate * scale, "weight_decay": decay}
        for (scale, decay), parameters in merged.items()
        if parameters
    ]


def _as_groups(layers: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Separate matrices and filters from norms and biases."""
    parameters = list(layers.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _backbone_groups(
    backbone: Any, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Ask timm; a module that does not know its blocks is one block."""
    from timm.optim import param_groups_layer_decay

    if not hasattr(backbone, "group_matcher"):
        groups = _as_groups(backbone, weight_decay)
    else:
        without_decay = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
        groups = param_groups_layer_decay(
            backbone,
            weight_decay=weight_decay,
            no_weight_decay_list=without_decay,
            layer_decay=layer_decay,
        )
    return [group | {"lr_scale": group.get("lr_scale", 1.0) * layer_decay} for group in groups]


def warmup_cosine(step: float, *, n_steps: int, warmup_fraction: float) -> float:
    """Return the share of its peak that the learning rate has at a step."""
    rising = warmup_fraction * n_steps
    if step < rising:
        return (step + 1) / (rising + 1)
    done = (step - rising) / max(n_steps - rising, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1)))
