"""Image pipelines: from one image as it was read to what a backbone wants."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .backbones import BackboneConfig


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
            Pixels in 0..1; C is 1 (grey), 3 (RGB) or 4 (RGB and alpha, which is
            dropped).

        Returns
        -------
        Tensor of shape (n_channels, image_size, image_size), float32
            Pixels in 0..1.
        """
        image = image[:3]
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
    """Turn grey into RGB, or RGB into grey."""
    from torchvision.transforms.v2.functional import grayscale_to_rgb, rgb_to_grayscale

    if len(image) == n_channels:
        return image
    return grayscale_to_rgb(image) if n_channels == 3 else rgb_to_grayscale(image)
