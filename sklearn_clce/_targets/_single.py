"""One label for each sample: classes exclude each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedShuffleSplit
from torch import Tensor

from .. import _head
from .._head import Head
from .._labels import (
    as_labels,
    encode_known_labels,
    encode_labels,
    encode_new_labels,
    find_labels,
    known_classes,
)
from ..losses import CLCELoss
from ._base import Indices, Judged, Outputs, Target
from ._weights import checked_sample_weights, named_weights, scaled_weights, shown


@dataclass(frozen=True)
class SingleLabel(Outputs):
    """Each sample has one of the classes."""

    name = "single"
    codes_are_indices = True
    criterion = CLCELoss

    def first_target(
        self, X: Any, y: Any, sample_weight: Any, class_weight: Any
    ) -> SingleLabelTarget:
        classes, labels = encode_labels(X, y)
        return _target(classes, labels, sample_weight, class_weight)

    def known_target(
        self,
        X: Any,
        y: Any,
        classes: np.ndarray,
        sample_weight: Any,
        class_weight: Any,
        **remedy: str,
    ) -> SingleLabelTarget:
        labels = encode_known_labels(X, y, classes, **remedy)
        return _target(classes, labels, sample_weight, class_weight)

    def known_classes(self, y: Any, classes: Any, before: np.ndarray | None) -> np.ndarray:
        return known_classes(classes, before)

    def new_classes(
        self, X: Any, y: Any, classes: np.ndarray
    ) -> tuple[np.ndarray, Callable[[Head, Tensor], None]]:
        every, labels, order = encode_new_labels(X, y, classes)

        def add(head: Head, inputs: Tensor) -> None:
            _head.add_classes(head, inputs, torch.from_numpy(labels), torch.from_numpy(order))

        return every, add

    def check_classes(self, classes: np.ndarray) -> None:
        if len(classes) < 2 or not np.array_equal(np.unique(classes), classes):
            raise ValueError(
                f"classes={classes.tolist()!r}: two or more labels are required, sorted"
            )

    def truth(self, y: Any, classes: np.ndarray) -> np.ndarray:
        labels = as_labels(y)
        find_labels(labels, classes)
        return labels

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(dim=-1)

    def codes(self, logits: Tensor) -> Tensor:
        return logits.argmax(dim=1)

    def labels(self, logits: Tensor, classes: np.ndarray) -> np.ndarray:
        return classes[self.codes(logits).numpy()]

    def frame_columns(
        self, pandas: Any, logits: Tensor, classes: np.ndarray, missing: list[int]
    ) -> dict[str, Any]:
        indices = self.codes(logits).numpy()
        indices[missing] = -1  # pandas' code of a missing value
        return {"label": pandas.Categorical.from_codes(indices, categories=classes)}

    def decisions(self, logits: Tensor) -> Tensor:
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def score_of(self, logits: Tensor, index: int) -> Tensor:
        return logits[index] - logits.mean()

    def energy(self, logits: Tensor) -> Tensor:
        return _head.energy_of_classes(logits)

    def named(
        self, y: Any, predictions: np.ndarray, classes: np.ndarray, label: Any, **remedy: str
    ) -> tuple[np.ndarray, np.ndarray]:
        _check_no_label(label)
        return classes[encode_known_labels(predictions, y, classes, **remedy)], predictions

    def judged(
        self, y: Any, probabilities: np.ndarray, classes: np.ndarray, label: Any = None
    ) -> Judged:
        _check_no_label(label)
        codes = encode_known_labels(probabilities, y, classes)
        return Judged(
            classes[codes],
            classes[probabilities.argmax(axis=1)],
            probabilities[np.arange(len(codes)), codes],
            probabilities.max(axis=1),
        )

    def hits(self, logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self.codes(logits) == labels, weights

    def accuracy(self, truth: np.ndarray, predicted: np.ndarray, sample_weight: Any) -> float:
        return accuracy_score(truth, predicted, sample_weight=sample_weight)

    def start_head(self, head: Head, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        _head.start_head(head, features, labels, weights)

    def refit_classifier(
        self, head: Head, features: Tensor, labels: Tensor, weights: Tensor
    ) -> None:
        _head.refit_classifier(head, features, labels, weights)


@dataclass(frozen=True)
class SingleLabelTarget(Target):
    """A class index for each sample (n,), and its weight (n,)."""

    outputs = SingleLabel()

    @property
    def sample_weights(self) -> np.ndarray:
        return self.weights

    @property
    def names(self) -> np.ndarray:
        return self.classes[self.labels]

    @property
    def groups(self) -> np.ndarray:
        return self.labels

    def members(self) -> tuple[Indices, Tensor, Tensor]:
        return slice(None), *self.tensors()

    def paired(self, indices: Any) -> np.ndarray:
        labels = self.labels[indices]
        return np.bincount(labels)[labels] > 1

    def n_partners(self) -> np.ndarray:
        return np.bincount(self.labels)[self.labels]

    def start_late_classes(self, head: Head, read: Callable[[np.ndarray], Tensor]) -> None:
        late = np.flatnonzero(head.class_counts.cpu().numpy()[self.labels] == 0)
        if len(late):
            _head.start_late_classes(head, read(late), torch.from_numpy(self.labels[late]))

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
                f"early_stopping=True: y holds one sample of {shown(names[counts == 1])}, and "
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
                f"{n_classes} classes, {shown(names)}, needs one of both: set validation_fraction "
                f"to {bound}, or pass X_val and y_val"
            )


def _check_no_label(label: Any) -> None:
    if label is not None:
        raise ValueError(f"label={label!r}: y holds one label a sample, so leave it out")


def _target(
    classes: np.ndarray, labels: np.ndarray, sample_weight: Any, class_weight: Any
) -> SingleLabelTarget:
    """Multiply the weights of samples and of their classes."""
    weights = checked_sample_weights(sample_weight, len(labels))
    weights *= _class_weights(labels, classes, weights, class_weight)[labels]
    return SingleLabelTarget(classes, labels, scaled_weights(weights, class_weight))


def _class_weights(
    labels: np.ndarray, classes: np.ndarray, weights: np.ndarray, class_weight: Any
) -> np.ndarray:
    """Return a weight in 0..1 for each class; "balanced" is over the classes that have a sample."""
    if isinstance(class_weight, str):
        totals = np.bincount(labels, weights, minlength=len(classes))
        least = totals[totals > 0].min()
        return np.divide(least, totals, out=np.zeros(len(classes)), where=totals > 0)
    by_class = named_weights(class_weight or {}, classes)
    return by_class / (by_class.max() or 1)
