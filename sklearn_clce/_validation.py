"""Checks of what a user hands in, with messages that name the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    assert_all_finite,
    check_consistent_length,
    column_or_1d,
)

from ._distributed import local_gpu

IMAGE_CHANNELS = (1, 3, 4)


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
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    return y


def known_classes(classes: Any, before: np.ndarray | None) -> np.ndarray:
    """Settle the classes of a fit in parts.

    Shapes: classes (n_classes,), before (n_classes,) -> (n_classes,).
    """
    if classes is None:
        if before is None:
            raise ValueError(
                "classes=None: classes must be passed on the first call to partial_fit"
            )
        return before
    classes = np.unique(column_or_1d(classes))
    if before is not None and not np.array_equal(classes, before):
        raise ValueError(
            f"classes={classes.tolist()!r} is not the same as on last call to partial_fit, "
            f"was: {before.tolist()!r}"
        )
    if len(classes) < 2:
        raise ValueError(f"classes={classes.tolist()!r}: at least two classes are required")
    return classes


def encode_known_labels(X: Any, y: Any, classes: np.ndarray) -> np.ndarray:
    """Turn labels into class indices, where the classes are settled.

    Shapes: y (n_samples,), classes (n_classes,) -> (n_samples,).
    """
    y = _checked_labels(X, y)
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"y holds labels that are not in classes: {unknown.tolist()[:5]!r}; name all classes "
            "in the first call to partial_fit"
        )
    return np.searchsorted(classes, y).astype(np.int64)


def sample_weights(
    labels: np.ndarray, classes: np.ndarray, sample_weight: Any, class_weight: Any
) -> np.ndarray:
    """Multiply the weights of samples and of their classes.

    Only ratios of weights count, so the largest is 1.
    Shapes: labels (n_samples,), classes (n_classes,), sample_weight (n_samples,) -> (n_samples,).
    """
    weights = _check_sample_weight(
        sample_weight, np.empty((len(labels), 1)), dtype=np.float64, ensure_non_negative=True
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


def check_default_dtype() -> None:
    """Refuse to build a network in anything but float32, which is what images come in."""
    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        raise ValueError(
            f"torch's default dtype is {dtype}, and networks are built in it: "
            "torch.set_default_dtype(torch.float32) is required"
        )


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn ``device`` into a torch device that is there."""
    if device == "auto":
        gpu = "cuda" if local_gpu() is None else f"cuda:{local_gpu()}"
        return torch.device(gpu if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device={device!r} can't be used here; device='auto' takes what there is ({reason})"
        ) from error
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn ``precision`` into the one to compute in."""
    if precision != "auto":
        return precision
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float32"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" for names near a known one, else an empty string."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.7)
    return f" Did you mean {', '.join(map(repr, near))}?" if near else ""


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Give an estimator its attributes back when the block raises."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
