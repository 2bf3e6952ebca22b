"""What holds for one call of training alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.data import Dataset

from ..samplers import ClassBalancedBatchSampler, ShuffledBatchSampler
from .time_limit import TimeLimit

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .fit_tasks import FitTask
    from .validation import ValidationScore

BatchSampler = ShuffledBatchSampler | ClassBalancedBatchSampler
Augment = Callable[[Tensor], Tensor]  # a batch of images to an augmented one


@dataclass
class Run:
    """One call of training: its batches and length, and how far it is."""

    batch_sampler: BatchSampler | None = None
    n_epochs: int = 0
    scheduled: bool = True  # warm up and decay the learning rate; else it stays at its peak
    augment: Augment | None = None
    validation: Dataset | None = None
    score: ValidationScore | None = None  # of an epoch, on the validation samples
    checkpoint: Checkpoint | None = None
    fit_task: FitTask | None = None
    epochs_before: int = 0  # of earlier calls, in the history
    epochs_done: int = 0
    stopped: bool = False
    time: TimeLimit = field(default_factory=TimeLimit)
    is_of_clone: bool = False  # a search, or something like it, has begun it
    interrupted: bool = False
    cut_short: bool = False  # by the user, who keeps what there is

    @property
    def n_steps(self) -> int:
        """Steps of the optimizer, if nothing stops it."""
        assert self.batch_sampler is not None
        return self.n_epochs * len(self.batch_sampler)

    @property
    def is_over(self) -> bool:
        """Whether no epoch is to follow; one is run however little time there is."""
        enough = self.stopped or (self.time.is_over and self.epochs_done > 0)
        return enough or self.epochs_done >= self.n_epochs

    def ended(self) -> Run:
        """Return what may be kept: no data, and nothing of the caller's."""
        return replace(self, validation=None, score=None, checkpoint=None, fit_task=None)
