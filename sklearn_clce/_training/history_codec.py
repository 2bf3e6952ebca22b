"""The figures of epochs, small in a pickle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

Epoch = dict[str, Any]
Packed = tuple[list[str], list[np.ndarray | list[Any]]]
COLUMNS = {float: np.float64, np.float64: np.float64, int: np.int64, bool: np.bool_}


def pack(epochs: Iterable[Epoch]) -> list[Packed]:
    """Turn epochs into columns, one set for each run of epochs that hold the same kinds."""
    packed: list[Packed] = []
    for kinds, group in groupby(epochs, key=_kinds):
        columns = zip(*(epoch.values() for epoch in group), strict=True)
        dtypes = [COLUMNS.get(kind) for _, kind in kinds]
        packed.append(
            (
                [name for name, _ in kinds],
                [
                    list(column) if dtype is None else np.array(column, dtype)
                    for column, dtype in zip(columns, dtypes, strict=True)
                ],
            )
        )
    return packed


def _kinds(epoch: Epoch) -> list[tuple[str, type]]:
    return [(name, type(value)) for name, value in epoch.items()]


def unpack(packed: Iterable[Packed]) -> Iterator[Epoch]:
    """Yield the epochs again, in plain numbers."""
    for names, columns in packed:
        plain = [c.tolist() if isinstance(c, np.ndarray) else c for c in columns]
        for values in zip(*plain, strict=True):
            yield dict(zip(names, values, strict=True))
