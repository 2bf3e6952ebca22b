"""Anything that a user calls images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .._checks import check_not_masked, to_numpy
from ._pixels import PixelRules
from ._reading import is_image, name_of, unwrap_sample
from ._sequences import ArrayImages, Images, ListImages, StoredImages

LEAST_SIDE = 8  # of what may be one image


def as_images(
    X: Any,
    *,
    image_shape: Sequence[int] | None = None,
    max_pixel_value: float | None = None,
    n_channels: int | None = None,
    colour: bool | None = None,
    checked: bool = True,
) -> Images:
    """Read anything that a user calls images, as a sequence of tensors (C, H, W) in 0..1.

    ``colour``: earlier images had colour, so that (3, H, W) is one image. ``checked``:
    files must exist, and samples hold an image, from the start.
    """
    rules = PixelRules(max_pixel_value, n_channels)
    X = _unwrapped(X)
    if isinstance(X, Images):  # a part of X, as a scorer gets it
        return X
    if not isinstance(X, np.ndarray):
        return StoredImages(X, rules) if is_on_disk(X) else ListImages(X, rules, checked=checked)
    if X.dtype.kind not in "OUST":
        if image_shape is None and _is_one_image(X.shape, n_channels, colour):
            raise ValueError(
                f"X of shape {X.shape} is one image: pass X[None], a batch of one; "
                "grey images of that size are X[..., None]"
            )
        return ArrayImages(X, image_shape, rules)
    if X.size != len(X):
        raise ValueError(f"X of shape {X.shape}: one column of paths or images is required")
    return ListImages(list(X.ravel()), rules, checked=checked)


def _unwrapped(X: Any) -> Any:
    """Return X as an ndarray, an array on disk, or a sequence of items; reject a single image."""
    _reject_single(X)
    if hasattr(X, "iloc"):
        X = _column_of(X)
    if not isinstance(X, (list, tuple)):  # whose images are checked one by one
        check_not_masked(X)
    if isinstance(X, Tensor):
        X = to_numpy(X)
    if not isinstance(X, np.ndarray) and hasattr(X, "__array__") and not is_on_disk(X):
        X = np.asarray(X)
    if is_on_disk(X):
        return X
    if not hasattr(X, "__len__") or not hasattr(X, "__getitem__") or isinstance(X, Mapping):
        raise TypeError(
            f"X is {type(X).__name__}: an array, a list of images or paths, or a map-style "
            "Dataset is required"
        )
    if isinstance(X, np.ndarray) and X.ndim == 0:
        raise ValueError("X of shape () is a single value: a list of images is required")
    if len(X) == 0:
        raise ValueError("X is empty: found array with 0 sample(s), at least one is required")
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        X = list(X)
    if isinstance(X, (list, tuple)) and _begins_with_numbers(X):
        X = _as_array(X)
    return X


def _reject_single(X: Any) -> None:
    if isinstance(X, (str, os.PathLike)):
        raise TypeError(
            f"X={name_of(X)} is one path: a list of paths is required, X=[path], or "
            "load_image_folder for a folder"
        )
    holds_bytes = isinstance(X, Mapping) and "bytes" in X
    if holds_bytes or isinstance(X, (bytes, bytearray, memoryview)) or _is_pil_or_file(X):
        raise TypeError(f"X is one image ({type(X).__name__}): pass a list, [X]")


def _is_pil_or_file(X: Any) -> bool:
    from PIL import Image

    return isinstance(X, Image.Image) or (hasattr(X, "read") and hasattr(X, "seek"))


def _column_of(frame: Any) -> Any:
    """Return the values of a Series or frame; of several columns none may hold paths."""
    if getattr(frame, "ndim", 1) == 1 or len(frame.columns) == 1:
        return frame.to_numpy()
    first = zip(frame.columns, frame.iloc[0], strict=True) if len(frame) else ()
    found = [name for name, value in first if _looks_like_image(value)]
    if found:
        raise ValueError(
            f"X is a frame of the columns {list(frame.columns)}: pass the one that holds the "
            f"images, X=df[{found[0]!r}]"
        )
    return _numbers_of(frame)


def _numbers_of(frame: Any) -> np.ndarray:
    """Return a frame's values; numbers of pandas' nullable columns too, with NaN for gaps."""
    dtypes = [getattr(dtype, "numpy_dtype", dtype) for dtype in frame.dtypes]
    if dtypes == list(frame.dtypes) or not all(dtype.kind in "biuf" for dtype in dtypes):
        return frame.to_numpy()
    has_gaps = frame.isna().to_numpy().any()
    dtype = np.float64 if has_gaps else np.result_type(*dtypes)
    return frame.to_numpy(dtype, na_value=np.nan)


def _looks_like_image(value: Any) -> bool:
    value = unwrap_sample(value)
    return is_image(value) and not isinstance(value, np.generic)


def is_on_disk(X: Any) -> bool:
    """Check for an array that is read by slices: it has chunks, and computes nothing."""
    return hasattr(X, "chunks") and hasattr(X, "dtype") and not hasattr(X, "compute")


def _begins_with_numbers(X: Any) -> bool:
    """Check for lists of numbers, at any depth, or of rows of them."""
    while isinstance(X, (list, tuple)) and X:
        X = X[0]
    is_array = isinstance(X, (np.ndarray, Tensor)) and not isinstance(X, np.ma.MaskedArray)
    is_row = is_array and X.ndim == 1
    return is_row or isinstance(X, (int, float))


def _as_array(X: Any) -> Any:
    try:
        return np.asarray(to_numpy(X))
    except ValueError:  # images of different sizes, as lists of numbers
        return X


def _is_one_image(shape: tuple[int, ...], n_channels: int | None, colour: bool | None) -> bool:
    """Distinguish one image from several grey ones, which are never 3 or 4 pixels wide."""
    if len(shape) != 3 or n_channels == 1 or sorted(shape)[1] < LEAST_SIDE:
        return False
    if n_channels not in (None, 3):
        return n_channels in (shape[0], shape[-1])
    return shape[-1] in (3, 4) or (bool(colour) and shape[0] in (3, 4))
