"""What a target is to the rest of the package: samples' labels, and how logits are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import sparray, spmatrix
from torch import Tensor

from .._head import Head
from ..losses import CLCELoss

Labels = ArrayLike | sparray | spmatrix
Indices = np.ndarray | slice


class Judged(NamedTuple):
    """A true label of each sample, a predicted one, and the probabilities of both: all (n,).

    The probability of a label that is not known is NaN.
    """

    labels: np.ndarray
    predictions: np.ndarray
    label_probability: np.ndarray
    prediction_probability: np.ndarray


class Outputs(ABC):
    """How labels become classes, and logits become predictions. Holds no data.

    Shapes: classes (n_classes,), logits (n, n_classes); labels and weights of samples as their
    target has them.
    """

    name: ClassVar[str]  # in a model file
    codes_are_indices: ClassVar[bool]  # of the classes; else an indicator of them
    criterion: ClassVar[type[CLCELoss]]

    # labels

    @abstractmethod
    def first_target(self, X: Any, y: Any, sample_weight: Any, class_weight: Any) -> Target:
        """Make the target of a fit, whose labels are the classes."""

    @abstractmethod
    def known_target(
        self,
        X: Any,
        y: Any,
        classes: np.ndarray,
        sample_weight: Any,
        class_weight: Any,
        **remedy: str,
    ) -> Target:
        """Make a target of labels that must be among the classes."""

    @abstractmethod
    def known_classes(self, y: Any, classes: Any, before: np.ndarray | None) -> np.ndarray:
        """Check the classes of a fit in parts; ``before`` are those of earlier parts."""

    @abstractmethod
    def new_classes(
        self, X: Any, y: Any, classes: np.ndarray
    ) -> tuple[np.ndarray, Callable[[Head, Tensor], None]]:
        """Return all classes, and what gives a head columns for new ones from its inputs."""

    @abstractmethod
    def check_classes(self, classes: np.ndarray) -> None:
        """Raise a ValueError if they can't be the classes of a fit."""

    @abstractmethod
    def truth(self, y: Any, classes: np.ndarray) -> np.ndarray:
        """Check true labels, and return them as :meth:`labels` returns predicted ones."""

    # logits

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Return probabilities (n, n_classes), in float32 after any precision."""

    @abstractmethod
    def codes(self, logits: Tensor) -> Tensor:
        """Return what is predicted in the form of a target's labels."""

    @abstractmethod
    def labels(self, logits: Tensor, classes: np.ndarray) -> np.ndarray:
        """Return what is predicted in the user's form."""

    @abstractmethod
    def frame_columns(
        self, pandas: Any, logits: Tensor, classes: np.ndarray, missing: list[int]
    ) -> dict[str, Any]:
        """Return what is predicted as columns of a data frame; ``missing`` rows have nothing."""

    @abstractmethod
    def decisions(self, logits: Tensor) -> Tensor:
        """Return the scores of ``decision_function``."""

    @abstractmethod
    def score_of(self, logits: Tensor, index: int) -> Tensor:
        """Return the score of one class (), from the logits of a sample (n_classes,)."""

    @abstractmethod
    def energy(self, logits: Tensor) -> Tensor:
        """Return how much logits speak for any class (n,); higher is more like training."""

    @abstractmethod
    def named(
        self, y: Any, predictions: np.ndarray, classes: np.ndarray, label: Any, **remedy: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return names of true and of predicted labels, (n,) each; ``label`` as in :meth:`judged`.

        Both names of a label that is not known say so.
        """

    @abstractmethod
    def judged(
        self, y: Any, probabilities: np.ndarray, classes: np.ndarray, label: Any = None
    ) -> Judged:
        """Compare true labels with probabilities (n, n_classes).

        ``label``: the one to look at, where there are several; None: for each sample the one that
        the probabilities are most wrong about.
        """

    # scores

    @abstractmethod
    def hits(self, logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether samples are predicted right (n,), and their weights (n,)."""

    @abstractmethod
    def accuracy(self, truth: np.ndarray, predicted: np.ndarray, sample_weight: Any) -> float:
        """Return the weighted share of samples that are predicted right."""

    # the classifier in closed form

    @abstractmethod
    def start_head(self, head: Head, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Fit scale and classifier of a head to features (n, n_features)."""

    @abstractmethod
    def refit_classifier(
        self, head: Head, features: Tensor, labels: Tensor, weights: Tensor
    ) -> None:
        """Fit the classifier of a trained head again, to features (n, n_features)."""


@dataclass(frozen=True)
class Target(ABC):
    """Labels of samples, and their weights.

    Shapes: classes (n_classes,), labels (n, ...), int64; weights (n, ...), float32.
    """

    classes: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    outputs: ClassVar[Outputs]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_outputs(self) -> int:
        """Number of logits."""
        return len(self.classes)

    @property
    def is_weighted(self) -> bool:
        """Whether samples have different weights."""
        return not bool((self.sample_weights == self.sample_weights[0]).all())

    @property
    def has_unknown(self) -> bool:
        """Whether some label of a sample is not known to be there or not."""
        return False

    def take(self, indices: np.ndarray) -> Self:
        """Take some samples."""
        return replace(self, labels=self.labels[indices], weights=self.weights[indices])

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return labels and weights as tensors."""
        return torch.from_numpy(self.labels), torch.from_numpy(self.weights)

    @property
    @abstractmethod
    def sample_weights(self) -> np.ndarray:
        """A weight for each sample, (n,); 0 is as good as no sample."""

    @property
    @abstractmethod
    def names(self) -> np.ndarray:
        """Labels as the user knows them."""

    @property
    @abstractmethod
    def groups(self) -> np.ndarray:
        """A class for each sample, (n,), for what needs one, such as balanced batches."""

    @abstractmethod
    def members(self) -> tuple[Indices, Tensor, Tensor]:
        """Return indices of samples, and for each a class that it is of, and its weight there."""

    @abstractmethod
    def split(self, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return indices of samples to train on, and of those to set aside of each class."""

    @abstractmethod
    def start_late_classes(self, head: Head, read: Callable[[np.ndarray], Tensor]) -> None:
        """Fit columns of classes that have their first samples now.

        ``read`` gives the classifier's inputs of samples by index.
        """

    @property
    def are_anchors(self) -> np.ndarray:
        """Whether samples are of any class, so that there may be positives of them, (n,)."""
        return np.ones(len(self), dtype=bool)

    @abstractmethod
    def paired(self, indices: Any) -> np.ndarray:
        """Return whether each of some samples has another of its class among them."""

    @abstractmethod
    def n_partners(self) -> np.ndarray:
        """Count the samples with a class of theirs, themselves included, for some that have one."""

    def evenly_per_class(self, max_per_class: int) -> np.ndarray:
        """Choose samples of each class, evenly from the first to the last: -> indices, sorted."""
        members, labels, _ = self.members()
        rows, codes = np.arange(len(self))[members], labels.numpy()
        chosen = []
        for label in np.unique(codes):
            indices = rows[codes == label]
            places = np.linspace(0, len(indices) - 1, min(len(indices), max_per_class))
            chosen.append(indices[places.astype(int)])
        return np.unique(np.concatenate(chosen)) if chosen else np.arange(0)
