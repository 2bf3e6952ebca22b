"""Reads an indicator of labels: a row for each sample, a column of 0 and 1 for each label."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_consistent_length

from .._checks import to_numpy
from .._labels import as_labels, find_labels
from ._weights import shown

ROWS = (list, tuple, np.ndarray)


@dataclass(frozen=True)
class Indicator:
    """Which label each sample has: values (n, n_classes) of 1, 0, and NaN if it is not known."""

    values: np.ndarray
    names: np.ndarray | None  # of the columns of a data frame, (n_classes,)

    def aligned(self, classes: np.ndarray, name: str = "y") -> np.ndarray:
        """Return the values with a column for each of the classes, in their order."""
        n_columns = self.values.shape[1]
        if self.names is None:
            if n_columns != len(classes):
                raise ValueError(
                    f"{name} has {n_columns} columns: one for each of the {len(classes)} labels, "
                    f"{shown(classes)}, is required"
                )
            return self.values
        places, is_known = find_labels(classes, self.names, "classes")
        if not is_known.all() or n_columns != len(classes):
            raise ValueError(
                f"{name} has the columns {shown(self.names)}: those of the fit are required, "
                f"{shown(classes)}"
            )
        return self.values[:, places]


def is_indicator(y: Any) -> bool:
    """Return whether y has several columns; those of objects that are no numbers have none."""
    if issparse(y):
        return True
    if hasattr(y, "shape") or hasattr(y, "__array__"):
        shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
        return len(shape) == 2 and shape[1] != 1
    if not isinstance(y, (list, tuple)) or len(y) == 0:
        return False
    lengths = {len(row) if isinstance(row, ROWS) else -1 for row in map(to_numpy, y)}
    return len(lengths) == 1 and lengths.pop() > 1 and all(map(_is_cell, y[0]))


def _is_cell(value: Any) -> bool:
    return value is None or isinstance(value, (Real, np.bool_))


def read_indicator(X: Any, y: Any, name: str = "y", *, may_be_one: bool = False) -> Indicator:
    """Read an indicator of as many rows as X; ``may_be_one``: of one column, too."""
    if not (may_be_one or is_indicator(y)):
        raise ValueError(
            f"{name} has one column: an indicator of shape (n, n_labels) is required, as in the "
            "fit before"
        )
    values, names = _values(to_numpy(y)), None
    if may_be_one and values is not None and values.ndim == 1:
        values = values[:, None]
    if values is None or not (np.isin(values, (0, 1)) | np.isnan(values)).all():
        raise ValueError(
            f"{name} should be a 1d array, got an array of shape {np.shape(y)} instead: one label "
            "for each sample is required, or, for several labels, an indicator with a column of 0 "
            "and 1 for each label; NaN in it means not annotated"
        )
    if values.shape[1] < 2 - may_be_one:
        raise ValueError(
            f"{name} of shape {values.shape}: at least two labels are required; one label alone, "
            "there or not, is two classes, in one dimension"
        )
    if hasattr(y, "columns"):
        names = as_labels(list(y.columns), f"columns of {name}")
        check_distinct(names, f"{name} has columns")
    if X is not None:
        check_consistent_length(X, values)
    return Indicator(values, names)


def _values(y: Any) -> np.ndarray | None:
    """Return numbers with NaN for what is missing or masked, float32; None if there are others."""
    if issparse(y):
        return y.toarray().astype(np.float32)
    try:
        if hasattr(y, "iloc"):
            return y.astype("Float32").to_numpy(dtype=np.float32, na_value=np.nan)
        if isinstance(y, np.ma.MaskedArray):
            return np.ma.filled(y.astype(np.float32), np.nan)
        return np.asarray(list(map(to_numpy, y)) if isinstance(y, (list, tuple)) else y, np.float32)
    except (ValueError, TypeError):
        return None


def check_distinct(names: np.ndarray, what: str) -> None:
    """Raise an error if two labels have one name."""
    unique, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{what} of one name, {shown(unique[counts > 1])}: rename them")
