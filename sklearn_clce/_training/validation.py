"""The samples that an epoch is validated on, and the score that it gets."""

from __future__ import annotations

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
from .._targets import Outputs, Target
from ..data import as_indices, is_single
from .batches import LabelledSamples, Samples
from .callbacks import ValidationMean
from .step_metrics import NonFiniteError
from .trainer import CLCENet

LogitsAndEmbeddings = tuple[Tensor, Tensor]  # logits and embeddings

# Scores that the batches of an epoch have recorded, and their sign as a score.
OF_BATCHES = {
    "accuracy": (ValidationMean("valid_acc"), 1),
    "loss": (ValidationMean("valid_loss"), -1),
}


@dataclass(frozen=True)
class ValidationSet:
    """Samples to validate on."""

    X: Any  # as a scorer gets them
    samples: Samples  # as the network takes them
    target: Target

    def with_samples(self, samples: Samples) -> ValidationSet:
        """Return the same in another form, such as features."""
        return replace(self, samples=samples)


def read_validation_set(
    X_val: Any,
    y_val: Any,
    sample_weight_val: Any,
    *,
    read: Callable[[Any], Samples],
    outputs: Outputs,
    classes: Any,
    early_stopping: bool,
) -> ValidationSet | None:
    """Check and read the user's own validation set, if there is one."""
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
            "early_stopping=False: X_val and y_val are for early stopping, and have no other "
            "effect; set early_stopping=True, or leave them out"
        )
    with prefix_errors("X_val and y_val"):
        check_not_swapped(X_val, y_val)
        remedy = "leave their samples out, or let y hold some"
        target = outputs.known_target(X_val, y_val, classes, sample_weight_val, None, remedy=remedy)
        is_list = isinstance(X_val, (list, tuple))
        return ValidationSet(Items(X_val) if is_list else X_val, read(X_val), target)


def set_aside(aside: LabelledSamples) -> ValidationSet:
    """Make a validation set of samples that do not train."""
    return ValidationSet(_rows_of(aside), aside.samples, aside.target)


class Items(list):
    """A list that takes masks and arrays of indices, as an array does."""

    def __getitem__(self, index: Any) -> Any:
        if is_single(index):
            return super().__getitem__(index)
        return Items(map(super().__getitem__, as_indices(index, len(self))))


def _rows_of(aside: LabelledSamples) -> Any:
    """Take rows of X, of the kind that it has; of a Dataset, read when they are asked for."""
    X, samples = aside.given, aside.samples
    if hasattr(X, "iloc"):
        return X.iloc[aside.rows]
    if isinstance(X, (np.ndarray, Tensor)):
        return X[aside.rows]
    if isinstance(X, (list, tuple)):
        return Items(X[row] for row in aside.rows)
    return samples.numpy() if isinstance(samples, Tensor) else samples


class ValidationScore:
    """The score of an epoch, by the parameter ``scoring``.

    A scorer gets the estimator in training, which answers for the validation set with the outputs
    of the epoch's own pass, and for other samples with the present network.
    ``estimator_with(net, X, outputs)`` makes it.
    """

    def __init__(
        self,
        scoring: str | Callable[..., float] | None,
        validation: ValidationSet,
        estimator_with: Callable[[CLCENet, Any, LogitsAndEmbeddings], Any],
    ) -> None:
        scoring = "accuracy" if scoring is None else scoring
        self.validation = validation
        self.estimator_with = estimator_with
        self.name = scoring if isinstance(scoring, str) else _name_of(scoring)
        self.of_batches = OF_BATCHES.get(self.name) if isinstance(scoring, str) else None
        self.outputs: list[list[Tensor]] = []
        if self.of_batches is None:
            self.scorer = get_scorer(scoring)
            if isinstance(scoring, str) and validation.target.has_unknown:
                raise ValueError(
                    f"scoring={scoring!r}: y holds labels that are not known, and scikit-learn's "
                    "scores need all; 'accuracy' or 'loss' is required, or a callable of your own"
                )

    def add(self, outputs: Sequence[Tensor]) -> None:
        """Keep the outputs of a batch; batches come in order."""
        if self.of_batches is None:
            self.outputs.append([gather(output).float().cpu() for output in outputs])

    def take(self, net: CLCENet, epoch: int) -> float:
        """Return the score of an epoch whose batches are over; higher is better."""
        if self.of_batches is not None:
            mean, sign = self.of_batches
            score = sign * mean.get_avg_score(net.history)
        else:
            score = self._call_scorer(net)
        if not isinstance(score, Real):
            raise TypeError(f"scoring={self.name!r} gives {score!r}: one number is required")
        if not math.isfinite(score):
            raise NonFiniteError(
                f"the validation score, scoring={self.name!r}, is {score} in epoch {epoch}: does "
                "the validation set hold every class, and the score need it?"
            )
        return float(score)

    def _call_scorer(self, net: CLCENet) -> Any:
        logits, embeddings = map(torch.cat, zip(*self.outputs, strict=True))
        self.outputs = []
        X, target = self.validation.X, self.validation.target
        estimator = self.estimator_with(net, X, (logits, embeddings))
        weighted = {"sample_weight": target.sample_weights} if target.is_weighted else {}
        return self.scorer(estimator, X, target.names, **weighted)


def _name_of(scoring: Any) -> str:
    return getattr(scoring, "__qualname__", None) or repr(scoring)
