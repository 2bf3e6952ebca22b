"""Several labels for each sample: a yes or no for each class, or neither if it is not known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_consistent_length
from torch import Tensor
from torch.nn.functional import softplus

from .. import _head
from .._head import Head
from .._labels import as_labels, find_labels
from ..losses import MultilabelCLCELoss
from ._base import Indices, Judged, Outputs, Target
from ._indicator import check_distinct, read_indicator
from ._splits import split_by_labels
from ._weights import checked_sample_weights, named_weights, scaled_weights, shown

MAX_COMPARED = 1000  # samples; more hardly change the share of those without a partner


@dataclass(frozen=True)
class Multilabel(Outputs):
    """Each sample has any of the classes, each by a logit of its own."""

    name = "multilabel"
    codes_are_indices = False
    criterion = MultilabelCLCELoss

    def first_target(
        self, X: Any, y: Any, sample_weight: Any, class_weight: Any
    ) -> MultilabelTarget:
        indicator = read_indicator(X, y)
        classes = indicator.names
        if classes is None:
            classes = np.arange(indicator.values.shape[1])
        return _target(classes, indicator.values, sample_weight, class_weight)

    def known_target(
        self,
        X: Any,
        y: Any,
        classes: np.ndarray,
        sample_weight: Any,
        class_weight: Any,
        **remedy: str,
    ) -> MultilabelTarget:
        values = read_indicator(X, y).aligned(classes)
        return _target(classes, values, sample_weight, class_weight)

    def known_classes(self, y: Any, classes: Any, before: np.ndarray | None) -> np.ndarray:
        indicator = read_indicator(None, y)
        if before is None:
            before = indicator.names
        if classes is None:
            return np.arange(indicator.values.shape[1]) if before is None else before
        classes = as_labels(classes, "classes")
        check_distinct(classes, "classes are several")
        indicator.aligned(classes)
        order = list if indicator.names is None else sorted  # classes name an array's columns
        if before is not None and order(before.tolist()) != order(classes.tolist()):
            raise ValueError(
                f"classes={classes.tolist()!r} is not the same as on last call to partial_fit, "
                f"was: {before.tolist()!r}"
            )
        return classes if before is None else before

    def new_classes(
        self, X: Any, y: Any, classes: np.ndarray
    ) -> tuple[np.ndarray, Callable[[Head, Tensor], None]]:
        names, values = _new_columns(X, y, classes)
        target = _target(names, values, None, None)
        has_both = (values == 1).any(axis=0) & (values == 0).any(axis=0)
        if not has_both.all():
            raise ValueError(
                f"y: images with and without {shown(names[~has_both])} are required to learn it"
            )

        def add(head: Head, inputs: Tensor) -> None:
            _head.add_labels(head, inputs, *target.tensors())
            rows, labels, weights = target.members()
            labels = labels + len(classes)
            head.add_class_means(inputs[rows], labels, weights, keep_earlier=True)

        return np.concatenate([classes, names]), add

    def check_classes(self, classes: np.ndarray) -> None:
        if len(classes) < 2 or len(np.unique(classes)) < len(classes):
            raise ValueError(
                f"classes={classes.tolist()!r}: two or more different labels are required"
            )

    def truth(self, y: Any, classes: np.ndarray) -> np.ndarray:
        return read_indicator(None, y).aligned(classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()

    def codes(self, logits: Tensor) -> Tensor:
        return (logits > 0).long()

    def labels(self, logits: Tensor, classes: np.ndarray) -> np.ndarray:
        return self.codes(logits).numpy()

    def frame_columns(
        self, pandas: Any, logits: Tensor, classes: np.ndarray, missing: list[int]
    ) -> dict[str, Any]:
        columns = {}
        for name, column in zip(classes.tolist(), (logits > 0).numpy().T, strict=True):
            columns[f"label_{name}"] = pandas.array(column, dtype="boolean")
            columns[f"label_{name}"][missing] = pandas.NA
        return columns

    def decisions(self, logits: Tensor) -> Tensor:
        return logits

    def score_of(self, logits: Tensor, index: int) -> Tensor:
        return logits[index]

    def energy(self, logits: Tensor) -> Tensor:
        return softplus(logits).sum(dim=1)

    def named(
        self, y: Any, predictions: np.ndarray, classes: np.ndarray, label: Any, **remedy: str
    ) -> tuple[np.ndarray, np.ndarray]:
        if label is None:
            raise ValueError(
                f"label=None: y holds several labels a sample, so one of them is required, such as "
                f"{classes.tolist()[0]!r}"
            )
        place = place_of(label, classes)
        truth, predicted = self.truth(y, classes)[:, place], predictions[:, place]
        check_consistent_length(truth, predicted)
        names = np.array([f"not {label}", str(label), f"{label} not known"])
        codes = np.where(np.isnan(truth), 2, truth).astype(int)
        return names[codes], names[np.where(codes == 2, 2, predicted)]

    def judged(
        self, y: Any, probabilities: np.ndarray, classes: np.ndarray, label: Any = None
    ) -> Judged:
        truth = self.truth(y, classes)  # (n, n_classes)
        check_consistent_length(truth, probabilities)
        of_truth = np.where(truth == 1, probabilities, 1 - probabilities)
        of_truth = np.where(np.isnan(truth), np.nan, of_truth)
        if label is None:
            places = np.where(np.isnan(truth), np.inf, of_truth).argmin(axis=1)
        else:
            places = np.full(len(truth), place_of(label, classes))
        cells = np.arange(len(truth)), places
        is_there, is_predicted = truth[cells] == 1, probabilities[cells] > 0.5
        of_prediction = np.where(is_predicted, probabilities[cells], 1 - probabilities[cells])
        there, absent = (
            np.array([f"{prefix}{name}" for name in classes])[places] for prefix in ("", "not ")
        )
        return Judged(
            np.where(is_there, there, absent),
            np.where(is_predicted, there, absent),
            of_truth[cells],
            of_prediction,
        )

    def hits(self, logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        right = ((self.codes(logits) == labels) | (weights == 0)).all(dim=1)
        return right, _mean_of_known(weights)

    def accuracy(self, truth: np.ndarray, predicted: np.ndarray, sample_weight: Any) -> float:
        check_consistent_length(truth, predicted)
        is_known = ~np.isnan(truth)
        right = ((truth == predicted) | ~is_known).all(axis=1)
        weights = checked_sample_weights(sample_weight, len(truth)) * is_known.any(axis=1)
        if not weights.any():
            raise ValueError("y holds no sample with a weight whose labels are known")
        return float(np.average(right, weights=weights))

    def start_head(self, head: Head, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        _head.start_head_by_label(head, features, labels, weights)

    def refit_classifier(
        self, head: Head, features: Tensor, labels: Tensor, weights: Tensor
    ) -> None:
        _head.refit_by_label(head, features, labels, weights)


@dataclass(frozen=True)
class MultilabelTarget(Target):
    """A 1 or 0 for each sample and class, its weight, 0 if not known, and whether it is known.

    Shapes: (n, n_classes).
    """

    is_known: np.ndarray

    outputs = Multilabel()

    def take(self, indices: np.ndarray) -> Self:
        return replace(super().take(indices), is_known=self.is_known[indices])

    @property
    def has_unknown(self) -> bool:
        return not bool(self.is_known.all())

    @property
    def sample_weights(self) -> np.ndarray:
        return _mean_of_known(torch.from_numpy(self.weights)).numpy()

    @property
    def names(self) -> np.ndarray:
        return np.where(self.is_known, self.labels, np.nan) if self.has_unknown else self.labels

    @property
    def groups(self) -> np.ndarray:
        return _head.rarest_labels(torch.from_numpy(self.labels)).numpy()

    def members(self) -> tuple[Indices, Tensor, Tensor]:
        rows, labels = np.nonzero(self.labels)
        return rows, torch.from_numpy(labels), torch.from_numpy(self.weights[rows, labels])

    def split(self, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        n_aside = int(np.ceil(validation_fraction * len(self)))
        if not 0 < n_aside < len(self):
            raise ValueError(
                f"early_stopping=True with validation_fraction={validation_fraction!r} sets "
                f"{n_aside} of {len(self)} samples aside: at least one is required to train on, "
                "and one to set aside; or pass X_val and y_val"
            )
        return split_by_labels(self.labels, n_aside, seed)

    @property
    def are_anchors(self) -> np.ndarray:
        return self.labels.sum(axis=1) > 0

    def paired(self, indices: Any) -> np.ndarray:
        labels = self.labels[indices].astype(np.float32)
        with_label: np.ndarray = labels @ labels.sum(axis=0)
        return with_label > labels.sum(axis=1)

    def n_partners(self) -> np.ndarray:
        labels = self.labels.astype(np.float32)
        anchors = labels[self.are_anchors]
        places = np.linspace(0, len(anchors) - 1, min(len(anchors), MAX_COMPARED)).astype(int)
        return (anchors[places] @ labels.T > 0).sum(axis=1)

    def start_late_classes(self, head: Head, read: Callable[[np.ndarray], Tensor]) -> None:
        is_new = head.class_counts.cpu().numpy() == 0
        late = np.flatnonzero(is_new & self.labels.any(axis=0))
        if len(late):
            rows = np.flatnonzero(self.weights[:, late].any(axis=1))
            labels, weights = self.take(rows).tensors()
            _head.start_late_labels(head, read(rows), labels, weights, torch.from_numpy(late))


def _target(
    classes: np.ndarray, values: np.ndarray, sample_weight: Any, class_weight: Any
) -> MultilabelTarget:
    """Multiply the weights of samples, of labels and of what is known of them."""
    is_known = ~np.isnan(values)
    labels = np.where(is_known, values, 0).astype(np.int64)
    weights = checked_sample_weights(sample_weight, len(labels))[:, None] * is_known
    if not weights.any():
        raise ValueError("y holds no label that is known, for a sample with a weight")
    if isinstance(class_weight, str):
        weights = _balanced(labels, weights)
    elif class_weight:
        weights *= np.where(labels, named_weights(class_weight, classes), 1)
    return MultilabelTarget(classes, labels, scaled_weights(weights, class_weight), is_known)


def place_of(label: Any, classes: np.ndarray) -> int:
    """Return the place of a label among the classes."""
    places, is_known = find_labels(as_labels([label], "label"), classes, "label")
    if not is_known[0]:
        raise ValueError(f"label={label!r}: one of the labels {shown(classes)} is required")
    return int(places[0])


def _balanced(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Give samples with and without a label half of its weight each, if it has both."""
    total = weights.sum(axis=0)  # (n_classes,)
    with_label = (weights * labels).sum(axis=0)
    of_side = np.where(labels, with_label, total - with_label)
    has_both = (with_label > 0) & (with_label < total)
    return weights * np.divide(total / 2, of_side, out=np.ones(labels.shape), where=has_both)


def _mean_of_known(weights: Tensor) -> Tensor:
    """Return the mean of the weights above 0 of each sample, (n,)."""
    return weights.sum(dim=1) / (weights > 0).sum(dim=1).clamp(min=1)


def _with_name(y: Any) -> Any:
    """Return a named series as the frame of its column; without a name it is an array."""
    return y.to_frame() if getattr(y, "name", None) is not None and hasattr(y, "to_frame") else y


def _new_columns(X: Any, y: Any, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return names and values of new labels; columns without names count on from the old ones."""
    indicator = read_indicator(X, _with_name(y), may_be_one=True)
    names, n_old = indicator.names, len(classes)
    if names is None:
        if not np.array_equal(classes, np.arange(n_old)):
            raise ValueError(
                f"y has no names: the labels are {shown(classes)}, so a data frame is required, "
                "whose columns name the new ones"
            )
        names = np.arange(n_old, n_old + indicator.values.shape[1])
    _, is_known = find_labels(names, classes, "columns of y")
    if is_known.any():
        raise ValueError(
            f"y holds labels that are known already: {shown(names[is_known])}; partial_fit trains "
            "on more images of those"
        )
    return names, indicator.values
