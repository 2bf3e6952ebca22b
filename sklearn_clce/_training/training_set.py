"""What a fit learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .samples import Samples, part_of


@dataclass(frozen=True)
class TrainingSet:
    """Samples with labels and weights (n,), and the rows (n,) of what ``fit`` was given."""

    samples: Samples
    labels: np.ndarray
    weights: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, indices: np.ndarray) -> TrainingSet:
        """Take some, each once, or all as they are."""
        if len(indices) == len(self):
            return self
        samples = part_of(self.samples, indices)
        return TrainingSet(samples, self.labels[indices], self.weights[indices], self.rows[indices])
