"""On which parts of an image a score rests: Grad-CAM on the last map that keeps places apart [1]_.

The mean gradient of the score weighs the channels of the map. Activations are counted from their
mean over all places: what places have in common tells nothing about any of them, and in a
transformer is most of them, so that raw activations point anywhere. Convolutional networks keep
their places to the end. In a transformer the map is the input of the last block, because behind
that the class token may be all that is read.

References
----------
.. [1] Selvaraju, R. R. et al. "Grad-CAM: Visual Explanations from Deep Networks via
   Gradient-based Localization", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._training import CLCEModule
from ..backbones import run_backbone


@dataclass(frozen=True)
class Place:
    """Where the map of a backbone is: what a layer takes or gives, and how it is arranged."""

    layer: nn.Module
    is_input: bool
    to_map: Callable[[Tensor], Tensor]  # -> (n, C, h, w)


@dataclass(frozen=True)
class Attributed:
    """What a class rests on in an image: map (h, w)."""

    map: Tensor
    target: int
    probability: float


def attribute(module: CLCEModule, image: Tensor, target: int | None) -> Attributed:
    """Attribute the score of a class, against the mean of all, to the places of an image.

    ``target`` is the index of the class; None: the one with the highest score.
    Shapes: image (1, C, H, W) in 0..1.
    """
    backbone, normalize = module.backbone, module.normalize
    assert backbone is not None  # it has read images
    assert normalize is not None
    module.eval()
    image = normalize(image)
    place = find_map(backbone, image)
    with torch.enable_grad(), caught(place) as found:
        logits = module.forward(run_backbone(backbone, image))[0][0]  # (n_classes,)
        target = int(logits.argmax()) if target is None else target
        activation = found[-1]
        (gradient,) = torch.autograd.grad(logits[target] - logits.mean(), activation)
    map_ = place.to_map(activation.detach())[0]  # (C, h, w)
    weights = place.to_map(gradient)[0].mean(dim=(1, 2))  # (C,)
    return Attributed(
        torch.einsum("c,chw->hw", weights, map_ - map_.mean(dim=(1, 2), keepdim=True)).float(),
        target,
        float(logits.detach().softmax(dim=0)[target]),
    )


def find_map(backbone: nn.Module, image: Tensor) -> Place:
    """Find the last map of places in a backbone: image (1, C, H, W).

    Raises a ValueError where there is none.
    """
    blocks = getattr(backbone, "blocks", None)
    last = None if blocks is None or not len(blocks) else blocks[-1]
    tokens: list[Tensor] = []
    place: Place | None = None

    def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal place
        if layer is last and isinstance(inputs[0], Tensor) and inputs[0].ndim == 3:
            tokens.append(inputs[0])
        if isinstance(output, Tensor) and output.ndim == 4:
            to_map = _channels_first if _is_nhwc(backbone) else _as_it_is
            if min(to_map(output).shape[-2:]) > 1:
                place = Place(layer, False, to_map)

    handles = [layer.register_forward_hook(look) for layer in backbone.modules()]
    try:
        with torch.no_grad():
            run_backbone(backbone, image)
    finally:
        for handle in handles:
            handle.remove()
    if tokens and last is not None:
        grid = _grid(backbone, tokens[0].shape[1])
        if grid is not None:
            return Place(last, True, grid)
    if place is None:
        raise ValueError(
            f"backbone={type(backbone).__name__} has no layer that gives a map of places "
            "(n, C, height, width), so its scores can't be attributed to any"
        )
    return place


@contextmanager
def caught(place: Place) -> Iterator[list[Tensor]]:
    """Note the map of each run, made such that a gradient can be asked of it."""
    found: list[Tensor] = []

    def catch(map_: Tensor) -> Tensor:
        found.append(map_.detach().requires_grad_())
        return found[-1].clone()  # what follows may work in place

    if place.is_input:
        handle = place.layer.register_forward_pre_hook(
            lambda _, inputs: (catch(inputs[0]), *inputs[1:])
        )
    else:
        handle = place.layer.register_forward_hook(lambda _, __, output: catch(output))
    try:
        yield found
    finally:
        handle.remove()


def _grid(backbone: Any, n_tokens: int) -> Callable[[Tensor], Tensor] | None:
    """Return what arranges tokens (n, n_tokens, C) as a map, if they are those of a grid."""
    n_others = getattr(backbone, "num_prefix_tokens", 0)  # the class token and registers
    side = round((n_tokens - n_others) ** 0.5)
    if n_others + side**2 != n_tokens or side < 2:
        return None

    def to_map(tokens: Tensor) -> Tensor:
        return tokens[:, n_others:].transpose(1, 2).unflatten(2, (side, side))

    return to_map


def _is_nhwc(backbone: Any) -> bool:
    return getattr(backbone, "output_fmt", None) == "NHWC"


def _channels_first(map_: Tensor) -> Tensor:
    return map_.permute(0, 3, 1, 2)


def _as_it_is(map_: Tensor) -> Tensor:
    return map_
