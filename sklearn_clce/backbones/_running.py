"""A backbone runs on images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ._lower_blocks import call_backbone

PIXELS_AT_ONCE = 8 * 224 * 224  # measured: EfficientNet-Lite0 at 64 and 224 pixels

Outputs = TypeVar("Outputs", Tensor, tuple[Tensor, Tensor])


class Normalize(nn.Module):
    """Subtract the mean of each channel and divide by its standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise a batch: images (n, C, H, W) -> (n, C, H, W)."""
        return (images - self.mean).div_(self.std)


def run_backbone(backbone: nn.Module, images: Tensor) -> Tensor:
    """Run a backbone on normalised images, in the memory format that it prefers.

    Shapes: images (n, C, H, W) -> (n, n_features).
    """
    if prefers_channels_last(backbone):
        images = images.contiguous(memory_format=torch.channels_last)
    return check_features(backbone, call_backbone(backbone, images), images.shape[0])


def run_in_parts(run: Callable[[Tensor], Outputs], images: Tensor) -> Outputs:
    """Infer from images; on the CPU a large batch runs in parts.

    Their activations are small enough to be reused: at 224 pixels a convolutional network then
    takes a quarter to two thirds of the time of one batch of 128. The network itself knows
    nothing of it, or a compiler and an exporter would take the number of parts for a constant.

    Shapes: images (n, C, H, W), or features (n, n_features), which run at once.
    """
    if images.ndim < 4 or images.is_cuda or torch.is_grad_enabled():
        return run(images)
    n_at_once = max(1, PIXELS_AT_ONCE // images[0].shape[-2:].numel())
    if n_at_once >= len(images):
        return run(images)
    outputs: Any = [run(part) for part in images.split(n_at_once)]
    together: Any = (
        torch.cat(outputs)
        if isinstance(outputs[0], Tensor)
        else tuple(map(torch.cat, zip(*outputs, strict=True)))
    )
    return together


def count_features(module: nn.Module, image: Tensor) -> int:
    """Run a backbone on one image; its own word for its width is not always right.

    Shapes: image (C, H, W).
    """
    try:
        with torch.no_grad():
            features = call_backbone(module, image[None])
    except (RuntimeError, AssertionError, ValueError) as error:
        explain_dtype_error(module, error)
        raise ValueError(
            f"backbone={type(module).__name__} can't take an image of {tuple(image.shape)}; "
            f"another image_size is required, None is the backbone's own ({error})"
        ) from error
    return check_features(module, features, 1).shape[1]


def explain_dtype_error(module: nn.Module, error: Exception) -> None:
    """Raise a ValueError of its own where a backbone failed because it is not in float32."""
    dtypes = {p.dtype for p in module.parameters() if p.is_floating_point()} - {torch.float32}
    if dtypes and isinstance(error, RuntimeError) and "type" in str(error):
        raise ValueError(
            f"backbone={type(module).__name__} is in {', '.join(sorted(map(str, dtypes)))}, and "
            f"images come in float32: hand in backbone.float(); precision=... is what to compute "
            f"in ({error})"
        ) from error


def check_features(module: nn.Module, features: Any, n: int) -> Tensor:
    """Return what a backbone gave for n images, if it is features: -> (n, d)."""
    if isinstance(features, Tensor) and features.ndim == 2 and features.shape[0] == n:
        return features
    got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    raise ValueError(
        f"backbone={type(module).__name__} gave {got} for a batch of {n} images: features of "
        "shape (n, n_features) are required, so pool over height and width"
    )


def prefers_channels_last(module: nn.Module | None) -> bool:
    """Tell whether a backbone runs in channels-last format.

    Its convolutions are faster so. A user's own module may rely on the usual strides.
    """
    return type(module).__module__.startswith("timm.")
