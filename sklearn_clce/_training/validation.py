"""The samples that an epoch is judged by, and the score that it gets."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.metrics import get_scorer
from torch import Tensor

from .._checks import check_not_swapped, prefix_errors
from .._system import gather
from .._targets import encode_known_labels, sample_weights
from .callbacks import ValidationMean
from .parameters import CLCEParameters
from .readings import NonFiniteError

# What the batches of an epoch tell, and its sign as a score.
OF_BATCHES = {
    "accuracy": (ValidationMean("valid_acc"), 1),
    "loss": (ValidationMean("valid_loss"), -1),
}


@dataclass(frozen=True)
class ValidationSet:
    """Samples to validate on; labels (n,) are indices into the classes, weights are (n,)."""

    X: Any  # what a scorer is given
    samples: Any  # as the network reads them
    labels: np.ndarray
    weights: np.ndarray

    def with_samples(self, samples: Any) -> ValidationSet:
        """Return the same in another form, such as features."""
        return replace(self, samples=samples)


def chosen_validation_set(
    X_val: Any,
    y_val: Any,
    sample_weight_val: Any,
    *,
    read: Callable[[Any], Any],
    classes: np.ndarray,
    early_stopping: bool,
) -> ValidationSet | None:
    """Check and read a validation set of the user's own, if there is one."""
    given = {"X_val": X_val, "y_val": y_val, "sample_weight_val": sample_weight_val}
    named = [name for name, value in given.items() if value is not None]
    if not named:
        return None
    if X_val is None or y_val is None:
        missing = "X_val" if X_val is None else "y_val"
        raise ValueError(
            f"{missing}=None, but {' and '.join(named)} is there: X_val and y_val are required "
            "together"
        )
    if not early_stopping:
        raise ValueError(
            "early_stopping=False: X_val and y_val are what early stopping watches, and have no "
            "other effect; set early_stopping=True, or leave them out"
        )
    with prefix_errors("X_val and y_val"):
        check_not_swapped(X_val, y_val)
        labels = encode_known_labels(
            X_val, y_val, classes, remedy="leave their samples out, or let y hold some"
        )
        return ValidationSet(
            X_val, read(X_val), labels, sample_weights(labels, classes, sample_weight_val, None)
        )


def set_aside(samples: Any, labels: np.ndarray, weights: np.ndarray) -> ValidationSet:
    """Make a validation set of samples that do not train."""
    return ValidationSet(
        samples.numpy() if isinstance(samples, Tensor) else samples, samples, labels, weights
    )


class ValidationScore:
    """The score of an epoch, by the parameter ``scoring`` of an estimator in training.

    A scorer is given a copy of the estimator that answers for the validation set what the network
    said in the epoch's own pass, and for other samples what it says now.
    """

    def __init__(self, estimator: CLCEParameters, validation: ValidationSet) -> None:
        self.estimator: Any = estimator
        self.validation = validation
        scoring = "accuracy" if estimator.scoring is None else estimator.scoring
        self.name = scoring if isinstance(scoring, str) else _name_of(scoring)
        self.of_batches = OF_BATCHES.get(self.name) if isinstance(scoring, str) else None
        self.outputs: list[list[Tensor]] = []
        if self.of_batches is None:
            self.scorer = get_scorer(scoring)

    def add(self, outputs: Sequence[Tensor]) -> None:
        """Note what the network says of a batch; batches come in order."""
        if self.of_batches is None:
            self.outputs.append([gather(output).float().cpu() for output in outputs])

    def take(self, net: Any, epoch: int) -> float:
        """Return the score of an epoch whose batches are over; higher is better."""
        if self.of_batches is not None:
            mean, sign = self.of_batches
            score = sign * mean.get_avg_score(net.history)
        else:
            score = self._ask(net)
        if not isinstance(score, Real):
            raise TypeError(f"scoring={self.name!r} gives {score!r}: one number is required")
        if not math.isfinite(score):
            raise NonFiniteError(
                f"the validation score, scoring={self.name!r}, is {score} in epoch {epoch}: does "
                "the validation set hold every class, and the score need it?"
            )
        return float(score)

    def _ask(self, net: Any) -> Any:
        """Let the scorer score."""
        logits, embeddings = map(torch.cat, zip(*self.outputs, strict=True))
        self.outputs = []
        X, weights = self.validation.X, self.validation.weights
        scored = copy.copy(self.estimator)
        compute = scored._infer
        vars(scored).update(
            net_=net, _infer=lambda other: (logits, embeddings) if other is X else compute(other)
        )
        y = scored.classes_[self.validation.labels]
        weighted = {} if (weights == weights[0]).all() else {"sample_weight": weights}
        return self.scorer(scored, X, y, **weighted)


def _name_of(scoring: Any) -> str:
    return getattr(scoring, "__qualname__", None) or repr(scoring)
