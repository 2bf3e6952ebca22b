"""What a few images, spread over all, show of the others before a fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .._system import warn
from ._pixels import Pixels, has_no_colour

N_SAMPLED = 32
PEEK_SIZE = 64  # pixels of the shorter side that show whether an image has colour
DARK = 8  # how many times less than white looks like white on another scale


class Numbers(NamedTuple):
    """The highest of integers whose white can only be guessed."""

    high: int
    white: float
    dtype: np.dtype

    @property
    def are_dark(self) -> bool:
        """Whether the highest looks like white on another scale."""
        return 0 < self.high <= self.white / DARK


class Look(NamedTuple):
    """What one image shows."""

    n_channels: int
    is_grey: bool  # without colour, in however many channels
    numbers: Numbers | None  # None where white is known


def sampled_indices(n: int) -> list[int]:
    """Return indices of images, evenly spread over n, that are looked at."""
    return np.unique(np.linspace(0, n - 1, min(n, N_SAMPLED)).astype(int)).tolist()


def look_at(pixels: Pixels) -> Look:
    """Find out all that is asked about an image before a fit."""
    image, array = pixels.to_image(), pixels.array
    is_white_known = pixels.is_white_known or array.dtype.kind not in "ui"
    numbers = None if is_white_known else highest_of(array, pixels.white)
    return Look(len(image), has_no_colour(image), numbers)


def highest_of(array: np.ndarray, white: float) -> Numbers:
    """Find the highest of integers."""
    return Numbers(int(array.max()), white, array.dtype)


def warn_if_all_dark(numbers: Iterable[Numbers | None]) -> None:
    """Warn if white of all images seems to be another number."""
    darkest = _highest_if_dark(numbers)
    if darkest is not None and darkest.are_dark:
        high, white, dtype = darkest
        warn(
            f"X holds integers ({dtype}) up to {high}, which are nearly black where "
            f"{white} is white: is {high} white? Then max_pixel_value={high}, or X / {high} "
            "where X is an array"
        )


def _highest_if_dark(numbers: Iterable[Numbers | None]) -> Numbers | None:
    """Look at images until one is not dark, usually the first."""
    highest = None
    try:
        for found in numbers:
            if found is None or (found.high and not found.are_dark):
                return None
            if highest is None or found.high > highest.high:
                highest = found
    except Exception:  # whoever reads the image for its pixels will report what is wrong
        return None
    return highest
