"""A backbone runs on images; one of timm's may add means of lower blocks to its last features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

PIXELS_AT_ONCE = 8 * 224 * 224  # measured: EfficientNet-Lite0 at 64 and 224 pixels
# What a backbone raises on an image of another size than it can take, and what it does not mean.
UNSUITABLE = (RuntimeError, AssertionError, IndexError)
OF_DEVICE = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))
MAX_BLOCKS = 4  # of twelve of a transformer these are as good as all

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

    Their activations fit the processor's caches: at 224 pixels a convolutional network then
    takes a quarter to two thirds of the time of one batch of 128. The split is outside of the
    network, since a compiler or an exporter would take the number of parts for a constant.

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
    """Run a backbone on one image; the width that it reports is not always right.

    Shapes: image (C, H, W).
    """
    try:
        with torch.no_grad():
            features = call_backbone(module, image[None])
    except (*UNSUITABLE, ValueError) as error:
        explain_failure(module, image, error)
        raise
    return check_features(module, features, 1).shape[1]


def explain_failure(module: nn.Module, image: Tensor, error: Exception) -> None:
    """Raise a ValueError if a backbone failed because of an image (C, H, W), not of the device."""
    if isinstance(error, OF_DEVICE):
        return
    _explain_dtype_error(module, error)
    raise ValueError(
        f"backbone={type(module).__name__} can't take an image of {tuple(image.shape)}; "
        f"another image_size is required, None is the backbone's own ({error})"
    ) from error


def _explain_dtype_error(module: nn.Module, error: Exception) -> None:
    """Raise a ValueError if a backbone failed because it is not in float32."""
    dtypes = {p.dtype for p in module.parameters() if p.is_floating_point()} - {torch.float32}
    if dtypes and isinstance(error, RuntimeError) and "type" in str(error):
        raise ValueError(
            f"backbone={type(module).__name__} is in {', '.join(sorted(map(str, dtypes)))}, and "
            f"images come in float32: pass backbone.float(); precision=... is what to compute "
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
    """Check whether a backbone runs in channels-last format.

    timm's convolutions are faster so. A user's own module may rely on the usual strides.
    """
    return type(module).__module__.startswith("timm.")


def give_lower_blocks(backbone: nn.Module, n_channels: int, image_size: int) -> None:
    """Let a timm backbone give means of lower blocks next to its last features, if it can.

    The last features suit images like those that it was trained on; lower blocks help with others.
    The last block is left out where its mean is the last features, as in a ResNet.
    """
    widths = block_widths(backbone)
    shape = (1, n_channels, image_size, image_size)
    image = torch.linspace(0, 1, math.prod(shape)).reshape(shape)
    try:
        with torch.no_grad():
            last, both = backbone(image), _with_blocks(backbone, image, range(len(widths)))
    except Exception:  # timm can't look into this architecture; it runs without, or not at all
        return
    if widths and both.shape == (1, last.shape[1] + sum(widths)):
        repeated = torch.allclose(both[:, -last.shape[1] :], last, rtol=1e-4)
        set_lower_blocks(backbone, choose_blocks(len(widths) - repeated))


def set_lower_blocks(backbone: nn.Module, blocks: Sequence[int]) -> None:
    """Let a timm backbone give means of these blocks next to its last features."""
    backbone.lower_blocks = tuple(blocks)  # type: ignore[assignment]


def lower_blocks_of(backbone: nn.Module | None) -> tuple[int, ...]:
    """Return the blocks whose means a backbone gives next to its last features."""
    return getattr(backbone, "lower_blocks", ())


def block_widths(backbone: Any) -> list[int]:
    """Return the channels of each block that timm can show of a backbone."""
    known = getattr(backbone, "feature_info", None)
    return [info["num_chs"] for info in known] if isinstance(known, list) else []


def call_backbone(backbone: nn.Module, images: Tensor) -> Any:
    """Run a backbone on images in its memory format, and return what it gives."""
    blocks = lower_blocks_of(backbone)
    return _with_blocks(backbone, images, blocks) if blocks else backbone(images)


def choose_blocks(n_blocks: int) -> list[int]:
    """Choose at most four blocks, at equal distances up to the last."""
    n_chosen = min(n_blocks, MAX_BLOCKS)
    return [-(-n_blocks * place // n_chosen) - 1 for place in range(1, n_chosen + 1)]


def _with_blocks(backbone: Any, images: Tensor, blocks: Sequence[int]) -> Tensor:
    """Return last features and means of blocks over height and width: -> (n, n_features)."""
    last, maps = backbone.forward_intermediates(images, indices=list(blocks))
    means = [of_block.mean(dim=(2, 3)) for of_block in maps]
    return torch.cat([backbone.forward_head(last), *means], dim=1)
