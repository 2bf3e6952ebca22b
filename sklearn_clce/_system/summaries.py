"""Short descriptions of arguments, to check that several processes were given the same.

They are cheap: of large arrays, and of images that must be read, a few are looked at.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from numbers import Number
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch import uint8 as torch_uint8

WHOLE_BYTES = 32 * 2**20  # of an array; of a larger one as many bytes are read, in rows
STORED_ROWS = 16  # of an array on disk
N_ITEMS = 256  # of a list of images
N_READ = 8  # of a Dataset
MAX_SHOWN = 60  # characters

PLAIN = (Number, str, os.PathLike, np.generic, type(None))

Summary = tuple[str | None, ...]  # None: a part that may differ


def summarize(value: Any) -> Summary:
    """Describe a value so that equal ones have equal descriptions."""
    return _of_dataset(value) if _is_dataset(value) else (describe(value),)


def differ(summaries: Iterable[Summary]) -> bool:
    """Return whether summaries, one of each process, can't be of equal values."""
    summaries = list(summaries)
    if len(set(map(len, summaries))) > 1:
        return True
    parts = map(set, zip(*summaries, strict=True))
    return any(len(part) > 1 and None not in part for part in parts)


def describe(value: Any) -> str:
    """Describe a value in a line; one that can't be read has the name of its type."""
    try:
        return _describe(value)
    except Exception:  # the call itself reads it, and says what is wrong
        return type(value).__qualname__


def _describe(value: Any) -> str:
    if hasattr(value, "to_numpy"):  # a data frame or one of its columns
        value = value.to_numpy()
    if isinstance(value, PLAIN):
        return _shortened(repr(value))
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes {_digest([value])}"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key!r}: {describe(each)}" for key, each in value.items())
        return _shortened(f"{{{pairs}}}")
    if isinstance(value, (list, tuple)):
        return _of_items(value)
    if isinstance(value, nn.Module):
        return _of_module(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _of_array(value)
    return _of_object(value)


def _of_items(items: list | tuple) -> str:
    """Describe a list: whole if it holds strings or numbers, else some of its items."""
    if all(isinstance(item, PLAIN) for item in items):
        return _shortened(f"[{', '.join(map(repr, items))}]", f"{len(items)} items")
    parts = ", ".join(describe(items[index]) for index in _evenly(len(items), N_ITEMS))
    return _shortened(f"[{parts}]", f"{len(items)} items")


def _of_array(array: Any) -> str:
    kind = getattr(array.dtype, "kind", "")
    if kind in ("O", "T"):  # objects, and strings of any length
        return _of_items(np.asarray(array).tolist())
    header = f"{array.dtype} {tuple(array.shape)}"
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
    n_rows = max(WHOLE_BYTES // max(row_bytes, 1), STORED_ROWS)
    if not isinstance(array, (np.ndarray, Tensor)):
        n_rows = STORED_ROWS
    if array.ndim < 2 or len(array) <= n_rows:
        return f"{header} {_digest([_bytes_of(array[...])])}"
    rows = (_bytes_of(array[index]) for index in _evenly(len(array), n_rows))
    return f"{header} {_digest(rows)}"


def _bytes_of(array: Any) -> bytes:
    if isinstance(array, Tensor):
        array = array.detach().cpu().contiguous().reshape(-1).view(torch_uint8).numpy()
    return np.asarray(array).tobytes()


def _of_module(module: nn.Module) -> str:
    """Describe a module by its class and its weights."""
    parts = (f"{name} {describe(value)}" for name, value in module.state_dict().items())
    return f"{type(module).__qualname__} {_digest(map(str.encode, parts))}"


def _of_object(value: Any) -> str:
    """Describe an image of Pillow or a file by its content, anything else by its name."""
    if hasattr(value, "getbands"):
        content = getattr(value, "filename", "") or _digest([value.tobytes()])
        return f"{value.mode} {value.size} {content}"
    if hasattr(value, "getvalue"):
        return _digest([value.getvalue()])
    return getattr(value, "__qualname__", None) or type(value).__qualname__


def _is_dataset(value: Any) -> bool:
    """Return whether a value computes its items, such as a torch Dataset."""
    known = (*PLAIN, list, tuple, bytes, bytearray, Mapping, nn.Module)
    is_known = isinstance(value, known) or hasattr(value, "to_numpy") or hasattr(value, "dtype")
    return not is_known and hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _of_dataset(dataset: Any) -> Summary:
    """Describe a Dataset by some of its items, those that are read twice alike."""
    header = f"{type(dataset).__qualname__} of {len(dataset)}"
    indices = describe(getattr(dataset, "indices", None))  # of a Subset
    return header, indices, *(_of_sample(dataset, i) for i in _evenly(len(dataset), N_READ))


def _of_sample(dataset: Any, index: int) -> str | None:
    try:
        first, second = (describe(dataset[index]) for _ in range(2))
    except Exception:  # the call itself reads it, and says what is wrong
        return None
    return first if first == second else None


def _evenly(n: int, n_chosen: int) -> list[int]:
    """Choose indices of n items, from the first to the last."""
    return np.linspace(0, n - 1, min(n, n_chosen)).astype(int).tolist()


def _shortened(text: str, name: str = "") -> str:
    """Return a text, or its digest if it is long."""
    return text if len(text) <= MAX_SHOWN else f"{name} {_digest([text.encode()])}".strip()


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return f"#{digest.hexdigest()}"
