"""Image pipelines: from one image as it was read to what a backbone wants."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backbones import BackboneConfig


@dataclass(frozen=True)
class EvaluationTransform:
    """Resize and crop one image as the backbone's own evaluation does.

    Normalisation by mean and standard deviation is left to the module, on the
    device.

    Parameters
    ----------
    config : BackboneConfig
        What the backbone wants.
    """

    config: BackboneConfig

    def __call__(self, image: Tensor) -> Tensor:
        """Transform one image.

        Parameters
        ----------
        image : Tensor of shape (C, H, W), float32
            Pixels in 0..1; C is 1 (grey), 3 (RGB), or what the backbone takes.

        Returns
        -------
        Tensor of shape (n_channels, image_size, image_size), float32
            Pixels in 0..1.
        """
        if self.config.image_size is not None:
            image = self._crop(self._resize(image))
        return _to_channels(image, self.config.n_channels).contiguous()

    def _resize(self, image: Tensor) -> Tensor:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        scaled = math.floor(self.config.image_size / self.config.crop_pct)
        size = [scaled, scaled] if self.config.crop_mode == "squash" else [scaled]
        mode = InterpolationMode(self.config.interpolation)
        return resize(image, size, interpolation=mode, antialias=True).clamp(0, 1)

    def _crop(self, image: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import center_crop

        return center_crop(image, [self.config.image_size])


def _to_channels(image: Tensor, n_channels: int) -> Tensor:
    """Turn grey into RGB, or RGB into grey; other channels must be the backbone's."""
    from torchvision.transforms.v2.functional import grayscale_to_rgb, rgb_to_grayscale

    if len(image) == n_channels:
        return image
    if {len(image), n_channels} != {1, 3}:
        raise ValueError(
            f"X holds images of {len(image)} channels, and the backbone takes {n_channels}"
        )
    return grayscale_to_rgb(image) if n_channels == 3 else rgb_to_grayscale(image)


class Augmentation:
    """Random changes of each image in a batch, that leave its label as it is.

    Photographs (colour) are cropped at random, mirrored, and changed in brightness and
    contrast. Grey images, such as digits, letters and scans, are turned, moved and
    scaled a little and never mirrored, because a mirrored letter is another one.

    Parameters
    ----------
    grey : bool
        Whether the images are grey.
    """

    def __init__(self, grey: bool) -> None:
        self.grey = grey

    def __call__(self, images: Tensor) -> Tensor:
        """Augment a batch.

        Parameters
        ----------
        images : Tensor of shape (n, C, H, W), float32
            Pixels in 0..1.

        Returns
        -------
        Tensor of shape (n, C, H, W), float32
            Pixels in 0..1, each image changed on its own.
        """
        change = _for_grey() if self.grey else _for_photos(images.shape[-2:])
        return torch.stack([change(image) for image in images]).clamp(0, 1)


def is_grey(image: Tensor) -> bool:
    """Tell whether an image has no colour.

    Parameters
    ----------
    image : Tensor of shape (C, H, W)
        Pixels.

    Returns
    -------
    bool
        True for one channel, or where red, green and blue agree.
    """
    return bool((image == image[:1]).all())


def _for_grey() -> Callable[[Tensor], Tensor]:
    from torchvision.transforms.v2 import InterpolationMode, RandomAffine

    return RandomAffine(
        degrees=10,
        translate=(0.08, 0.08),
        scale=(0.9, 1.1),
        interpolation=InterpolationMode.BILINEAR,
    )


def _for_photos(size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms.v2 import (
        ColorJitter,
        Compose,
        RandomHorizontalFlip,
        RandomResizedCrop,
    )

    return Compose(
        [
            RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True),
            RandomHorizontalFlip(),
            ColorJitter(brightness=0.2, contrast=0.2),
        ]
    )
