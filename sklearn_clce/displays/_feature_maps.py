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

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from .._network import Network
from ..backbones import run_backbone

ATTENTION = ("attn", "attention")  # in the name of a layer or its class
ROUNDING = 2  # places by which a map may be off the aspect of an image that is not square


@dataclass(frozen=True)
class Place:
    """Where the map of a backbone is: what a layer takes or gives, and how it is arranged."""

    layer: nn.Module
    is_input: bool
    to_map: Callable[[Tensor], Tensor]  # -> (n, C, h, w)
    call: int  # of the layer, which may be called more than once in a run


@dataclass(frozen=True)
class Attributed:
    """What a class rests on in an image: map (h, w)."""

    map: Tensor
    target: int
    probability: float


def attribute(module: Network, image: Tensor, target: int | None) -> Attributed:
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
    inside = _inside_attention(backbone)
    calls: Counter[nn.Module] = Counter()
    place: Place | None = None
    place_of_tokens: Place | None = None

    def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal place, place_of_tokens
        call = calls[layer]
        calls[layer] += 1
        if layer is last and isinstance(inputs[0], Tensor) and inputs[0].ndim == 3:
            grid = _grid(backbone, inputs[0].shape[:2], image.shape)
            place_of_tokens = None if grid is None else Place(last, True, grid, call)
        if isinstance(output, Tensor) and output.ndim == 4 and layer not in inside:
            to_map = _arrangement(output.shape[1:], image.shape[-2:])
            place = place if to_map is None else Place(layer, False, to_map, call)

    handles = [layer.register_forward_hook(look) for layer in backbone.modules()]
    try:
        with torch.no_grad():
            run_backbone(backbone, image)
    finally:
        for handle in handles:
            handle.remove()
    place = place_of_tokens or place
    if place is None:
        raise ValueError(
            f"backbone={type(backbone).__name__} has no layer that gives a map of places "
            "(n, C, height, width), so its scores can't be attributed to any"
        )
    return place


@contextmanager
def caught(place: Place) -> Iterator[list[Tensor]]:
    """Note the map of the next run, made such that a gradient can be asked of it."""
    found: list[Tensor] = []
    calls = count()

    def catch(map_: Tensor) -> Tensor:
        if next(calls) != place.call:
            return map_
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


def _grid(
    backbone: Any, shape: Sequence[int], image_shape: Sequence[int]
) -> Callable[[Tensor], Tensor] | None:
    """Return what arranges tokens as a map, if they are those of a square grid.

    Shapes: (n, n_tokens) of the tokens, (1, C, H, W) of the image.
    """
    n, n_tokens = shape
    if n != image_shape[0] or image_shape[2] != image_shape[3]:
        return None
    # the class token and registers come first, or only behind the last block
    for n_others in (getattr(backbone, "num_prefix_tokens", 0), 0):
        side = math.isqrt(max(n_tokens - n_others, 0))
        if side > 1 and n_others + side**2 == n_tokens:
            return partial(_tokens_as_map, n_others=n_others, side=side)
    return None


def _tokens_as_map(tokens: Tensor, *, n_others: int, side: int) -> Tensor:
    return tokens[:, n_others:].transpose(1, 2).unflatten(2, (side, side))


def _inside_attention(backbone: nn.Module) -> set[nn.Module]:
    """Return the layers in attention: what they give, such as a weight for each pair, is no map."""
    return {
        layer
        for path, module in backbone.named_modules()
        if path and any(word in _names(path, module) for word in ATTENTION)
        for layer in module.modules()
        if layer is not module
    }


def _names(path: str, module: nn.Module) -> str:
    return f"{path.rpartition('.')[2]} {type(module).__name__}".lower()


def _arrangement(shape: Sequence[int], size: Sequence[int]) -> Callable[[Tensor], Tensor] | None:
    """Tell channels first from channels last by which two axes have the aspect of the image.

    None: neither, so it is no map. Shapes: (3,) of an output, (2,) of the image.
    """
    if _has_aspect(shape[1:], size):
        return _as_it_is
    return _channels_first if _has_aspect(shape[:2], size) else None


def _has_aspect(places: Sequence[int], size: Sequence[int]) -> bool:
    (h, w), (height, width) = places, size
    if min(h, w) < 2 or height == width:
        return h == w > 1
    return abs(h * width - w * height) <= ROUNDING * max(height, width)


def _channels_first(map_: Tensor) -> Tensor:
    return map_.permute(0, 3, 1, 2)


def _as_it_is(map_: Tensor) -> Tensor:
    return map_
