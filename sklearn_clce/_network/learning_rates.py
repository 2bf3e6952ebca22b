"""Which parameter learns how fast: layer-wise rates, warm-up and cosine decay."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from .network import Network

PRETRAINED_RATE = 0.3  # share of the learning rate at which a pretrained backbone learns


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
