"""Weights of samples and classes, as the user gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from .._checks import to_numpy
from .._labels import N_SHOWN, as_labels, find_labels


def checked_sample_weights(sample_weight: Any, n: int) -> np.ndarray:
    """Return the weight of each of n samples; only ratios count, so the largest is 1."""
    weights = _check_sample_weight(
        to_numpy(sample_weight),
        np.empty((n, 1)),
        dtype=np.float64,
        ensure_non_negative=True,
    )
    if not weights.any():
        raise ValueError("sample_weight holds only zeros: at least one sample must count")
    return weights / weights.max()


def scaled_weights(weights: np.ndarray, class_weight: Any) -> np.ndarray:
    """Scale the product of both kinds of weights so that the largest is 1."""
    if not weights.any():
        raise ValueError(
            f"class_weight={class_weight!r}, times sample_weight, leaves no sample a weight above "
            "0: at least one must count"
        )
    return (weights / weights.max()).astype(np.float32)


def named_weights(class_weight: Mapping[Any, float], classes: np.ndarray) -> np.ndarray:
    """Return the weight that each class is given, else 1: (n_classes,)."""
    weights = np.ones(len(classes))
    if class_weight:
        names = as_labels(list(class_weight), "class_weight")
        indices, is_known = find_labels(names, classes, "class_weight")
        weights[indices[is_known]] = np.array(list(class_weight.values()), dtype=float)[is_known]
        if is_known.sum() < min(len(names), len(classes)):
            raise ValueError(
                f"class_weight names {shown(names[~is_known])}, which is not a class: the classes "
                f"are {shown(classes)}"
            )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(
            f"class_weight={class_weight!r}: weights must not be negative, infinite or missing"
        )
    return weights


def shown(labels: np.ndarray) -> str:
    """Name the first labels of some."""
    more = f" and {len(labels) - N_SHOWN} more" if len(labels) > N_SHOWN else ""
    return ", ".join(map(repr, labels[:N_SHOWN].tolist())) + more
