"""Random changes of a batch of images, on its device, that leave the labels as they are."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ._sequences import Images, evenly_spaced_indices

BRIGHTNESS, CONTRAST = 0.2, 0.2  # up to this much more or less
GREY_WEIGHTS = (0.299, 0.587, 0.114)
DEGREES, SHIFT, SCALE = 10, 0.08, 0.1
ENOUGH_TO_JUDGE = 64  # pixels of the shorter side that tell whether a picture is grey


class Augmentation:
    """Random changes of each image in a batch, that leave its label as it is.

    Photographs (colour) are changed in brightness and contrast; :class:`RandomCrops`
    has cropped and mirrored them as they were read. Grey images, such as digits, letters
    and scans, are turned, moved and scaled a little and never mirrored, because a
    mirrored letter is another one.
    """

    def __init__(self, grey: bool) -> None:
        self.grey = grey

    def __call__(self, images: Tensor) -> Tensor:
        """Augment a batch of images (n, C, H, W) in 0..1, each on its own, perhaps in place."""
        return move_a_little(images) if self.grey else change_light(images)


def change_light(images: Tensor) -> Tensor:
    """Change brightness and contrast of each image in a batch (n, C, H, W) in 0..1, in place."""
    n, n_channels = images.shape[:2]
    brightness = _sent(_around_one(n, BRIGHTNESS), images.device)  # (n, 1, 1, 1)
    contrast = _sent(_around_one(n, CONTRAST), images.device)
    weights = GREY_WEIGHTS if n_channels == 3 else (1 / n_channels,) * n_channels
    grey = images.mean((2, 3)) @ _sent(torch.tensor(weights), images.device)  # (n,)
    middle = (1 - contrast) * brightness * grey.view(-1, 1, 1, 1)
    return images.mul_(contrast * brightness).add_(middle).clamp_(0, 1)


def move_a_little(images: Tensor) -> Tensor:
    """Turn, move and scale each image in a batch (n, C, H, W); what comes in is black."""
    n, (height, width) = len(images), images.shape[2:]
    angle = math.radians(DEGREES) * (2 * torch.rand(n) - 1)
    scale = _around_one(n, SCALE).flatten()
    shift = 2 * SHIFT * (2 * torch.rand(n, 2) - 1)  # of half a side, which is 1 in a grid
    cos, sin = angle.cos() / scale, angle.sin() / scale
    turns = torch.stack([cos, sin * height / width, -sin * width / height, cos], 1).view(n, 2, 2)
    moves = -turns @ shift[:, :, None]
    where = _sent(torch.cat([turns, moves], dim=2), images.device)  # (n, 2, 3)
    grid = F.affine_grid(where, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def is_grey(image: Tensor) -> bool:
    """Tell whether an image has no colour: image (C, H, W)."""
    return bool((image == image[:1]).all())


def all_grey(images: Images) -> bool:
    """Judge whether images are grey by some that are spread over all of them."""
    looked_at = evenly_spaced_indices(len(images))
    return all(is_grey(images.picture(index, ENOUGH_TO_JUDGE)) for index in looked_at)


def _around_one(n: int, width: float) -> Tensor:
    """Draw on the CPU, so that a seed means the same on every device: (n, 1, 1, 1)."""
    return 1 + width * (2 * torch.rand(n, 1, 1, 1) - 1)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """Send values to a device without waiting until they are there."""
    return values.to(device, non_blocking=True)
