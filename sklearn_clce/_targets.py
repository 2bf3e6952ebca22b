"""Targets: labels as class indices, and the weights of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    assert_all_finite,
    check_consistent_length,
    column_or_1d,
)
from torch import Tensor

from ._checks import to_numpy

KIND_OF_LABEL = {"b": "bool", "i": "int", "u": "int", "f": "float", "U": "str", "O": "str"}


@dataclass(frozen=True)
class Target:
    """Labels of samples as class indices, and the weights of samples.

    The only place that knows how many outputs a network needs for them, and what a sample may be
    labelled with. Shapes: classes (n_classes,), labels (n,), int64; weights (n,), float32.
    """

    classes: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_outputs(self) -> int:
        """Number of logits."""
        return len(self.classes)

    @property
    def names(self) -> np.ndarray:
        """Labels as the user knows them, (n,)."""
        return self.classes[self.labels]

    @property
    def is_weighted(self) -> bool:
        """Whether samples have different weights."""
        return not bool((self.weights == self.weights[0]).all())

    def take(self, indices: np.ndarray) -> Target:
        """Take some samples."""
        return Target(self.classes, self.labels[indices], self.weights[indices])

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return labels and weights as tensors, both (n,)."""
        return torch.from_numpy(self.labels), torch.from_numpy(self.weights)

    def split(self, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return indices of samples to train on, and of those to set aside of each class."""
        shuffled = StratifiedShuffleSplit(1, test_size=validation_fraction, random_state=seed)
        try:
            return next(shuffled.split(self.labels, self.labels))
        except ValueError as error:
            raise ValueError(
                f"early_stopping=True with validation_fraction={validation_fraction!r}: {error}"
            ) from error

    def evenly_per_class(self, max_per_class: int) -> np.ndarray:
        """Choose samples of each class, evenly from the first to the last: -> indices, sorted."""
        chosen = []
        for label in np.unique(self.labels):
            indices = np.flatnonzero(self.labels == label)
            places = np.linspace(0, len(indices) - 1, min(len(indices), max_per_class))
            chosen.append(indices[places.astype(int)])
        return np.sort(np.concatenate(chosen))


def first_target(X: Any, y: Any, sample_weight: Any, class_weight: Any) -> Target:
    """Make the target of a fit, whose labels are the classes."""
    classes, labels = encode_labels(X, y)
    return Target(classes, labels, sample_weights(labels, classes, sample_weight, class_weight))


def known_target(
    X: Any, y: Any, classes: np.ndarray, sample_weight: Any, class_weight: Any, **remedy: str
) -> Target:
    """Make a target of labels that must be among the classes."""
    labels = encode_known_labels(X, y, classes, **remedy)
    return Target(classes, labels, sample_weights(labels, classes, sample_weight, class_weight))


def encode_labels(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Turn labels of any kind into class indices.

    Shapes: y (n_samples,) -> classes (n_classes,), labels (n_samples,).
    """
    y = _checked_labels(X, y)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y holds one class, {classes.tolist()[0]!r}: a classifier needs at least two"
        )
    return classes, labels.astype(np.int64)


def _checked_labels(X: Any, y: Any) -> np.ndarray:
    if y is None:
        raise ValueError("y=None: requires y to be passed, but the target y is None")
    _check_not_missing(y, "y")
    y = column_or_1d(_of_numpy_dtype(y), warn=True)
    check_consistent_length(X, y)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    return y


def _check_not_missing(y: Any, name: str) -> None:
    """Name the first missing label, before NumPy makes a string of it."""
    if hasattr(y, "iloc") and getattr(y, "ndim", 1) == 2:  # iterated, it gives names of columns
        y = y.iloc[:, 0]
    if isinstance(y, np.ndarray) and y.dtype.kind in "biuUS":
        return
    labels = [_only(label) for label in y] if hasattr(y, "__iter__") else []
    missing = [index for index, label in enumerate(labels) if _is_missing(label)]
    if missing:
        raise ValueError(
            f"{name}[{missing[0]}]={labels[missing[0]]!r}: Input {name} contains NaN or None in "
            f"place of {len(missing)} of {len(labels)} labels; leave these out"
        )


def _of_numpy_dtype(y: Any) -> Any:
    """Take labels out of tensors, and whole numbers and bools out of pandas' nullable columns."""
    y = to_numpy(y)
    if getattr(y, "ndim", 1) == 2 and hasattr(y, "iloc") and y.shape[1] == 1:
        y = y.iloc[:, 0]
    dtype = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    return y.to_numpy(dtype) if dtype is not None and dtype.kind in "biu" else y


def _only(label: Any) -> Any:
    """Take the label out of a row of one column."""
    is_row = isinstance(label, (np.ndarray, list, tuple)) and len(label) == 1
    return label[0] if is_row else label


def _is_missing(label: Any) -> bool:
    """Return whether a label is missing: None, NaN, and pandas' NA and NaT."""
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(label, (float, np.floating)) and bool(np.isnan(label))


def known_classes(classes: Any, before: np.ndarray | None) -> np.ndarray:
    """Check the classes of a fit in parts.

    Shapes: classes (n_classes,), before (n_classes,) -> (n_classes,).
    """
    if classes is None:
        if before is None:
            raise ValueError(
                "classes=None: classes must be passed on the first call to partial_fit"
            )
        return before
    _check_not_missing(classes, "classes")
    try:
        classes = np.unique(column_or_1d(_of_numpy_dtype(classes)))
    except TypeError as error:
        raise ValueError(f"classes={classes!r}: labels of one kind are required") from error
    if before is not None and not np.array_equal(classes, before):
        raise ValueError(
            f"classes={classes.tolist()!r} is not the same as on last call to partial_fit, "
            f"was: {before.tolist()!r}"
        )
    if len(classes) < 2:
        raise ValueError(f"classes={classes.tolist()!r}: at least two classes are required")
    return classes


def encode_known_labels(
    X: Any,
    y: Any,
    classes: np.ndarray,
    remedy: str = "name all classes in the first call to partial_fit",
) -> np.ndarray:
    """Turn labels into indices of known classes.

    Shapes: y (n_samples,), classes (n_classes,) -> (n_samples,).
    """
    y = _checked_labels(X, y)
    if isinstance(y[0], str) != isinstance(classes[0], str):  # NumPy would make text of numbers
        raise _other_kind(y, classes)
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"y holds labels that are not in classes: {unknown.tolist()[:5]!r}; {remedy}"
        )
    return np.searchsorted(classes, y).astype(np.int64)


def encode_new_labels(
    X: Any, y: Any, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add the labels of y to the classes, none of which may be among them.

    Shapes: y (n_samples,), classes (n_old,) -> classes (n_all,), sorted; labels (n_samples,),
    counted from the first new class; order (n_all,), each one's place among the old ones followed
    by the new ones.
    """
    new, labels = np.unique(_checked_labels(X, y), return_inverse=True)
    if KIND_OF_LABEL.get(new.dtype.kind) != KIND_OF_LABEL.get(classes.dtype.kind):
        raise _other_kind(new, classes)
    known = np.intersect1d(new, classes)
    if len(known):
        raise ValueError(
            f"y holds labels that are known already: {known.tolist()[:5]!r}; partial_fit trains on "
            "more images of those"
        )
    together = np.concatenate([classes, new])
    if KIND_OF_LABEL.get(together.dtype.kind) != KIND_OF_LABEL.get(classes.dtype.kind):
        raise ValueError(
            f"y holds labels of dtype {new.dtype}, and no dtype holds them and classes_, of "
            f"dtype {classes.dtype}: labels of that dtype are required"
        )
    order = np.argsort(together)
    return together[order], labels.astype(np.int64), order


def _other_kind(y: np.ndarray, classes: np.ndarray) -> ValueError:
    return ValueError(
        f"y holds labels such as {y.tolist()[0]!r}, of dtype {y.dtype}, and classes_ are such as "
        f"{classes.tolist()[0]!r}, of dtype {classes.dtype}: one kind is required"
    )


def sample_weights(
    labels: np.ndarray, classes: np.ndarray, sample_weight: Any, class_weight: Any
) -> np.ndarray:
    """Multiply the weights of samples and of their classes.

    Only ratios of weights count, so the largest is 1.
    Shapes: labels (n_samples,), classes (n_classes,), sample_weight (n_samples,) -> (n_samples,).
    """
    weights = _check_sample_weight(
        to_numpy(sample_weight),
        np.empty((len(labels), 1)),
        dtype=np.float64,
        ensure_non_negative=True,
    )
    if not weights.any():
        raise ValueError("sample_weight holds only zeros: at least one sample must count")
    weights = weights / weights.max()
    weights *= _class_weights(labels, classes, weights, class_weight)[labels]
    if not weights.any():
        raise ValueError(
            f"class_weight={class_weight!r}, times sample_weight, leaves no sample a weight above "
            "0: at least one must count"
        )
    return (weights / weights.max()).astype(np.float32)


def _class_weights(
    labels: np.ndarray, classes: np.ndarray, weights: np.ndarray, class_weight: Any
) -> np.ndarray:
    """Return a weight in 0..1 for each class; "balanced" is over the classes that have a sample."""
    if isinstance(class_weight, str):
        totals = np.bincount(labels, weights, minlength=len(classes))
        least = totals[totals > 0].min()
        return np.divide(least, totals, out=np.zeros(len(classes)), where=totals > 0)
    by_class = compute_class_weight(class_weight, classes=classes, y=classes)
    if not (np.isfinite(by_class).all() and (by_class >= 0).all()):
        raise ValueError(
            f"class_weight={class_weight!r}: weights must not be negative, infinite or missing"
        )
    return by_class / (by_class.max() or 1)
