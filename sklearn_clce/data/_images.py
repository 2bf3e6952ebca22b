"""Anything that a user calls images, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._validation import IMAGE_CHANNELS

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
ROUNDING = 1e-5  # how far float pixels may lie outside 0..1


def load_image_folder(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """List the images of a folder that holds a folder for each class.

    Images are not opened: :class:`CLCEClassifier` reads the paths when it needs them.
    Hidden files and files that are not images by their suffix are passed over; folders
    in a class's folder are searched.

    Parameters
    ----------
    path : path
        The folder. Each folder in it is named after its class.

    Returns
    -------
    paths : ndarray of shape (n_images,), str
        Paths of the images, sorted by class and name.
    labels : ndarray of shape (n_images,), str
        Name of the class of each.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it holds no class folder with an image.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sklearn_clce import load_image_folder
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ["cat/1.png", "cat/2.png", "dog/1.png"]:
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     Image.new("RGB", (8, 8)).save(folder / name)
    >>> paths, labels = load_image_folder(folder)
    >>> labels.tolist()
    ['cat', 'cat', 'dog']
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such folder")
    found = [
        (str(file), class_folder.name)
        for class_folder in sorted(folder.iterdir())
        if class_folder.is_dir() and not class_folder.name.startswith(".")
        for file in sorted(class_folder.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    if not found:
        raise ValueError(
            f"path={str(path)!r} holds no images: a folder for each class with files "
            f"{', '.join(IMAGE_SUFFIXES)} in it is required"
        )
    paths, labels = zip(*found, strict=True)
    return np.array(paths), np.array(labels)


def as_images(X: Any, *, image_shape: Sequence[int] | None = None) -> Sequence[Tensor]:
    """Read anything that a user calls images, as a sequence of tensors.

    Parameters
    ----------
    X : array, tensor, list, Series, one-column frame or map-style Dataset
        Arrays and tensors of shape (n, H, W), (n, H, W, C) or (n, C, H, W), C in 1, 3, 4;
        where both fit, the last axis holds the channels. Arrays of shape (n, n_pixels)
        with ``image_shape``. Sequences of paths, PIL images, arrays, or tuples that
        begin with one. Pixels are integers in 0..255, floats in 0..1, or bool.
    image_shape : sequence of 2 or 3 int, default=None
        Shape of one image in X.

    Returns
    -------
    Sequence of Tensor
        Each of shape (C, H, W), float32 in 0..1, read when it is asked for.

    Raises
    ------
    ValueError
        If shape, dtype or range are not those of images; the message names the row.
    TypeError
        If X is nothing that holds images.
    FileNotFoundError
        If there is no file at a path; the message names the row.
    """
    if hasattr(X, "iloc"):
        X = X.to_numpy()
    if isinstance(X, Tensor):
        X = X.detach().cpu()
        X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    if not isinstance(X, np.ndarray) and hasattr(X, "__array__"):
        X = np.asarray(X)
    if isinstance(X, (str, bytes, os.PathLike)):
        raise TypeError(f"X={X!r} is one path: a list of paths is required, or load_image_folder")
    if not hasattr(X, "__len__") or not hasattr(X, "__getitem__"):
        raise TypeError(
            f"X is {type(X).__name__}: an array, a list of images or paths, or a map-style "
            "Dataset is required"
        )
    if len(X) == 0:
        raise ValueError("X is empty: found array with 0 sample(s), at least one is required")
    if isinstance(X, (list, tuple)) and isinstance(X[0], (int, float, list)):
        X = np.asarray(X)
    if not isinstance(X, np.ndarray):
        return ListImages(X)
    if X.dtype.kind not in "OUS":
        return ArrayImages(X, image_shape)
    if X.size != len(X):
        raise ValueError(f"X of shape {X.shape}: one column of paths or images is required")
    return ListImages(X.ravel())


class ArrayImages(Sequence):
    """Images of one size in one array.

    Parameters
    ----------
    array : ndarray of shape (n, H, W), (n, H, W, C), (n, C, H, W) or (n, n_pixels)
        Pixels.
    image_shape : sequence of int or None
        Shape of one image; required where ``array`` has two axes.
    """

    def __init__(self, array: np.ndarray, image_shape: Sequence[int] | None) -> None:
        self.flattened = array.ndim == 2
        array = _with_image_shape(array, image_shape)
        self.channels_last = _channels_last(array.shape[1:], "X")
        check_pixels(array, "X")
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, row: int) -> Tensor:
        return _to_tensor(self.array[row], self.channels_last)


class ListImages(Sequence):
    """Images one by one: paths, PIL images, arrays of any size.

    Paths are looked for at once and read when they are asked for.

    Parameters
    ----------
    items : sequence
        The images, or tuples that begin with one.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items
        if isinstance(items, (list, tuple, np.ndarray)):
            for row, item in enumerate(items):
                if isinstance(item, (str, os.PathLike)) and not os.path.isfile(item):
                    raise FileNotFoundError(f"X[{row}]: there is no file {os.fspath(item)!r}")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Tensor:
        return read_image(self.items[row], f"X[{row}]")


def read_image(item: Any, where: str) -> Tensor:
    """Read one image of any kind.

    Parameters
    ----------
    item : path, PIL image, array, tensor, or a tuple that begins with one
        The image.
    where : str
        Its place, for messages, such as "X[3]".

    Returns
    -------
    Tensor of shape (C, H, W), float32
        Pixels in 0..1.

    Raises
    ------
    ValueError
        If it is no image; the message begins with ``where``.
    FileNotFoundError
        If there is no file at the path.
    TypeError
        If it is none of the kinds above.
    """
    from PIL import Image

    if isinstance(item, tuple) and item:  # (image, label) of a Dataset
        item = item[0]
    if isinstance(item, (str, os.PathLike)):
        pixels = _open(item, where)
    elif isinstance(item, Image.Image):
        pixels = _pil_pixels(item, where)
    elif isinstance(item, Tensor):
        pixels = item.detach().cpu().float() if item.is_floating_point() else item.cpu()
        pixels = pixels.numpy()
    elif hasattr(item, "__array__"):
        pixels = np.asarray(item)
    else:
        raise TypeError(
            f"{where} is {type(item).__name__}: a path, a PIL image or an array is required"
        )
    channels_last = _channels_last(pixels.shape, where)
    check_pixels(pixels[None], where)
    return _to_tensor(pixels, channels_last)


def check_pixels(array: np.ndarray, where: str) -> None:
    """Raise a ValueError if pixels are not numbers in their dtype's range.

    Parameters
    ----------
    array : ndarray of shape (n, ...)
        Pixels.
    where : str
        Their place, for messages.
    """
    if array.dtype.kind not in "buif":
        raise ValueError(f"{where} has dtype {array.dtype}: pixels are integers, floats or bool")
    if array.size == 0:
        raise ValueError(f"{where} of shape {array.shape} holds no pixels: 0 feature(s)")
    if array.dtype.kind == "b" or array.dtype == np.uint8:
        return
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{_row(array, where, ~np.isfinite(array))} contains NaN or infinity")
    top, slack = (1, ROUNDING) if array.dtype.kind == "f" else (255, 0)
    if low < -slack or high > top + slack:
        bad = _row(array, where, (array < -slack) | (array > top + slack))
        raise ValueError(
            f"{bad} has pixels in {low:.6g}..{high:.6g}: floats must lie in 0..1 and integers in "
            "0..255; divide by the highest value that your images can have"
        )


def _row(array: np.ndarray, where: str, bad: np.ndarray) -> str:
    """Name the first row with a bad pixel."""
    if where != "X":
        return where
    return f"X[{np.flatnonzero(bad.reshape(len(array), -1).any(axis=1))[0]}]"


def _with_image_shape(array: np.ndarray, image_shape: Sequence[int] | None) -> np.ndarray:
    if array.ndim == 2:
        if image_shape is None:
            raise ValueError(
                f"image_shape=None: X of shape {array.shape} holds flattened images, so the shape "
                "of one is required, such as image_shape=(8, 8); or hand in X.reshape(n, 8, 8)"
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


def _channels_last(shape: tuple[int, ...], where: str) -> bool:
    """Tell where the channels of one image are; where both fit, they are last."""
    if len(shape) == 2:
        return False
    if len(shape) == 3 and shape[2] in IMAGE_CHANNELS:
        return True
    if len(shape) == 3 and shape[0] in IMAGE_CHANNELS:
        return False
    raise ValueError(
        f"{where} holds an image of shape {tuple(shape)}: (H, W), (H, W, C) or (C, H, W) with "
        "1, 3 or 4 channels is required"
    )


def _to_tensor(pixels: np.ndarray, channels_last: bool) -> Tensor:
    """Turn (H, W), (H, W, C) or (C, H, W) pixels into a (C, H, W) float32 tensor in 0..1."""
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif channels_last:
        pixels = pixels.transpose(2, 0, 1)
    scale = 255 if pixels.dtype.kind in "ui" else 1
    image = torch.from_numpy(np.require(pixels, np.float32, ["C", "W"]))
    return (image / scale).clamp(0, 1)


def _open(path: str | os.PathLike[str], where: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _pil_pixels(image, where)
    except FileNotFoundError:
        raise FileNotFoundError(f"{where}: there is no file {os.fspath(path)!r}") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{where}: {os.fspath(path)!r} can't be read as an image ({error})"
        ) from error


def _pil_pixels(image: Any, where: str) -> np.ndarray:
    """Decode a PIL image, turned as its EXIF tag says; grey stays grey."""
    from PIL import ImageOps

    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"{where} has PIL mode {image.mode!r}: more than 8 bits have no agreed white; hand in "
            "an array of floats in 0..1"
        )
    image = ImageOps.exif_transpose(image)
    return np.asarray(image if image.mode == "L" else image.convert("RGB"))
