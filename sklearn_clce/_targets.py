"""Targets: labels as class indices, and the weights of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor

from ._checks import to_numpy
from ._labels import N_SHOWN, as_labels, encode_known_labels, encode_labels, find_labels


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
        self._check_enough_to_split(validation_fraction)
        shuffled = StratifiedShuffleSplit(1, test_size=validation_fraction, random_state=seed)
        return next(shuffled.split(self.labels, self.labels))

    def _check_enough_to_split(self, validation_fraction: float) -> None:
        """Raise an error unless each class can have a sample on both sides."""
        present, counts = np.unique(self.labels, return_counts=True)
        names = self.classes[present]
        n, n_classes = len(self.labels), len(present)
        n_aside = math.ceil(validation_fraction * n)
        n_left = n - n_aside
        if (counts == 1).any():
            raise ValueError(
                f"early_stopping=True: y holds one sample of {_shown(names[counts == 1])}, and "
                "each class needs one to train on and one to set aside: add more, leave the class "
                "out, or pass X_val and y_val"
            )
        if min(n_aside, n_left) < n_classes:
            # both bounds round so that what is suggested suffices
            is_low = n_aside < n_classes
            least, most = math.ceil(100 * n_classes / n), math.floor(100 * (n - n_classes) / n)
            bound = f"at least {least / 100}" if is_low else f"at most {most / 100}"
            raise ValueError(
                f"early_stopping=True with validation_fraction={validation_fraction!r} sets "
                f"{n_aside} of {n} samples aside and leaves {n_left} to train on, and each of "
                f"{n_classes} classes, {_shown(names)}, needs one of both: set validation_fraction "
                f"to {bound}, or pass X_val and y_val"
            )

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
    by_class = _named_weights(class_weight or {}, classes)
    if not (np.isfinite(by_class).all() and (by_class >= 0).all()):
        raise ValueError(
            f"class_weight={class_weight!r}: weights must not be negative, infinite or missing"
        )
    return by_class / (by_class.max() or 1)


def _named_weights(class_weight: Mapping[Any, float], classes: np.ndarray) -> np.ndarray:
    """Return the weight that each class is given, else 1: (n_classes,)."""
    weights = np.ones(len(classes))
    if not class_weight:
        return weights
    names = as_labels(list(class_weight), "class_weight")
    indices, is_known = find_labels(names, classes, "class_weight")
    weights[indices[is_known]] = np.array(list(class_weight.values()), dtype=float)[is_known]
    if is_known.sum() < min(len(names), len(classes)):
        raise ValueError(
            f"class_weight names {_shown(names[~is_known])}, which is not a class: the classes are "
            f"{_shown(classes)}"
        )
    return weights


def _shown(labels: np.ndarray) -> str:
    """Name the first labels of some."""
    more = f" and {len(labels) - N_SHOWN} more" if len(labels) > N_SHOWN else ""
    return ", ".join(map(repr, labels[:N_SHOWN].tolist())) + more
