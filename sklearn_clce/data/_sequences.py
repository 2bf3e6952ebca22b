"""Sequences of images that are read when they are asked for."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .._system import warn
from ._peek import PEEK_SIZE, Look, Numbers, highest_of, look_at, sampled_indices, warn_if_all_dark
from ._pixels import PixelRules, Pixels, as_float, channel_axis, check_pixels, count_channels
from ._reading import (
    decoding,
    is_image,
    may_be_dark,
    name_of,
    read_pixels,
    unwrap_sample,
    why_there_is_no_file,
)


class Images(Sequence[Tensor]):
    """Images by index: float32 tensors (C, H, W) in 0..1, read when they are asked for."""

    flattened = False
    is_thread_safe = True
    is_stochastic = False  # from one reading to the next, as where a Dataset draws at random
    size: tuple[int, int] | None = None  # height and width of decoded images in memory

    def __init__(self, rules: PixelRules) -> None:
        self.rules = rules
        self._looks: dict[int, Look] = {}

    def __getitem__(self, index: Any) -> Any:
        """Read an image, or take those of a slice, a mask or an array of indices."""
        if is_single(index):
            return as_float(self.decode(int(index)))
        return PartOfImages(self, as_indices(index, len(self)))

    @abstractmethod
    def pixels(self, index: int, at_least: int | None = None) -> Pixels:
        """Read an image; see :func:`read_pixels`."""

    def decode(self, index: int, at_least: int | None = None) -> Tensor:
        """Decode an image to (C, H, W), uint8 or float32; see :func:`read_pixels`."""
        return self.pixels(index, at_least).to_image()

    def decode_many(self, indices: Sequence[int], at_least: int | None = None) -> list[Tensor]:
        """Decode several images."""
        return [self.decode(index, at_least) for index in indices]

    def look(self, index: int, at_least: int | None = PEEK_SIZE) -> Look:
        """Decode an image, once for all questions before a fit."""
        if index not in self._looks:
            self._looks[index] = look_at(self.pixels(index, at_least))
        return self._looks[index]

    @property
    def n_channels(self) -> int | None:
        """Channels of each image, where they are neither grey, RGB nor RGBA."""
        return self.rules.n_channels

    @property
    def has_one_channel(self) -> bool:
        """Whether all of the images that are looked at have one channel."""
        return all(self.look(index).n_channels == 1 for index in sampled_indices(len(self)))

    @property
    def is_grey(self) -> bool:
        """Whether all of the images that are looked at are without colour."""
        return all(self.look(index).is_grey for index in sampled_indices(len(self)))

    @property
    def layout(self) -> str:
        """How equal numbers or files become different images."""
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
        rules, self.axis = _rules_and_axis(array.shape[1:], rules)
        super().__init__(rules)
        check_pixels(array, "X", self.rules)
        self.array = array
        sides = [side for axis, side in enumerate(array.shape[1:]) if axis != self.axis]
        self.size = (sides[0], sides[1])
        if array.dtype.kind in "ui" and rules.max_pixel_value is None:
            warn_if_all_dark([highest_of(array, rules.max_value_of(array.dtype))])

    def __len__(self) -> int:
        return len(self.array)

    def pixels(self, index: int, at_least: int | None = None) -> Pixels:
        """Return an image."""
        return Pixels(self.array[index], self.axis, self.rules)

    @property
    def layout(self) -> str:
        """How equal numbers become different images."""
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
        rules, self.axis = _rules_and_axis(array.shape[1:], rules)
        super().__init__(rules)
        self.array = array
        if array.dtype.kind in "ui" and rules.max_pixel_value is None:
            warn_if_all_dark(self.look(index).numbers for index in sampled_indices(len(self)))

    def __len__(self) -> int:
        return self.array.shape[0]

    def pixels(self, index: int, at_least: int | None = None) -> Pixels:
        """Read one image."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = int(index) % len(self)
        return self._read([index])[index]

    def decode_many(self, indices: Sequence[int], at_least: int | None = None) -> list[Tensor]:
        """Read several images in one slice of the file for each run of neighbours."""
        places = [int(index) % len(self) for index in indices]
        images: dict[int, Tensor] = {}
        for run in _runs(sorted(set(places))):
            images |= {index: pixels.to_image() for index, pixels in self._read(run).items()}
        return [images[index] for index in places]

    def _read(self, run: list[int]) -> dict[int, Pixels]:
        """Read neighbours in one slice."""
        with decoding(f"X[{run[0]}]", self.array):
            block = np.asarray(self.array[run[0] : run[-1] + 1])
        for index, array in zip(run, block, strict=True):
            check_pixels(array[None], f"X[{index}]", self.rules)
        return {
            index: Pixels(array, self.axis, self.rules)
            for index, array in zip(run, block, strict=True)
        }


class ListImages(Images):
    """Images one by one: paths, bytes, PIL images, arrays of any size.

    Paths are looked for at once and read when they are asked for.
    """

    def __init__(
        self, items: Sequence[Any], rules: PixelRules | None = None, *, checked: bool = True
    ) -> None:
        rules = rules or PixelRules()
        in_memory = isinstance(items, (list, tuple, np.ndarray))
        self.is_thread_safe, self.is_stochastic = in_memory, not in_memory  # a Dataset may do both
        self.items = items
        self._has_warned_of_pages = False
        if checked and in_memory:
            _check_present(items)
        first, self.column = _first_sample(items, checked)
        shape = tuple(getattr(unwrap_sample(self.item_of(first)), "shape", ()))
        super().__init__(PixelRules(rules.max_pixel_value, count_channels(shape, rules.n_channels)))
        if rules.max_pixel_value is None:
            warn_if_all_dark(map(self._numbers, sampled_indices(len(items))))

    def __len__(self) -> int:
        return len(self.items)

    def item_of(self, sample: Any) -> Any:
        """Take the image's column of a sample that is a dict."""
        return sample if self.column is None else sample[self.column]

    def item(self, index: int) -> Any:
        """Return an image as it was passed, without its label."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        with decoding(f"X[{index}]", self.items):
            return unwrap_sample(self.item_of(self.items[index]))

    def pixels(self, index: int, at_least: int | None = None) -> Pixels:
        """Read an image."""
        pixels = read_pixels(self.item(index), f"X[{index}]", self.rules, at_least)
        if pixels.has_more_pages and not self._has_warned_of_pages:
            warn(
                f"X[{index}] is a file of several pages, of which only the first is read: save "
                "each page as a file of its own, or pass the pages as arrays"
            )
            self._has_warned_of_pages = True
        return pixels

    def _numbers(self, index: int) -> Numbers | None:
        """Look at all pixels of an image, unless the header of its file shows that it has colour.

        What a Dataset gives has been decoded already, and is not read twice.
        """
        if self.is_stochastic or may_be_dark(self.item(index)):
            return self.look(index, None).numbers
        return None


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

    def pixels(self, index: int, at_least: int | None = None) -> Pixels:
        """Read an image."""
        return self.images.pixels(self.indices[index], at_least)

    def look(self, index: int, at_least: int | None = PEEK_SIZE) -> Look:
        """Decode an image, once for all parts of the images."""
        return self.images.look(self.indices[index], at_least)

    def decode_many(self, indices: Sequence[int], at_least: int | None = None) -> list[Tensor]:
        """Decode several images."""
        return self.images.decode_many([self.indices[index] for index in indices], at_least)


def is_single(index: Any) -> bool:
    """Check for one index, of any integer type."""
    return not isinstance(index, slice) and np.ndim(index) == 0


def as_indices(index: Any, n: int) -> list[int]:
    """Return the indices of a slice, a mask or an array of indices of n samples."""
    return np.arange(n)[index if isinstance(index, slice) else np.asarray(index)].tolist()


def _rules_and_axis(shape: tuple[int, ...], rules: PixelRules) -> tuple[PixelRules, int | None]:
    """Return how images of a shape are read, and their axis of channels."""
    found = PixelRules(rules.max_pixel_value, count_channels(shape, rules.n_channels))
    return found, channel_axis(shape, "X", found if rules.n_channels is None else rules)


def _runs(indices: list[int]) -> list[list[int]]:
    """Cut sorted indices where they are not neighbours."""
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    return [run.tolist() for run in np.split(np.asarray(indices), cuts) if len(run)]


def _with_image_shape(array: np.ndarray, image_shape: Sequence[int] | None) -> np.ndarray:
    if array.ndim == 2:
        if image_shape is None:
            raise ValueError(
                f"image_shape=None: X of shape {array.shape} holds flattened images, so the shape "
                "of one is required, such as image_shape=(8, 8); or pass X.reshape(n, 8, 8), "
                "and one grey image as X[None]"
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
                f"X[{index}]: there is no file {name_of(item)}{why_there_is_no_file(item)}"
            )


def _is_missing(item: Any) -> bool:
    if item is None or (isinstance(item, str) and not item):
        return True
    if isinstance(item, float):
        return bool(np.isnan(item))
    return type(item).__name__ in ("NAType", "NaTType")  # of pandas


def _image_column(sample: Any) -> Any:
    """Find the one column of a sample that is an image; None if the sample is not a dict."""
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
