"""From a decoded image to what a backbone takes, and random changes for training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import BackboneConfig, Config, pack

LONGEST = 2  # times the shorter side; only the centre of longer images is used
AREA_SHARES = (0.5, 1.0)  # of the image, that a random crop takes
ASPECTS = (3 / 4, 4 / 3)
TRIES = 10
BRIGHTNESS, CONTRAST = 0.2, 0.2  # up to this much more or less
GREY_WEIGHTS = (0.299, 0.587, 0.114)
DEGREES, SHIFT, SCALE = 10, 0.08, 0.1

_WHAT_AUGMENT_GETS = (
    "augment gets a batch of images as a float32 tensor (n, C, H, W) in 0..1, already resized, and "
    "must return another; the backbone's normalisation follows, so leave out ToTensor, Resize and "
    "Normalize"
)


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
        """Shape of what a batch stacks; None: each image has its own."""
        size = self.config.image_size
        return None if size is None else (self.config.n_channels, size, size)

    def __call__(self, image: Tensor) -> Tensor:
        """Transform one image: image (C, H, W) -> (n_channels, image_size, image_size)."""
        if self.at_least is not None:
            image = self._crop(self._resize(self._middle(image), self.at_least))
        return to_channels(image, self.config.n_channels)

    def finish(self, image: Tensor, numbers: Tensor | None) -> Tensor:
        """Return what a batch stacks: the transformed image."""
        return image

    def _middle(self, image: Tensor) -> Tensor:
        """Cut the ends of a long image, which the central crop never sees."""
        if self.config.crop_mode == "squash":
            return image
        height, width = image.shape[1:]
        longest = LONGEST * min(height, width)
        top, left = (max(0, side - longest) // 2 for side in (height, width))
        return image[:, top : height - top, left : width - left]

    def _resize(self, image: Tensor, side: int) -> Tensor:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        size = [side, side] if self.config.crop_mode == "squash" else [side]
        mode = InterpolationMode(self.config.interpolation)
        resized = resize(image, size, interpolation=mode, antialias=True)
        return resized if resized.dtype == torch.uint8 else resized.clamp(0, 1)

    def _crop(self, image: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import center_crop

        return center_crop(image, [self.config.image_size])


@dataclass(frozen=True)
class JoinedTransform:
    """Resize and crop one image for several backbones, for each as its own evaluation does."""

    parts: tuple[EvaluationTransform, ...]
    n_numbers = 0  # that are drawn for each image

    @property
    def at_least(self) -> int | None:
        """Pixels of the shorter side that are needed by the backbone that needs most."""
        return max(part.at_least or 0 for part in self.parts)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Shape of what a batch stacks."""
        return 1, 1, sum(math.prod(part.shape or ()) for part in self.parts)

    def __call__(self, image: Tensor) -> Tensor:
        """Transform one image: image (C, H, W) -> (1, 1, n_numbers)."""
        return pack([part(image) for part in self.parts])

    def finish(self, image: Tensor, numbers: Tensor | None) -> Tensor:
        """Return what a batch stacks: the transformed image."""
        return image


Transform = EvaluationTransform | JoinedTransform


def evaluation_transform(config: Config) -> Transform:
    """Return the transform of images for one backbone or several."""
    if isinstance(config, BackboneConfig):
        return EvaluationTransform(config)
    return JoinedTransform(tuple(map(EvaluationTransform, config.parts)))


class RandomCrops(EvaluationTransform):
    """Crops of an image at random, half of them mirrored.

    They are cut from the whole image, as far as the evaluation could see it, at the
    resolution that the smallest of them needs. As in torchvision's RandomResizedCrop a
    crop is a share of the area, with an aspect near 1.
    """

    n_numbers = 2 * TRIES + 3

    @property
    def at_least(self) -> int | None:
        """Pixels of the shorter side that are needed; None: all."""
        size = self.config.image_size
        return None if size is None else math.ceil(size / math.sqrt(AREA_SHARES[0]))

    def __call__(self, image: Tensor) -> Tensor:
        """Reduce an image (C, H, W) to what its crops need."""
        side = self.at_least
        if side is None:
            return image
        image = self._middle(image)
        height, width = image.shape[1:]
        if self.config.crop_mode == "squash":
            size = [min(side, height), min(side, width)]
        else:
            scale = min(1.0, side / math.sqrt(height * width))
            size = [max(1, round(scale * height)), max(1, round(scale * width))]
        return interpolate(image, size, self.config.interpolation)

    def finish(self, image: Tensor, numbers: Tensor | None) -> Tensor:
        """Cut one crop, by random numbers in 0..1."""
        assert numbers is not None
        height, width = image.shape[1:]
        drawn = numbers.tolist()
        top, left, crop_height, crop_width = _random_box(drawn, height, width)
        crop = image[:, top : top + crop_height, left : left + crop_width]
        size = self.config.image_size
        crop = interpolate(crop, [height, width] if size is None else [size, size], "bilinear")
        crop = to_channels(crop, self.config.n_channels)
        return crop.flip(-1) if drawn[-1] < 0.5 else crop


def interpolate(image: Tensor, size: list[int], mode: str) -> Tensor:
    """Resize an image (C, H, W) with antialiasing, uint8 or float32 in 0..1."""
    if list(image.shape[1:]) == size:
        return image
    mode = mode if mode in ("bilinear", "bicubic") else "bilinear"
    # a batch of one that torch sees the order in memory of: colours side by side are resized in
    # a quarter of the time
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(batch, size, mode=mode, antialias=True)[0]
    return resized if resized.dtype == torch.uint8 else resized.clamp(0, 1)


def to_channels(image: Tensor, n_channels: int) -> Tensor:
    """Turn grey into RGB, or RGB into grey; other channels must be the backbone's."""
    from torchvision.transforms.v2.functional import grayscale_to_rgb, rgb_to_grayscale

    if len(image) == n_channels:
        return image
    if {len(image), n_channels} != {1, 3}:
        raise ValueError(
            f"X holds images of {len(image)} channels, and the backbone takes {n_channels}"
        )
    return grayscale_to_rgb(image) if n_channels == 3 else rgb_to_grayscale(image)


def _random_box(numbers: list[float], height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop within an image."""
    low, high = map(math.log, ASPECTS)
    for share, aspect in zip(numbers[:TRIES], numbers[TRIES : 2 * TRIES], strict=True):
        area = height * width * (AREA_SHARES[0] + share * (AREA_SHARES[1] - AREA_SHARES[0]))
        aspect = math.exp(low + aspect * (high - low))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            break
    else:  # an image too long for any of them: its middle
        crop_width = min(width, max(1, round(height * ASPECTS[1])))
        crop_height = min(height, max(1, round(width / ASPECTS[0])))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
    down, right = numbers[2 * TRIES : 2 * TRIES + 2]
    top, left = int(down * (height - crop_height + 1)), int(right * (width - crop_width + 1))
    return top, left, crop_height, crop_width


class Augmentation:
    """Random changes of each image in a batch, that leave its label as it is.

    Photographs (colour) are changed in brightness and contrast; :class:`RandomCrops`
    has cropped and mirrored them as they were read. Grey images, such as digits, letters
    and scans, are turned, moved and scaled a little and never mirrored, because a
    mirrored letter is another one.
    """

    def __init__(self, grey: bool) -> None:
        self.grey = grey

    def __repr__(self) -> str:
        changes = "turns, shifts and scalings" if self.grey else "brightness and contrast"
        return f"Augmentation(grey={self.grey}): {changes}"

    def __call__(self, images: Tensor) -> Tensor:
        """Augment a batch of images (n, C, H, W) in 0..1, each on its own, perhaps in place."""
        return move_a_little(images) if self.grey else change_light(images)


def augmented(augment: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Augment a batch of images (n, C, H, W), by a callable that may be the user's."""
    n, n_channels = images.shape[:2]
    try:
        changed = augment(images)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"{_WHAT_AUGMENT_GETS}; it raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(changed, Tensor):
        raise ValueError(f"{_WHAT_AUGMENT_GETS}; it returned {type(changed).__name__}")
    if changed.ndim != 4 or changed.shape[:2] != (n, n_channels) or changed.dtype != images.dtype:
        raise ValueError(
            f"{_WHAT_AUGMENT_GETS}; it returned {tuple(changed.shape)} of {changed.dtype} for "
            f"{tuple(images.shape)}"
        )
    return changed


def check_augment(augment: Any) -> None:
    """Reject transforms of torchvision that are for images as files hold them, or for a backbone.

    Both come by habit: the first fail, the second would make other images of training than of
    prediction.
    """
    from torchvision.transforms import Normalize, PILToTensor, ToPILImage, ToTensor, v2

    for part in _parts_of(augment):
        if isinstance(
            part, (ToTensor, PILToTensor, ToPILImage, v2.ToPILImage, Normalize, v2.Normalize)
        ):
            raise ValueError(f"{_WHAT_AUGMENT_GETS}; it holds {type(part).__name__}")


def _parts_of(augment: Any) -> Iterator[Any]:
    """Yield a transform and those that it holds, at any depth."""
    yield augment
    held = getattr(augment, "transforms", ())
    for part in augment if isinstance(augment, nn.Sequential) else held:
        yield from _parts_of(part)


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


def _around_one(n: int, width: float) -> Tensor:
    """Draw on the CPU, so that a seed means the same on every device: (n, 1, 1, 1)."""
    return 1 + width * (2 * torch.rand(n, 1, 1, 1) - 1)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """Send values to a device without waiting until they are there."""
    return values.to(device, non_blocking=True)
