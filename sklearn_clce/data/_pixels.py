"""Numbers as pixels: their range, where the channels are, what counts as white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IMAGE_CHANNELS = (1, 3, 4)
ROUNDING = 1e-5  # how far float pixels may lie outside 0..1


@dataclass(frozen=True)
class PixelRules:
    """How numbers are to be read as pixels."""

    max_pixel_value: float | None = None  # of integers; None: 255, or the highest of a 16-bit dtype
    n_channels: int | None = None  # all kept; None: grey, RGB, or RGB and alpha

    def max_value_of(self, dtype: np.dtype) -> float:
        """Return the largest value (white) of an array of a dtype."""
        if dtype.kind not in "ui":
            return 1
        if self.max_pixel_value is not None:
            return min(self.max_pixel_value, 255) if dtype.itemsize == 1 else self.max_pixel_value
        return np.iinfo(dtype).max if dtype.itemsize == 2 else 255


@dataclass(frozen=True)
class Pixels:
    """The numbers of one image, and how they are to be read."""

    array: np.ndarray
    axis: int | None  # of the channels
    rules: PixelRules
    is_white_known: bool = False  # as in a file in colour
    has_more_pages: bool = False  # their file does, of which this is the first

    @property
    def white(self) -> float:
        """The largest value that the numbers can have."""
        return self.rules.max_value_of(self.array.dtype)

    def to_image(self) -> Tensor:
        """Return a (C, H, W) tensor: uint8 where 8 bits hold the pixels, else float32."""
        array, white = self.array, self.white
        if array.dtype.kind == "b":
            array, white = array.astype(np.uint8) * 255, 255
        if self.axis is None:
            array = array[None]
        elif self.axis == 2:
            array = array.transpose(2, 0, 1)
        if array.dtype.kind in "ui" and white == 255:
            image = torch.from_numpy(_writeable(array, np.uint8))
        else:
            image = torch.from_numpy(_writeable(array, np.float32))
            image = (image / white).clamp(0, 1)
        return image if self.rules.n_channels is not None or len(image) != 4 else on_white(image)


def check_pixels(array: np.ndarray, where: str, rules: PixelRules) -> None:
    """Raise a ValueError if pixels (n, ...) are not numbers from black to white."""
    if array.dtype.kind not in "buif":
        raise ValueError(f"{where} has dtype {array.dtype}: pixels are integers, floats or bool")
    if array.size == 0:
        raise ValueError(f"{where} of shape {array.shape} holds no pixels: 0 feature(s)")
    largest = rules.max_value_of(array.dtype)
    if array.dtype.kind == "b" or (array.dtype == np.uint8 and largest >= 255):
        return
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{_first(array, where, ~np.isfinite(array))} contains NaN or infinity")
    slack = ROUNDING if array.dtype.kind == "f" else 0
    if low < -slack or high > largest + slack:
        bad = _first(array, where, (array < -slack) | (array > largest + slack))
        kind = f"integers of {array.dtype} with max_pixel_value={rules.max_pixel_value!r}"
        raise ValueError(
            f"{bad} has pixels in {low:.6g}..{high:.6g}: "
            f"{'floats' if array.dtype.kind == 'f' else kind} must lie in 0..{largest:.6g}; "
            + _remedy(array.dtype, has_negative=low < -slack)
        )


def _remedy(dtype: np.dtype, *, has_negative: bool) -> str:
    """Say what to do about pixels out of range."""
    if has_negative:
        return (
            "undo a normalisation, as X * std + mean, or (X + 1) / 2 for -1..1; map other values, "
            "such as Hounsfield units, from a range low..high that is the same for all images, as "
            "np.clip((X - low) / (high - low), 0, 1)"
        )
    remedy = "divide by the highest value that your images can have"
    return remedy if dtype.kind == "f" else remedy + ", or give it as max_pixel_value=..."


def channel_axis(shape: tuple[int, ...], where: str, rules: PixelRules) -> int | None:
    """Find the axis of one image that holds channels; where two could, it is the last."""
    wanted = IMAGE_CHANNELS if rules.n_channels is None else (rules.n_channels,)
    if len(shape) == 2 and 1 in wanted:
        return None
    if len(shape) == 3 and shape[2] in wanted:
        return 2
    if len(shape) == 3 and shape[0] in wanted:
        return 0
    channels = ", ".join(map(str, wanted[:-1])) + " or " * (len(wanted) > 1) + str(wanted[-1])
    raise ValueError(
        f"{where} holds an image of shape {tuple(shape)}: (H, W), (H, W, C) or (C, H, W) with "
        f"{channels} channels is required; n_channels=... names another number for all images"
    )


def count_channels(shape: tuple[int, ...], n_channels: int | None) -> int | None:
    """Count the channels of images that are neither grey, RGB nor RGBA; else return None.

    Where neither the first nor the last axis has 1, 3 or 4, the shorter one of them holds
    the channels.
    """
    if n_channels is not None:
        return n_channels if n_channels not in (1, 3) else None
    if len(shape) != 3 or shape[2] in IMAGE_CHANNELS or shape[0] in IMAGE_CHANNELS:
        return None
    first, height, last = shape
    return min(first, last) if min(first, last) < height else None


def has_no_colour(image: Tensor) -> bool:
    """Check whether all channels of an image (C, H, W) are the same."""
    return all(torch.equal(image[0], channel) for channel in image[1:])


def on_white(image: Tensor) -> Tensor:
    """Blend a (4, H, W) image with alpha onto white."""
    colour, alpha = image[:3], image[3:]
    if image.dtype != torch.uint8:
        return colour * alpha + (1 - alpha)
    blended = colour.int() * alpha + 255 * (255 - alpha.int())
    return ((blended + 127) // 255).to(torch.uint8)


def as_float(image: Tensor, into: Tensor | None = None) -> Tensor:
    """Return pixels as float32 in 0..1, in the order in memory of their axes, perhaps ``into``."""
    if into is None:
        if image.dtype != torch.uint8:
            return image.contiguous()
        into = torch.empty(image.shape, dtype=torch.float32, device=image.device)
    into.copy_(image)
    return into.div_(255) if image.dtype == torch.uint8 else into


def _first(array: np.ndarray, where: str, bad: np.ndarray) -> str:
    """Name the first image with a bad pixel."""
    if where != "X":
        return where
    return f"X[{np.flatnonzero(bad.reshape(len(array), -1).any(axis=1))[0]}]"


def _writeable(pixels: np.ndarray, dtype: type) -> np.ndarray:
    """Return an array that torch may share: of its dtype, with strides it knows."""
    if pixels.dtype == dtype and pixels.flags.writeable and min(pixels.strides, default=0) >= 0:
        return pixels
    return pixels.astype(dtype)  # a copy, which keeps the order of the axes in memory
