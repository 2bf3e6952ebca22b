"""From a picture as it was decoded to what a backbone wants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones import BackboneConfig

LONGEST = 2  # times the shorter side; of longer pictures the middle is looked at
AREA_SHARES = (0.5, 1.0)  # of the picture, that a random crop takes
ASPECTS = (3 / 4, 4 / 3)
TRIES = 10


@dataclass(frozen=True)
class EvaluationTransform:
    """Resize and crop one image as the backbone's own evaluation does.

    Normalisation by mean and standard deviation is left to the module, on the
    device.
    """

    config: BackboneConfig
    n_numbers = 0  # that are drawn for each image

    @property
    def at_least(self) -> int | None:
        """Pixels of the shorter side that are needed; None: all."""
        size = self.config.image_size
        return None if size is None else math.floor(size / self.config.crop_pct)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Shape of what a batch stacks; None: each picture has its own."""
        size = self.config.image_size
        return None if size is None else (self.config.n_channels, size, size)

    def __call__(self, picture: Tensor) -> Tensor:
        """Transform one picture: picture (C, H, W) -> (n_channels, image_size, image_size)."""
        if self.at_least is not None:
            picture = self._crop(self._resize(self._middle(picture), self.at_least))
        return to_channels(picture, self.config.n_channels)

    def finish(self, picture: Tensor, numbers: Tensor | None) -> Tensor:
        """Return what a batch stacks: the transformed picture."""
        return picture

    def _middle(self, picture: Tensor) -> Tensor:
        """Cut the ends of a long picture, which the central crop never sees."""
        if self.config.crop_mode == "squash":
            return picture
        height, width = picture.shape[1:]
        longest = LONGEST * min(height, width)
        top, left = (max(0, side - longest) // 2 for side in (height, width))
        return picture[:, top : height - top, left : width - left]

    def _resize(self, picture: Tensor, side: int) -> Tensor:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        size = [side, side] if self.config.crop_mode == "squash" else [side]
        mode = InterpolationMode(self.config.interpolation)
        resized = resize(picture, size, interpolation=mode, antialias=True)
        return resized if resized.dtype == torch.uint8 else resized.clamp(0, 1)

    def _crop(self, picture: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import center_crop

        return center_crop(picture, [self.config.image_size])


class RandomCrops(EvaluationTransform):
    """Crops of a picture at random, half of them mirrored.

    They are cut from the whole picture, as far as the evaluation could see it, at the
    resolution that the smallest of them needs. As in torchvision's RandomResizedCrop a
    crop is a share of the area, with an aspect near 1.
    """

    n_numbers = 2 * TRIES + 3

    @property
    def at_least(self) -> int | None:
        """Pixels of the shorter side that are needed; None: all."""
        size = self.config.image_size
        return None if size is None else math.ceil(size / math.sqrt(AREA_SHARES[0]))

    def __call__(self, picture: Tensor) -> Tensor:
        """Reduce a picture (C, H, W) to what its crops need."""
        side = self.at_least
        if side is None:
            return picture
        picture = self._middle(picture)
        height, width = picture.shape[1:]
        if self.config.crop_mode == "squash":
            size = [min(side, height), min(side, width)]
        else:
            scale = min(1.0, side / math.sqrt(height * width))
            size = [max(1, round(scale * height)), max(1, round(scale * width))]
        return interpolate(picture, size, self.config.interpolation)

    def finish(self, picture: Tensor, numbers: Tensor | None) -> Tensor:
        """Cut one crop, by random numbers in 0..1."""
        assert numbers is not None
        height, width = picture.shape[1:]
        drawn = numbers.tolist()
        top, left, crop_height, crop_width = _random_box(drawn, height, width)
        crop = picture[:, top : top + crop_height, left : left + crop_width]
        size = self.config.image_size
        crop = interpolate(crop, [height, width] if size is None else [size, size], "bilinear")
        crop = to_channels(crop, self.config.n_channels)
        return crop.flip(-1) if drawn[-1] < 0.5 else crop


def interpolate(picture: Tensor, size: list[int], mode: str) -> Tensor:
    """Resize a picture (C, H, W) with antialiasing, uint8 or float32 in 0..1."""
    if list(picture.shape[1:]) == size:
        return picture
    mode = mode if mode in ("bilinear", "bicubic") else "bilinear"
    # a batch of one that torch sees the order in memory of: colours side by side are resized in
    # a quarter of the time
    batch = picture.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(batch, size, mode=mode, antialias=True)[0]
    return resized if resized.dtype == torch.uint8 else resized.clamp(0, 1)


def to_channels(picture: Tensor, n_channels: int) -> Tensor:
    """Turn grey into RGB, or RGB into grey; other channels must be the backbone's."""
    from torchvision.transforms.v2.functional import grayscale_to_rgb, rgb_to_grayscale

    if len(picture) == n_channels:
        return picture
    if {len(picture), n_channels} != {1, 3}:
        raise ValueError(
            f"X holds images of {len(picture)} channels, and the backbone takes {n_channels}"
        )
    return grayscale_to_rgb(picture) if n_channels == 3 else rgb_to_grayscale(picture)


def _random_box(numbers: list[float], height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop within a picture."""
    low, high = map(math.log, ASPECTS)
    for share, aspect in zip(numbers[:TRIES], numbers[TRIES : 2 * TRIES], strict=True):
        area = height * width * (AREA_SHARES[0] + share * (AREA_SHARES[1] - AREA_SHARES[0]))
        aspect = math.exp(low + aspect * (high - low))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            break
    else:  # a picture too long for any of them: its middle
        crop_width = min(width, max(1, round(height * ASPECTS[1])))
        crop_height = min(height, max(1, round(width / ASPECTS[0])))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
    down, right = numbers[2 * TRIES : 2 * TRIES + 2]
    top, left = int(down * (height - crop_height + 1)), int(right * (width - crop_width + 1))
    return top, left, crop_height, crop_width
