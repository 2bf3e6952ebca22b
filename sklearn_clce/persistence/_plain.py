"""Plain values to JSON and back: numbers, strings, paths, containers, arrays of labels."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

MAX_LABEL_BYTES = 16 * 2**20
SCALARS = (bool, int, float, str, type(None))

# how labels of a dtype's kind stand in JSON: as this type
_LABEL_TYPES = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": (float,),
    "U": (str,),
    "M": (int,),
    "m": (int,),
    "O": (str,),
}
_LABEL_DTYPE = re.compile(r"[<>|=]?[biufUO]\d{0,9}|[<>]?[mM]8\[\d{0,4}[a-zA-Z]{1,2}\]")


class NotPlainError(TypeError):
    """A value is not a plain one: it is an object or a callable."""


def to_json(value: Any) -> Any:
    """Turn a plain value into what JSON can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in SCALARS:
        return value
    if type(value) is list:
        return [to_json(item) for item in value]
    if type(value) is tuple:
        return {"tuple": [to_json(item) for item in value]}
    if type(value) is dict:
        pairs = [[to_json(key), to_json(item)] for key, item in value.items()]
        if all(type(key) in SCALARS for key, _ in pairs):
            return {"dict": pairs}
    if isinstance(value, os.PathLike) and isinstance(os.fspath(value), str):
        return {"path": os.fspath(value)}
    raise NotPlainError(f"{type(value).__name__} is not a plain value")


def from_json(saved: Any) -> Any:
    """Turn what :func:`to_json` made back into the value."""
    if type(saved) in SCALARS:
        return saved
    if type(saved) is list:
        return [from_json(item) for item in saved]
    kind, content = next(iter(saved.items())) if len(saved) == 1 else (None, None)
    if kind == "path" and type(content) is str:
        return Path(content)
    if kind == "tuple" and type(content) is list:
        return tuple(from_json(item) for item in content)
    if kind == "dict" and type(content) is list and all(map(_is_pair, content)):
        return {key: from_json(item) for key, item in content}
    raise ValueError(f"{sorted(saved)[:3]} names no kind of value")


def _is_pair(item: Any) -> bool:
    return type(item) is list and len(item) == 2 and type(item[0]) in SCALARS


def take(saved: Any, name: str, *types: type) -> Any:
    """Take an entry out of what JSON held, if it is of the type that it must be of."""
    if type(saved) is dict and name in saved and type(saved[name]) in types:
        return saved[name]
    wanted = " or ".join(kind.__name__ for kind in types)
    found = type(saved.get(name)).__name__ if type(saved) is dict else "nothing"
    raise ValueError(f"its entry {name!r} is {found}, where {wanted} is required")


def labels_to_json(labels: np.ndarray) -> dict[str, Any]:
    """Turn labels into what JSON can hold: labels (n,)."""
    kind = labels.dtype.kind
    if kind in "mM":
        values = labels.view(f"{labels.dtype.str[0]}i8").tolist()
    else:  # an object array may hold subclasses of str
        values = [str(value) if isinstance(value, str) else value for value in labels.tolist()]
    saved = {"dtype": labels.dtype.str, "values": values}
    labels_from_json(saved)
    return saved


def labels_from_json(saved: dict[str, Any]) -> np.ndarray:
    """Turn what :func:`labels_to_json` made back into labels: -> (n,)."""
    name, values = take(saved, "dtype", str), take(saved, "values", list)
    if not _LABEL_DTYPE.fullmatch(name):
        raise ValueError(
            f"labels of dtype {name[:20]!r}: bools, numbers, strings or dates are required"
        )
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(f"{name!r} is not a dtype of labels") from error
    types = _LABEL_TYPES.get(dtype.kind, ())
    if not all(type(value) in types for value in values):
        raise ValueError(f"labels of dtype {name!r} hold other things")
    if len(values) * dtype.itemsize > MAX_LABEL_BYTES:
        raise ValueError(f"{len(values)} labels of {dtype.itemsize} bytes are too large")
    try:
        return _array(values, dtype)
    except (OverflowError, UnicodeError) as error:
        raise ValueError(f"labels do not fit their dtype {name!r}") from error


def _array(values: list[Any], dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "mM":
        return np.array(values, dtype=f"{dtype.str[0]}i8").view(dtype)
    labels = np.array(values, dtype=dtype)
    if labels.tolist() != values:
        raise ValueError(f"labels do not fit their dtype {dtype.str!r}")
    return labels
