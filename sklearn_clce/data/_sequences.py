"""Sequences of images that are read when they are asked for."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ._pixels import (
    PixelRules,
    as_float,
    channel_axis,
    check_pixels,
    count_channels,
    is_dark,
    to_picture,
)
from ._reading import decoding, grey_integers, is_image, name_of, read_picture, unwrap_sample

PEEK_SIZE = 64  # pixels of the shorter side of a picture that is only looked at
N_SAMPLED = 32  # images, spread over all, that speak for the others
N_PEEKED = 8  # of them, where each look is a reading


class Images(Sequence[Tensor]):
    """Images by index: float32 tensors (C, H, W) in 0..1, read when they are asked for."""

    flattened = False
    is_thread_safe = True
    is_stochastic = False  # from one reading to the next, as where a Dataset draws at random
    size: tuple[int, int] | None = None  # height and width of decoded pictures in memory

    def __init__(self, rules: PixelRules) -> None:
        self.rules = rules

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        return as_float(self.picture(index))

    @abstractmethod
    def picture(self, index: int, at_least: int | None = None) -> Tensor:
        """Decode an image to (C, H, W), uint8 or float32; see :func:`read_picture`."""

    def pictures(self, indices: Sequence[int], at_least: int | None = None) -> list[Tensor]:
        """Decode several images."""
        return [self.picture(index, at_least) for index in indices]

    @property
    def n_channels(self) -> int | None:
        """Channels of each image, where they are neither grey, RGB nor RGBA."""
        return self.rules.n_channels

    @property
    def in_grey(self) -> bool:
        """Whether all of a few images, spread over all, have one channel."""
        return all(
            len(self.picture(index, PEEK_SIZE)) == 1
            for index in evenly_spaced_indices(len(self), N_PEEKED)
        )

    @property
    def layout(self) -> str:
        """What tells how equal numbers or files become different pictures."""
        return f"{self.rules} alpha on white"


class ArrayImages(Images):
    """Images of one size in one array (n, H, W), (n, H, W, C), (n, C, H, W) or (n, n_pixels)."""

    def __init__(
        self,
        array: np.ndarray,
        image_shape: Sequence[int] | None = None,
        rules: PixelRules | None = None,
    ) -> None:
        rules = rules or PixelRules()
        self.flattened = array.ndim == 2
        array = _with_image_shape(array, image_shape)
        super().__init__(
            PixelRules(rules.max_pixel_value, count_channels(array.shape[1:], rules.n_channels))
        )
        self.axis = channel_axis(array.shape[1:], "X", _asked(rules, self.rules))
        check_pixels(array, "X", self.rules)
        self.array = array
        sides = [side for axis, side in enumerate(array.shape[1:]) if axis != self.axis]
        self.size = (sides[0], sides[1])
        if array.dtype.kind in "ui":
            _warn_if_dark(array.max(), array.dtype, self.rules)

    def __len__(self) -> int:
        return len(self.array)

    def picture(self, index: int, at_least: int | None = None) -> Tensor:
        """Return an image as (C, H, W); it has been decoded already."""
        return to_picture(self.array[index], self.axis, self.rules)

    @property
    def layout(self) -> str:
        """What tells how equal numbers become different pictures."""
        return f"channels: axis {self.axis} {super().layout}"


class StoredImages(Images):
    """Images of one size in an array on disk, such as one of h5py or zarr, read by batch."""

    is_thread_safe = False  # a file is read by one thread at a time anyhow

    def __init__(self, array: Any, rules: PixelRules | None = None) -> None:
        rules = rules or PixelRules()
        if len(array.shape) not in (3, 4):
            raise ValueError(
                f"X of shape {array.shape}: images in a file are (n, H, W), (n, H, W, C) or "
                "(n, C, H, W); load other arrays into memory, as X[:]"
            )
        super().__init__(
            PixelRules(rules.max_pixel_value, count_channels(array.shape[1:], rules.n_channels))
        )
        self.axis = channel_axis(array.shape[1:], "X", _asked(rules, self.rules))
        self.array = array
        if array.dtype.kind in "ui":
            _warn_if_all_dark(
                array.__getitem__, evenly_spaced_indices(len(self), N_PEEKED), self.rules
            )

    def __len__(self) -> int:
        return self.array.shape[0]

    def picture(self, index: int, at_least: int | None = None) -> Tensor:
        """Read one image as (C, H, W)."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.pictures([index])[0]

    def pictures(self, indices: Sequence[int], at_least: int | None = None) -> list[Tensor]:
        """Read several images in one slice of the file for each run of neighbours."""
        pictures: dict[int, Tensor] = {}
        for run in _runs(sorted({int(index) % len(self) for index in indices})):
            where = f"X[{run[0]}]"
            with decoding(where, self.array):
                block = np.asarray(self.array[run[0] : run[-1] + 1])
            for index, pixels in zip(run, block, strict=True):
                check_pixels(pixels[None], f"X[{index}]", self.rules)
                pictures[index] = to_picture(pixels, self.axis, self.rules)
        return [pictures[int(index) % len(self)] for index in indices]


class ListImages(Images):
    """Images one by one: paths, bytes, PIL images, arrays of any size.

    Paths are looked for at once and read when they are asked for.
    """

    def __init__(
        self, items: Sequence[Any], rules: PixelRules | None = None, *, checked: bool = True
    ) -> None:
        rules = rules or PixelRules()
        in_memory = isinstance(items, (list, tuple, np.ndarray))
        self.is_thread_safe, self.is_stochastic = in_memory, not in_memory  # who knows a Dataset
        self.items = items
        if checked and in_memory:
            _check_present(items)
        first, self.column = _first_sample(items, checked)
        shape = tuple(getattr(unwrap_sample(self.item_of(first)), "shape", ()))
        super().__init__(PixelRules(rules.max_pixel_value, count_channels(shape, rules.n_channels)))
        looked_at = evenly_spaced_indices(len(items), N_SAMPLED if in_memory else N_PEEKED)
        _warn_if_all_dark(self.item, looked_at, self.rules)

    def __len__(self) -> int:
        return len(self.items)

    def item_of(self, sample: Any) -> Any:
        """Take the image's column of a sample that is a dict."""
        return sample if self.column is None else sample[self.column]

    def item(self, index: int) -> Any:
        """Return an image as it was handed in, without what is beside it."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        with decoding(f"X[{index}]", self.items):
            return unwrap_sample(self.item_of(self.items[index]))

    def picture(self, index: int, at_least: int | None = None) -> Tensor:
        """Decode an image to (C, H, W)."""
        return read_picture(self.item(index), f"X[{index}]", self.rules, at_least)


class PartOfImages(Images):
    """Some of the images, by their indices."""

    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        super().__init__(images.rules)
        self.images = images
        self.indices = [int(index) for index in indices]
        self.is_thread_safe = images.is_thread_safe
        self.is_stochastic = images.is_stochastic
        self.size = images.size

    def __len__(self) -> int:
        return len(self.indices)

    def picture(self, index: int, at_least: int | None = None) -> Tensor:
        """Decode an image to (C, H, W)."""
        return self.images.picture(self.indices[index], at_least)

    def pictures(self, indices: Sequence[int], at_least: int | None = None) -> list[Tensor]:
        """Decode several images."""
        return self.images.pictures([self.indices[index] for index in indices], at_least)


def evenly_spaced_indices(n: int, most: int = N_SAMPLED) -> list[int]:
    """Return indices, evenly spread over n: of images to look at."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int)).tolist()


def _asked(rules: PixelRules, found: PixelRules) -> PixelRules:
    """Return the rule that finds the channels: the one asked for, else the one found."""
    return rules if rules.n_channels is not None else found


def _runs(indices: list[int]) -> list[list[int]]:
    """Cut sorted indices where they are not neighbours."""
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    return [run.tolist() for run in np.split(np.asarray(indices), cuts) if len(run)]


def _with_image_shape(array: np.ndarray, image_shape: Sequence[int] | None) -> np.ndarray:
    if array.ndim == 2:
        if image_shape is None:
            raise ValueError(
                f"image_shape=None: X of shape {array.shape} holds flattened images, so the shape "
                "of one is required, such as image_shape=(8, 8); or hand in X.reshape(n, 8, 8), "
                "and one grey picture as X[None]"
            )
        if array.shape[1] != np.prod(image_shape):
            raise ValueError(
                f"image_shape={tuple(image_shape)!r} takes {np.prod(image_shape)} pixels, but X "
                f"has {array.shape[1]} features"
            )
        return array.reshape(len(array), *image_shape)
    if array.ndim not in (3, 4):
        raise ValueError(
            f"X of shape {array.shape}: (n, H, W), (n, H, W, C), (n, C, H, W), or (n, n_pixels) "
            "with image_shape=..., is required"
        )
    if image_shape is not None and tuple(image_shape) != array.shape[1:]:
        raise ValueError(
            f"image_shape={tuple(image_shape)!r}, but the images in X have {array.shape[1:]}"
        )
    return array


def _first_sample(items: Sequence[Any], checked: bool) -> tuple[Any, Any]:
    """Return the first item and its column of images; if unchecked, of the first that has one."""
    for index in range(len(items)):
        try:
            with decoding(f"X[{index}]", items):
                sample = items[index]
            return sample, _image_column(sample)
        except (ValueError, OSError):
            if checked:
                raise
    return None, None


def _check_present(items: Sequence[Any]) -> None:
    missing = [index for index, item in enumerate(items) if _is_missing(item)]
    if missing:
        raise ValueError(
            f"X[{missing[0]}] is missing ({items[missing[0]]!r}): every sample needs its image, "
            f"and {len(missing)} of {len(items)} have none; leave these samples out of X and y"
        )
    for index, item in enumerate(items):
        item = unwrap_sample(item)
        if isinstance(item, (str, os.PathLike)) and not os.path.isfile(item):
            raise FileNotFoundError(
                f"X[{index}]: there is no file {name_of(item)}" + _why_there_is_no_file(item)
            )


def _why_there_is_no_file(path: str | os.PathLike[str]) -> str:
    if os.path.isdir(path):
        return "; it is a folder"
    if "://" in os.fspath(path):
        return "; an address is not read: download the picture and hand in the path of the file"
    return ""


def _is_missing(item: Any) -> bool:
    if item is None or (isinstance(item, str) and not item):
        return True
    if isinstance(item, float):
        return bool(np.isnan(item))
    return type(item).__name__ in ("NAType", "NaTType")  # of pandas


def _image_column(sample: Any) -> Any:
    """Find the one column of a sample that is an image; None where the sample is no dict."""
    if not isinstance(sample, Mapping) or sample.keys() & {"bytes", "path"}:
        return None
    found = [name for name, value in sample.items() if _may_be_image(value)]
    if len(found) != 1:
        name = next(iter(found or sample), "image")
        line = f"X = [sample[{name!r}] for sample in X]"
        raise ValueError(
            f"X[0] has the columns {list(sample)}, of which {found or 'none'} can be images, and "
            f"exactly one is required: name it, as {line}"
        )
    return found[0]


def _may_be_image(value: Any) -> bool:
    value = unwrap_sample(value)
    if isinstance(value, (str, os.PathLike)):
        return os.path.isfile(value)
    return is_image(value) and len(getattr(value, "shape", (0, 0))) >= 2


def _warn_if_all_dark(
    item: Callable[[int], Any], indices: Iterable[int], rules: PixelRules
) -> None:
    """Look at items until one is not dark, which is the first as a rule."""
    if rules.max_pixel_value is not None:
        return
    highest, dtype = 0, np.dtype(np.uint8)
    for index in indices:
        try:
            pixels = grey_integers(item(index))
        except Exception:  # who reads it for its pixels will say what is wrong
            return
        if pixels is None:
            return
        high, dtype = int(pixels.max()), pixels.dtype
        if high and not is_dark(high, dtype, rules):
            return
        highest = max(highest, high)
    _warn_if_dark(highest, dtype, rules)


def _warn_if_dark(high: float, dtype: np.dtype, rules: PixelRules) -> None:
    if is_dark(high, dtype, rules):
        warnings.warn(
            f"X holds integers ({dtype}) up to {high}, which are nearly black where "
            f"{rules.max_value_of(dtype)} is white: is {high} white? Then "
            f"max_pixel_value={high}, or X / {high} where X is an array",
            UserWarning,
            stacklevel=5,
        )
