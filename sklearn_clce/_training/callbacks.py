"""What happens between the steps: schedule, early stopping, the way back, progress."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from skorch.callbacks import Callback, PassthroughScoring
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR

from .._network import warmup_cosine
from .._system import (
    bar,
    broadcast,
    duration,
    expect,
    is_due,
    is_interactive,
    is_main,
    time_left,
    write_line,
)
from .plan import FitPlan
from .trainer import CLCENet, FitState

SHOWN = {"train_loss": "loss", "valid_loss": "validation loss", "valid_acc": "validation accuracy"}


class WarmupCosine(Callback):
    """Linear warm-up and cosine decay of the learning rate, step by step."""

    def __init__(self, warmup_fraction: float) -> None:
        self.warmup_fraction = warmup_fraction

    def on_train_begin(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Start at the foot of the schedule; a partial fit stays at the peak."""
        self.scheduler_ = None
        if not net.plan.is_partial_fit:
            self.scheduler_ = LambdaLR(net.optimizer_, partial(self._rate, net.state))

    def _rate(self, state: FitState, step: float) -> float:
        """Return the share of the peak, by steps or elapsed time, whichever is further along."""
        step = max(step, state.time.used * state.n_steps)
        return warmup_cosine(step, n_steps=state.n_steps, warmup_fraction=self.warmup_fraction)

    def on_batch_end(self, net: CLCENet, training: bool = False, **kwargs: Any) -> None:
        """Move on by a step."""
        if training and self.scheduler_ is not None:
            self.scheduler_.step()

    def on_epoch_end(self, net: CLCENet, **kwargs: Any) -> None:
        """Record the rate of the new layers."""
        net.history.record("lr", net.optimizer_.param_groups[0]["lr"])

    def on_train_end(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Drop the optimizer."""
        self.scheduler_ = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the optimizer, also in the middle of a fit."""
        return vars(self) | {"scheduler_": None}


class ClipGradients(Callback):
    """Scale the gradients down if their norm is too large.

    skorch's own callback lists all parameters at every step, also those of a frozen
    backbone; that took a seventh of the time of a head fit.
    """

    def __init__(self, max_norm: float | None) -> None:
        self.max_norm = max_norm

    def on_grad_computed(self, net: CLCENet, named_parameters: Any, **kwargs: Any) -> None:
        """Clip the gradients that the optimizer will use, and record their norm."""
        groups = net.optimizer_.param_groups
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        if self.max_norm is not None:
            clip_grads_with_norm_(parameters, self.max_norm, norm)
        net.history.record_batch("train_grad_norm", norm)


class LastGoodWeights(Callback):
    """Keep the weights of the last epoch that ended with finite losses."""

    weights_: dict[str, Tensor] | None = None

    def on_epoch_end(self, net: CLCENet, **kwargs: Any) -> None:
        """Copy the weights."""
        self.weights_ = net.module_.trained_state()

    def restore(self, net: CLCENet) -> None:
        """Put the kept weights back."""
        assert self.weights_ is not None  # an epoch has ended
        net.module_.load_state_dict(self.weights_, strict=False)

    def on_train_end(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Drop the copy."""
        self.weights_ = None


class ValidationMean(PassthroughScoring):
    """Weighted mean of an epoch's batches of validation samples."""

    def get_avg_score(self, history: Any) -> float:
        """Return the mean over all batches of the epoch."""
        names = ["valid_weight", self.name]
        weights, scores = zip(*history[-1, "batches", :, names], strict=True)
        return float(np.average(scores, weights=weights))


class EarlyStopping(Callback):
    """Stop when the validation score no longer rises, and restore its best weights."""

    def __init__(self, patience: int | None, tol: float) -> None:
        self.patience = patience
        self.tol = tol

    def on_train_begin(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Begin to count."""
        self.best_score_ = float("-inf")
        self.n_failed_ = 0
        self.best_weights_: dict[str, Tensor] | None = None

    def on_epoch_end(self, net: CLCENet, **kwargs: Any) -> None:
        """Compare with the best so far, as scikit-learn's MLPClassifier does."""
        if self.patience is None:
            return
        score = broadcast(float(net.history[-1, "valid_score"]))
        self.n_failed_ = self.n_failed_ + 1 if score < self.best_score_ + self.tol else 0
        if score > self.best_score_:
            self.best_score_ = score
            self.best_weights_ = net.module_.trained_state()
        net.state.stopped = self.n_failed_ > self.patience

    def on_train_end(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Restore the best weights and drop the copy."""
        if self.best_weights_ is not None:
            net.module_.load_state_dict(self.best_weights_, strict=False)
        self.best_weights_ = None


class RestoreCheckpoint(Callback):
    """Resume from the net's checkpoint, if it has one."""

    def on_train_begin(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Restore the state in which the checkpoint was written."""
        if net.state.checkpoint is not None:
            net.state.checkpoint.restore(net)


class Progress(Callback):
    """Shows how far the epochs are, in the line that moves and where that can't move in lines."""

    stage_: Any = None

    def on_train_begin(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Open a stage, and say where a checkpoint resumes."""
        state, n_steps = net.state, net.plan.n_steps
        if net.verbose and is_main():
            self._say_what_trains(net)
        expect()
        self.stage_ = bar(
            total=net.plan.n_epochs * n_steps,
            first=state.epochs_done * n_steps,
            unit="step",
            what="training",
            deadline=state.time.start + state.time.seconds,
            shown=False,
        )
        self.stage_.place = f"epoch {self._number(net)}"

    def _say_what_trains(self, net: CLCENet) -> None:
        if net.verbose > 1:
            parameters = list(net.module_.parameters())
            trained = sum(p.numel() for p in parameters if p.requires_grad)
            write_line(f"training {trained:,} of {sum(p.numel() for p in parameters):,} parameters")
        checkpoint, n_before = net.state.checkpoint, net.state.epochs_done
        if checkpoint is not None and n_before:  # which RestoreCheckpoint has restored
            is_over = "the fit is over" if net.state.is_over else "continuing"
            where = f"checkpoint={str(checkpoint.folder)!r}"
            write_line(f"{where}: {is_over} after epoch {n_before} of {net.plan.max_epochs}")

    def _number(self, net: CLCENet) -> str:
        n_epochs = net.plan.n_epochs
        return f"{min(net.state.epochs_done + 1, n_epochs)}/{n_epochs}"

    def on_batch_end(self, net: CLCENet, training: bool = False, **kwargs: Any) -> None:
        """Count a step."""
        if training and self.stage_ is not None:
            self.stage_.update()

    def on_epoch_end(self, net: CLCENet, **kwargs: Any) -> None:
        """Show the figures of the epoch, and leave them in a line where the line can't move."""
        figures = _figures(net)
        if self.stage_ is not None:
            self.stage_.place = f"epoch {self._number(net)}"
            self.stage_.figures = ", ".join(figures)
        if is_main() and _leaves_line(net):
            n_epochs, done = net.plan.n_epochs, net.state.epochs_done
            figures.append(duration(net.history[-1]["dur"]))
            if not net.state.is_over:
                figures.append(time_left(self.stage_.left))
            write_line(f"epoch {done:>{len(str(n_epochs))}}/{n_epochs}: {', '.join(figures)}")

    def on_train_end(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Close the stage."""
        if self.stage_ is not None:
            self.stage_.close()
        self.stage_ = None


def _leaves_line(net: CLCENet) -> bool:
    """Return whether an epoch leaves a line: on request, or now and then where none can move."""
    if net.plan.is_of_clone or is_interactive():
        return net.verbose > 1
    return net.verbose > 1 or (net.verbose > 0 and (net.state.is_over or is_due()))


def _figures(net: CLCENet) -> list[str]:
    """Return the losses and scores of the last epoch, in words."""
    score, shown = net.state.score, dict(SHOWN)
    if score is not None and score.of_batches is None:
        shown["valid_score"] = f"validation {score.name}"
    epoch = net.history[-1]
    return [f"{name} {epoch[key]:.3f}" for key, name in shown.items() if key in epoch]


class EpochTasks(Callback):
    """Report each epoch to scikit-learn's callbacks, if the net's fit is one of its tasks."""

    def on_epoch_begin(self, net: CLCENet, **kwargs: Any) -> None:
        """Begin a task below that of the fit."""
        task = net.state.fit_task
        if task is not None:
            self.context_ = task.context.subcontext(task_name="epoch")
            self.context_.call_on_fit_task_begin(estimator=task.estimator)

    def on_epoch_end(self, net: CLCENet, **kwargs: Any) -> None:
        """End it, with the parts of an estimator that predicts; a callback may stop the fit."""
        task = net.state.fit_task
        if task is not None and self.context_.call_on_fit_task_end(
            estimator=task.estimator, reconstruction_attributes={"net_": net}, **task.data()
        ):
            net.state.stopped = True

    def on_train_end(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Drop the task, which does not pickle."""
        self.context_ = None


def default_callbacks(plan: FitPlan) -> list[tuple[str, Any]]:
    """Make the callbacks of every fit, in the order in which they are called."""
    return [
        ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
        ("train_cross_entropy", PassthroughScoring("train_cross_entropy", on_train=True)),
        ("train_contrastive", PassthroughScoring("train_contrastive", on_train=True)),
        ("valid_loss", ValidationMean("valid_loss")),
        ("valid_acc", ValidationMean("valid_acc", lower_is_better=False)),
        ("clip_grad", ClipGradients(plan.max_grad_norm)),
        ("lr_scheduler", WarmupCosine(plan.warmup_fraction)),
        ("last_good_weights", LastGoodWeights()),
        ("early_stopping", EarlyStopping(plan.patience, plan.tol)),
        ("checkpoint", RestoreCheckpoint()),
        ("progress", Progress()),
        ("fit_tasks", EpochTasks()),
    ]
