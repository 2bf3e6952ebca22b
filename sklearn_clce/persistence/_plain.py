"""Plain values to JSON and back: numbers, strings, containers, arrays of labels."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

MAX_LABEL_BYTES = 16 * 2**20
SCALARS = (bool, int, float, str, type(None))

# the type in JSON of labels of each kind of dtype
_LABEL_TYPES = {"b": bool, "i": int, "u": int, "f": float, "U": str, "M": int, "m": int, "O": str}
_LABEL_DTYPE = re.compile(r"[<>|=]?[biufUO]\d{0,9}|[<>]?[mM]8\[\d{0,4}[a-zA-Z]{1,2}\]")


class NotPlainError(TypeError):
    """A value is an object or a callable."""


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
    raise NotPlainError(f"{type(value).__name__} is not a plain value")


def from_json(saved: Any) -> Any:
    """Turn the result of :func:`to_json` back into the value."""
    if type(saved) in SCALARS:
        return saved
    if type(saved) is list:
        return [from_json(item) for item in saved]
    kind, content = next(iter(saved.items())) if len(saved) == 1 else (None, None)
    if kind == "tuple" and type(content) is list:
        return tuple(from_json(item) for item in content)
    if kind == "dict" and type(content) is list and all(map(_is_pair, content)):
        return {key: from_json(item) for key, item in content}
    raise ValueError(f"{sorted(saved)[:3]} does not name a kind of value")


def _is_pair(item: Any) -> bool:
    return type(item) is list and len(item) == 2 and type(item[0]) in SCALARS


def take(saved: Any, name: str, *types: type) -> Any:
    """Return an entry of what JSON held, which must be of one of some types."""
    if type(saved) is dict and name in saved and type(saved[name]) in types:
        return saved[name]
    wanted = " or ".join(kind.__name__ for kind in types)
    found = type(saved.get(name)).__name__ if type(saved) is dict else "nothing"
    raise ValueError(f"its entry {name!r} is {found}, where {wanted} is required")


def take_number(saved: Any, name: str, low: float, high: float, *types: type) -> Any:
    """Return an entry that is a number in low..high, or None if that is one of the types."""
    value = take(saved, name, *types)
    if value is not None and not low <= value <= high:
        raise ValueError(f"its entry {name!r} is not in {low}..{high}")
    return value


def labels_to_json(labels: np.ndarray) -> dict[str, Any]:
    """Turn labels (n,) into what JSON can hold."""
    if labels.dtype.kind in "mM":
        values = labels.view(f"{labels.dtype.str[0]}i8").tolist()
    else:  # an object array may hold subclasses of str
        values = [str(value) if isinstance(value, str) else value for value in labels.tolist()]
    return {"dtype": labels.dtype.str, "values": values}


def labels_from_json(saved: dict[str, Any]) -> np.ndarray:
    """Turn the result of :func:`labels_to_json` back into labels (n,)."""
    name, values = take(saved, "dtype", str), take(saved, "values", list)
    try:
        dtype = np.dtype(name) if _LABEL_DTYPE.fullmatch(name) else None
    except TypeError:
        dtype = None
    if dtype is None:
        raise ValueError(
            f"labels of dtype {name[:20]!r}: bools, numbers, strings or dates are required"
        )
    if not all(type(value) is _LABEL_TYPES[dtype.kind] for value in values):
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
