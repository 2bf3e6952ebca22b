"""The skorch net of logits and embeddings: its parts, its step, its pickle."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import Any

import numpy as np
import skorch
import torch
from sklearn.base import ClassifierMixin
from skorch import NeuralNet
from skorch.callbacks import EpochTimer, PassthroughScoring
from skorch.history import History
from torch import Tensor
from torch.utils.data import Dataset

from .._system import Parallel, autocast, gather, highest_precision_dtype, resolve_precision
from ..backbones import run_in_parts
from .callbacks import (
    ClipGradients,
    EarlyStopping,
    LastGoodWeights,
    RestoreCheckpoint,
    ValidationMean,
    WarmupCosine,
)
from .course import Course
from .epochs import pack, unpack
from .fit_tasks import EpochTasks
from .loading import Batches, in_order, load
from .loop import run_epochs
from .loss_scaling import LossScaling
from .micro_batches import backward_in_parts
from .optim import parameter_groups
from .progress import Progress
from .run import Run


class CLCENet(ClassifierMixin, NeuralNet):
    """skorch's net for a module that returns logits and embeddings.

    Batches are ``(X, (labels, weights))``. The module is handed in as an instance and owned by the
    net, and its classes are the indices 0, 1, ... The parameters beside skorch's are those of
    :class:`sklearn_clce.CLCEClassifier`, except ``patience``, its ``n_iter_no_change`` where it
    stops early, and ``keep_optimizer``, whether a pickle holds the optimizer's state.
    """

    run = Run()  # the last call of training
    course: Course | None = None  # all calls
    parallel: Parallel | None = None  # while it trains
    scaling: LossScaling | None = None  # of the loss, in float16

    def __init__(
        self,
        *args: Any,
        micro_batch_size: int | None = None,
        layer_decay: float | str = 1.0,
        weight_decay: float = 0.0,
        warmup_fraction: float = 0.0,
        max_grad_norm: float | None = None,
        n_views: int = 1,
        precision: str = "float32",
        patience: int | None = None,
        tol: float = 1e-4,
        keep_optimizer: bool = False,
        **kwargs: Any,
    ) -> None:
        self.micro_batch_size = micro_batch_size
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.max_grad_norm = max_grad_norm
        self.n_views = n_views
        self.precision = precision
        self.patience = patience
        self.tol = tol
        self.keep_optimizer = keep_optimizer
        super().__init__(*args, **kwargs)

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
            ("train_cross_entropy", PassthroughScoring("train_cross_entropy", on_train=True)),
            ("train_contrastive", PassthroughScoring("train_contrastive", on_train=True)),
            ("valid_loss", ValidationMean("valid_loss")),
            ("valid_acc", ValidationMean("valid_acc", lower_is_better=False)),
            ("clip_grad", ClipGradients(self.max_grad_norm)),
            ("lr_scheduler", WarmupCosine(self.warmup_fraction)),
            ("last_good_weights", LastGoodWeights()),
            ("early_stopping", EarlyStopping(self.patience, self.tol)),
            ("checkpoint", RestoreCheckpoint()),
            ("progress", Progress()),
            ("fit_tasks", EpochTasks()),
        ]

    @property
    def classes_(self) -> np.ndarray:
        """Indices of the logits: what the labels of batches are, and :meth:`predict` returns."""
        return np.arange(self.module_.classifier.out_features)

    def predict(self, X: Any) -> np.ndarray:
        """Predict indices of classes, for skorch's scores of an epoch."""
        return self.predict_proba(X).argmax(axis=1)

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Tell callbacks; to theirs, a batch is ``(X, labels)`` with a label for each output."""
        if "batch" in kwargs:
            X, (labels, _) = kwargs["batch"]
            n_outputs = len(kwargs["y_pred"][0]) if "y_pred" in kwargs else len(labels)
            kwargs["batch"] = X, labels.repeat(n_outputs // len(labels))
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as error:  # skorch's early stopping raises what Ctrl-C raises
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if frame.f_code is not skorch.callbacks.EarlyStopping.on_epoch_end.__code__:
                raise
            self.run.stopped = True

    def get_params_for_optimizer(self, prefix: str, named_parameters: Any) -> tuple[list, dict]:
        """Group parameters by layer, unless the user has grouped them."""
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        if "optimizer__param_groups" not in self.get_params(deep=False):
            groups = parameter_groups(
                self.module_,
                learning_rate=kwargs["lr"],
                weight_decay=self.weight_decay,
                layer_decay=self.layer_decay,
            )
            args = [groups]
        return args, kwargs

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> CLCENet:
        """Make the optimizer and note each group's share of the learning rate."""
        super().initialize_optimizer(*args, **kwargs)
        for group in self.optimizer_.param_groups:
            group["lr_scale"] = group["lr"] / self.lr
        return self

    def reset_learning_rate(self) -> None:
        """Set each group to its share of ``lr``, where schedules have moved it."""
        for group in self.optimizer_.param_groups:
            group["lr"] = group["initial_lr"] = self.lr * group["lr_scale"]

    def get_iterator(self, dataset: Dataset, training: bool = False) -> Batches:
        """Load training batches as the batch sampler says, others in order."""
        batches = self.run.batch_sampler if training else in_order(self, dataset)
        return load(self, dataset, batches, training=training)

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Count the epochs of this call; a checkpoint may then set them forward."""
        self.reset_learning_rate()
        self.run.epochs_before = len(self.history_)
        self.run.time.begin_steps()

    def fit_loop(self, X: Any, y: Any = None, **fit_params: Any) -> CLCENet:
        """Train for the epochs that are left."""
        run_epochs(self, X)
        return self

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Augment the views of a batch, then take one step."""
        try:
            return super().train_step(self._views(batch), **fit_params)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                "X, batch_size or micro_batch_size gives the network one sample at a time, which "
                "its batch norm can't train on: at least two are required"
            ) from error

    def _views(self, batch: Any) -> Any:
        augment = self.run.augment
        if augment is None:
            return batch
        images, targets = batch
        images = images.to(self.device, non_blocking=True)
        if self.n_views == 1:
            return augment(images), targets
        return torch.cat([augment(view) for view in images.chunk(self.n_views)]), targets

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute loss and gradients, in parts where the batch is too large for the memory."""
        images, targets = batch
        self._set_training(True)
        assert self.parallel is not None  # it trains
        backward = Tensor.backward if self.scaling is None else self.scaling.backward
        if self.micro_batch_size is None or len(images) <= self.micro_batch_size:
            outputs: Any = self.infer(images, **fit_params)
            loss = self.get_loss(outputs, targets, training=True)
            backward(loss)
        else:
            loss, outputs = backward_in_parts(
                self.infer,
                lambda outputs: self.get_loss(outputs, targets, training=True),
                images.to(self.device, non_blocking=True),
                self.micro_batch_size,
                unsummed=self.parallel.unsummed,
                backward=backward,
            )
        if self.scaling is not None:
            self.scaling.unscale(self.optimizer_)
        return {"loss": loss, "y_pred": tuple(outputs)}

    def _step_optimizer(self, step_fn: Any) -> None:
        """Take a step; one with a scaled loss may be skipped."""
        if self.scaling is None:
            super()._step_optimizer(step_fn)
        else:
            step_fn()
            self.scaling.step(self.optimizer_)

    def infer(self, x: Any, **fit_params: Any) -> tuple[Tensor, Tensor]:
        """Run the module, in mixed precision where that is on."""
        summing = self.parallel is not None and torch.is_grad_enabled()
        run: Any = self.parallel if summing else self.module_
        x = x.to(self.device, non_blocking=True)
        with self._autocast():
            return run(x) if self.module_.training else run_in_parts(run, x)

    def read(self, x: Any) -> tuple[Tensor, Tensor]:
        """Compute what the classifier reads, and its logits."""
        x = x.to(self.device, non_blocking=True)
        with self._autocast():
            read, _ = run_in_parts(self.module_.read, x)
            return read, self.module_.classifier(read)

    def _autocast(self) -> torch.autocast:
        device = torch.device(self.device)
        return autocast(resolve_precision(self.precision, device), device)

    def get_loss(self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False) -> Tensor:
        """Hand both outputs, labels and weights to the criterion, which gathers all processes'."""
        targets = [target.to(self.device, non_blocking=True) for target in y_true]
        terms = self.criterion_.terms(*y_pred, *targets)
        loss = self.criterion_.weigh(terms)
        for name, term in terms.items() if training else ():
            self.history.record_batch(f"train_{name}", term.detach())
        return loss

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Record accuracy beside the loss, and what a scorer will ask for."""
        step = super().validation_step(batch, **fit_params)
        if self.run.score is not None:
            self.run.score.add(step["y_pred"])
        labels, weights = (target.to(self.device, non_blocking=True) for target in batch[1])
        hits = step["y_pred"][0].argmax(dim=1) == labels
        exact = highest_precision_dtype(weights.device)
        weights = gather(weights.to(exact))
        total = weights.sum()
        hit = (gather(hits.to(exact)) * weights).sum()
        # a batch of which nothing counts has no share in the mean of the epoch
        self.history.record_batch("valid_acc", hit / torch.where(total > 0, total, 1))
        self.history.record_batch("valid_weight", total)
        return step

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the module once, no data, and the optimizer's state only if it will be used."""
        run = replace(self.run, batch_sampler=None)
        hidden: dict[str, Any] = {"module": self.module, "run": self.run}
        try:
            self.__dict__ |= {"module": None, "run": run}
            if not self.keep_optimizer and hasattr(self, "optimizer_"):
                hidden["optimizer_"] = self.optimizer_
                del self.optimizer_
            state = super().__getstate__()
            return state | {"history_": pack(state.get("history_", []))}
        finally:
            self.__dict__ |= hidden

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Point both names at the one module again."""
        super().__setstate__(state | {"history_": History(unpack(state["history_"]))})
        self.module = getattr(self, "module_", None)


def probabilities(logits: Tensor) -> Tensor:
    """Return class probabilities, in float32 after any precision."""
    return logits.float().softmax(dim=-1)


def identity_collate(batch: Any) -> Any:
    """Collate nothing: the datasets of :mod:`sklearn_clce.data` give whole batches."""
    return batch
