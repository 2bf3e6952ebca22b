"""One image of any kind, decoded."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .._checks import to_numpy
from .._system import ProcessLock
from ._pixels import PixelRules, Pixels, channel_axis, check_pixels

# An image is decoded at twice the size that is needed, as Pillow's thumbnails are: the
# difference to all of its pixels can't be seen after it is resized.
GAP = 2
N_SHOWN = 16  # of bytes that are not an image: enough of a path, or of a page that was not found
DEEP_WHITE = 65535  # of Pillow's integer modes, I and I;16
ORIENTATION_TAG = 0x0112
FAILURE = "_sklearn_clce_failure"  # attribute of a PIL image that could not be decoded
GREY_MODES = ("L", "I", "I;16", "I;16B", "I;16L")  # of Pillow, with integers

_file_lock = ProcessLock()
_image_locks = tuple(ProcessLock() for _ in range(64))  # each for some of the user's images


def read_pixels(item: Any, where: str, rules: PixelRules, at_least: int | None = None) -> Pixels:
    """Read an image of any kind.

    With ``at_least`` a file of many more pixels may come smaller, with at least this
    many on its shorter side.
    """
    item = unwrap_sample(item)
    if not is_image(item):
        raise TypeError(
            f"{where} is {type(item).__name__}: a path, bytes, a PIL image or an array is required"
        )
    with decoding(where, item):
        pixels = _numbers_of(item, rules, at_least)
    axis = channel_axis(pixels.array.shape, where, pixels.rules)
    check_pixels(pixels.array[None], where, pixels.rules)
    return replace(pixels, axis=axis)


def unwrap_sample(item: Any) -> Any:
    """Take an image out of what holds it: a sample (image, label), or a dict of bytes and path."""
    if isinstance(item, (tuple, list)) and item and not _holds_numbers(item):
        item = item[0]
    if isinstance(item, Mapping) and item.keys() & {"bytes", "path"}:
        data = item.get("bytes")
        item = item.get("path") if data is None else data
    return item


def name_of(item: Any) -> str:
    """Name an image in a message: by its path, its first bytes, or else its kind."""
    if isinstance(item, (str, os.PathLike)):
        return repr(str(os.fspath(item)))
    if isinstance(item, (bytes, bytearray)) and item:
        return f"bytes that begin with {bytes(item[:N_SHOWN])!r}"
    return type(item).__name__


def why_there_is_no_file(path: Any) -> str:
    """Say what else there is, where a path leads to no file."""
    if not isinstance(path, (str, os.PathLike)):
        return ""
    if os.path.isdir(path):
        return "; it is a folder"
    if os.path.exists(path):
        return "; it is a pipe or a device"
    if "://" in str(path):
        return "; addresses are not read: download the image and pass the path of the file"
    return ""


@contextmanager
def decoding(where: str, item: Any) -> Iterator[None]:
    """Turn any error of a decoder into one that names place and file."""
    try:
        yield
    except MemoryError:
        raise
    except FileNotFoundError as error:
        path = error.filename or item
        raise FileNotFoundError(
            f"{where}: there is no file {name_of(path)}{why_there_is_no_file(path)}"
        ) from error
    except Exception as error:  # of any decoder, or of the user's own Dataset
        reason = f"{type(error).__name__}: {error}"
        unreadable = ValueError(f"{where}: {name_of(item)} can't be read as an image ({reason})")
        unreadable.add_note("find_unreadable(X) lists all such images")
        raise unreadable from error


def is_image(item: Any) -> bool:
    """Check whether an item is of a kind that can be read as an image."""
    if _is_encoded(item):
        return True
    # of the type, for a PIL image would decode itself to show its own
    kinds = ("__array__", "__array_interface__")
    return any(map(partial(hasattr, type(item)), kinds)) or (
        isinstance(item, (tuple, list)) and _holds_numbers(item)
    )


def _holds_numbers(item: Any) -> bool:
    while isinstance(item, (tuple, list)) and item:
        item = item[0]
    return isinstance(item, (int, float, np.number))


def _is_encoded(item: Any) -> bool:
    """Check for a path, bytes or an open file."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview)
    return isinstance(item, kinds) or hasattr(item, "read")


@contextmanager
def _opened(item: Any) -> Iterator[Any]:
    """Open a path, bytes or a file as a PIL image, of which only the header is read."""
    from PIL import Image

    if _is_pil(item):
        yield item
        return
    if isinstance(item, (bytes, bytearray, memoryview)):
        item = io.BytesIO(item)
    elif hasattr(item, "read"):
        item = io.BytesIO(_content(item))
    elif not os.path.isfile(item):  # such as a pipe, which would be waited for
        raise FileNotFoundError(errno.ENOENT, "there is no file", item)
    with Image.open(item) as image:
        yield image


def _numbers_of(item: Any, rules: PixelRules, at_least: int | None) -> Pixels:
    """Return the numbers of an item, whose channels have not been found yet."""
    if _is_encoded(item) or _is_pil(item):
        with _opened(item) as image:
            is_white_known = not _holds_grey_integers(image)
            is_ours = image is not item
            has_pages = is_ours and image.format == "TIFF" and image.is_animated
            array, rules = _decode(image, rules, at_least, ours=is_ours)
            return Pixels(array, None, rules, is_white_known, has_pages)
    if isinstance(item, np.ma.MaskedArray):
        raise TypeError("it is masked, and pixels must all be there: pass item.filled(0)")
    return Pixels(np.asarray(to_numpy(item)), None, rules)


def may_be_dark(item: Any) -> bool:
    """Check, without decoding it, whether an image holds integers whose white is not known."""
    if hasattr(item, "dtype"):
        return np.asarray(to_numpy(item)).dtype.kind in "ui"
    with _opened(item) as image:
        return _holds_grey_integers(image)


def _is_pil(item: Any) -> bool:
    from PIL import Image

    return isinstance(item, Image.Image)


def _holds_grey_integers(image: Any) -> bool:
    return image.mode in GREY_MODES and not image.has_transparency_data


def _content(file: Any) -> bytes:
    """Read a file from its beginning, however often and from whichever thread."""
    with _file_lock:
        file.seek(0)
        return file.read()


def _turn_of(image: Any) -> ProcessLock:
    """Return the lock of an image, which decodes itself once and may be in X more than once."""
    return _image_locks[id(image) // 16 % len(_image_locks)]


def _load(image: Any) -> None:
    """Decode a PIL image, or fail as it did before: Pillow's second try may give it in black."""
    if (failure := getattr(image, FAILURE, None)) is not None:
        raise failure.with_traceback(None)
    try:
        image.load()
    except Exception as error:
        setattr(image, FAILURE, error)
        raise


def _decode(
    image: Any, rules: PixelRules, at_least: int | None, *, ours: bool = True
) -> tuple[np.ndarray, PixelRules]:
    """Decode a PIL image, turned as its EXIF tag says; grey stays grey, alpha becomes white.

    ``ours``: it was opened here, and not by the user.
    """
    if at_least is not None and ours:
        image.draft(None, (GAP * at_least, GAP * at_least))
    with nullcontext() if ours else _turn_of(image):
        _reduce_transparent_colour(image)
        _load(image)
        orientation = _orientation(image)  # only now: some readers have turned it themselves
    if image.mode.startswith("I"):
        white = rules.max_pixel_value or DEEP_WHITE
        array = _integers_of(_turned(image, orientation), white)
        return array, PixelRules(white, rules.n_channels)
    image = _without_alpha(image, rules)
    if at_least is not None and image.mode in ("L", "RGB"):
        factor = min(image.size) // (GAP * at_least)
        image = image.reduce(factor) if factor > 1 else image
    return np.asarray(_turned(image, orientation)), rules


def _reduce_transparent_colour(image: Any) -> None:
    """Give the transparent colour of a file 8 bits, where Pillow reads 8 of 16 of its pixels."""
    colour = image.info.get("transparency")
    is_deep = image.mode == "RGB" and any(
        tile[3] == "RGB;16B" for tile in getattr(image, "tile", ())
    )
    if is_deep and isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _integers_of(image: Any, white: float) -> np.ndarray:
    """Return more than 8 bits of grey; one value may mark transparent pixels."""
    array = np.asarray(image)
    transparent = image.info.get("transparency")
    if transparent is None:
        return array
    return np.where(array == transparent, white, array).astype(array.dtype)


def _without_alpha(image: Any, rules: PixelRules) -> Any:
    """Convert an image of 8 bits to grey or RGB, unless all of its bands are kept."""
    if rules.n_channels == len(image.getbands()):
        return image
    if image.has_transparency_data:
        return _on_white(image)
    # converted, RGB would be copied
    return image if image.mode in ("L", "F", "RGB") else image.convert("RGB")


def _on_white(image: Any) -> Any:
    from PIL import Image

    image = image.convert("RGBA")
    background = Image.new("RGB", image.size, "white")
    background.paste(image, mask=image.getchannel("A"))
    return background


def _orientation(image: Any) -> int:
    """Read the EXIF tag of orientation, and nothing else of the EXIF data."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a photo with broken EXIF data is a photo
        return 1


def _turned(image: Any, orientation: int) -> Any:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image
