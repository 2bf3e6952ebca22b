"""What happens between the steps: schedule, early stopping, the way back."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from skorch.callbacks import Callback, PassthroughScoring
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR

from .._system import broadcast
from .optim import warmup_cosine

VALIDATED = ("valid_loss", "valid_acc")  # what epochs record of a validation set


def check_callbacks(callbacks: list[Any] | None, *, validated: bool) -> None:
    """Refuse what is no callback of skorch, or watches a validation set where there is none."""
    for place, callback in enumerate(callbacks or ()):
        callback = callback[-1] if isinstance(callback, tuple) else callback
        callback = callback() if isinstance(callback, type) else callback
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks[{place}] is {type(callback).__name__}: a callback of skorch, or a "
                "tuple (name, callback), is required"
            )
        monitor = getattr(callback, "monitor", None)
        watches = isinstance(monitor, str) and monitor.removesuffix("_best") in VALIDATED
        if watches and not validated:
            raise ValueError(
                f"callbacks: {type(callback).__name__} watches {monitor!r}, which needs a "
                "validation set: early_stopping=True sets one aside, X_val and y_val bring one, "
                "and monitor='train_loss' needs none"
            )


class WarmupCosine(Callback):
    """Linear warm-up and cosine decay of the learning rate, step by step."""

    def __init__(self, warmup_fraction: float) -> None:
        self.warmup_fraction = warmup_fraction

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Start at the foot of the schedule."""
        self.scheduler_ = None
        if net.run.scheduled:
            self.scheduler_ = LambdaLR(net.optimizer_, partial(self._rate, net.run))

    def _rate(self, run: Any, step: float) -> float:
        """Return the share of the peak after a step, or after the time where that is further."""
        step = max(step, run.time.used * run.n_steps)
        return warmup_cosine(step, n_steps=run.n_steps, warmup_fraction=self.warmup_fraction)

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Move on by a step."""
        if training and self.scheduler_ is not None:
            self.scheduler_.step()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Record the rate of the new layers."""
        net.history.record("lr", net.optimizer_.param_groups[0]["lr"])

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Let go of the optimizer, which would travel in pickles."""
        self.scheduler_ = None


class ClipGradients(Callback):
    """Scale the gradients down where their norm is too large.

    skorch's own callback lists all parameters at every step, also those of a backbone
    that does not train; that took a seventh of the time of a head fit.
    """

    def __init__(self, max_norm: float | None) -> None:
        self.max_norm = max_norm

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        """Clip the gradients that the optimizer will read, and record their norm."""
        groups = net.optimizer_.param_groups
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        if self.max_norm is not None:
            clip_grads_with_norm_(parameters, self.max_norm, norm)
        net.history.record_batch("train_grad_norm", norm)


class LastGoodWeights(Callback):
    """Keep the weights of the last epoch that ended with finite losses."""

    weights_: dict[str, Tensor] | None = None

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Copy the weights."""
        self.weights_ = copy_weights(net.module_)

    def restore(self, net: Any) -> None:
        """Put the kept weights back."""
        net.module_.load_state_dict(self.weights_, strict=False)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Let go of the copy."""
        self.weights_ = None


class ValidationMean(PassthroughScoring):
    """Mean of an epoch's batches of validation samples, which count with their weights."""

    def get_avg_score(self, history: Any) -> float:
        """Return the mean over all batches of the epoch."""
        names = ["valid_weight", self.name]
        weights, scores = zip(*history[-1, "batches", :, names], strict=True)
        return float(np.average(scores, weights=weights))


class EarlyStopping(Callback):
    """Stop when the validation score no longer rises, and go back to its best."""

    def __init__(self, patience: int | None, tol: float) -> None:
        self.patience = patience
        self.tol = tol

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Begin to count."""
        self.best_score_ = float("-inf")
        self.n_failed_ = 0
        self.best_weights_: dict[str, Tensor] | None = None

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Compare with the best so far, as scikit-learn's MLPClassifier does."""
        if self.patience is None:
            return
        score = broadcast(float(net.history[-1, "valid_score"]))
        self.n_failed_ = self.n_failed_ + 1 if score < self.best_score_ + self.tol else 0
        if score > self.best_score_:
            self.best_score_ = score
            self.best_weights_ = copy_weights(net.module_)
        net.run.stopped = self.n_failed_ > self.patience

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Give the best weights back and let go of the copy."""
        if self.best_weights_ is not None:
            net.module_.load_state_dict(self.best_weights_, strict=False)
        self.best_weights_ = None


class RestoreCheckpoint(Callback):
    """Go on from the net's checkpoint, if it has one."""

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Put the net where it was written."""
        if net.run.checkpoint is not None:
            net.run.checkpoint.restore(net)


def copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """Copy what training can change to the CPU: all but a frozen backbone."""
    weights = {}
    for part, child in module.named_children():
        if not (part == "backbone" and module.frozen):
            for name, value in child.state_dict(prefix=f"{part}.").items():
                weights[name] = value.detach().to("cpu", copy=True)
    return weights
