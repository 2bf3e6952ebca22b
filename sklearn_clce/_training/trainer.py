"""The trainer: skorch's net of logits and embeddings, and the loop over its epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import skorch
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.callbacks import EpochTimer
from skorch.utils import TeeGenerator
from torch import Tensor
from torch.utils.data import Dataset

from .._network import Network, backward_in_parts, parameter_groups, stochastic_depth
from .._system import (
    Parallel,
    autocast,
    broadcast,
    gather,
    gather_objects,
    highest_precision_dtype,
    rank,
    share_buffers,
    shared,
    warn,
)
from ..backbones import run_in_parts
from ..data import (
    ClassBalancedBatchSampler,
    FeatureBatches,
    LabelledFeatures,
    ShuffledBatchSampler,
    augmented,
)
from .batches import Batches, Views, in_order
from .history import TrainingHistory
from .plan import FitPlan
from .resume import ResumeState, mix_seed, pack_history, unpack_history
from .sklearn_callbacks import FitTask
from .step_metrics import LossScaling, NonFiniteError, StepMetrics, check_weights
from .time_limit import TimeLimit

BatchSampler = ShuffledBatchSampler | ClassBalancedBatchSampler


class EpochScore(Protocol):
    """Scores an epoch on the validation samples."""

    name: str
    of_batches: Any  # None: a scorer computes it

    def add(self, outputs: Sequence[Tensor]) -> None:
        """Keep the outputs of a batch."""

    def take(self, net: CLCENet, epoch: int) -> float:
        """Return the score."""


class NetBackup(Protocol):
    """Keeps the state of a net between two epochs."""

    folder: Path

    def save(self, net: CLCENet) -> None:
        """Write the state."""

    def restore(self, net: CLCENet) -> None:
        """Restore it before the first epoch, if there is one."""


@dataclass
class FitState:
    """One call of training: its batches, and how far it is."""

    plan: FitPlan
    batch_sampler: BatchSampler
    time: TimeLimit = field(default_factory=TimeLimit)
    validation: Dataset | None = None
    score: EpochScore | None = None  # of an epoch, on the validation samples
    checkpoint: NetBackup | None = None
    fit_task: FitTask | None = None
    epochs_before: int = 0  # of earlier calls, in the history
    epochs_done: int = 0
    stopped: bool = False
    cut_short: bool = False  # by the user, who keeps the net

    @property
    def n_steps(self) -> int:
        """Steps of the optimizer, if nothing stops it."""
        return self.plan.n_epochs * len(self.batch_sampler)

    @property
    def is_over(self) -> bool:
        """Whether no epoch follows; the first is run however little time there is."""
        enough = self.stopped or (self.time.is_over and self.epochs_done > 0)
        return enough or self.epochs_done >= self.plan.n_epochs


class CLCENet(ClassifierMixin, NeuralNet):
    """skorch's net for a :class:`Network`, with a training loop of its own.

    Batches are ``(X, (labels, weights))``. The module is an instance that the net owns, and its
    classes are the indices 0, 1, ... ``plan`` is that of the last call; skorch's own parameters are
    made from it.
    """

    module_: Network
    fit_state: FitState | None = None  # while it trains
    resume: ResumeState | None = None  # of all calls
    parallel: Parallel | None = None  # while it trains
    scaling: LossScaling | None = None  # of the loss, in float16

    def __init__(self, *args: Any, plan: FitPlan, **kwargs: Any) -> None:
        self.plan = plan
        super().__init__(*args, **kwargs)

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return [("epoch_timer", EpochTimer())]

    @property
    def classes_(self) -> np.ndarray:
        """Indices of the logits: the labels of batches, and what :meth:`predict` returns."""
        return np.arange(self.module_.head.n_classes)

    @property
    def state(self) -> FitState:
        """State of the call of training that is running."""
        assert self.fit_state is not None
        return self.fit_state

    # skorch's parts

    def predict(self, X: Any) -> np.ndarray:
        """Predict indices of classes, for skorch's scores of an epoch."""
        logits, *_ = self.forward(X)
        return self.module_.outputs.codes(logits).numpy()

    def get_params_for_optimizer(self, prefix: str, named_parameters: Any) -> tuple[list, dict]:
        """Group parameters by layer, unless the user has grouped them."""
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        if "optimizer__param_groups" not in self.get_params(deep=False):
            groups = parameter_groups(
                self.module_,
                learning_rate=kwargs["lr"],
                weight_decay=self.plan.weight_decay,
                layer_decay=self.plan.layer_decay,
            )
            args = [groups]
        return args, kwargs

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> CLCENet:
        """Make the optimizer and note each group's share of the learning rate."""
        super().initialize_optimizer(*args, **kwargs)
        for group in self.optimizer_.param_groups:
            group["lr_scale"] = group["lr"] / self.lr
        return self

    def initialize_history(self) -> CLCENet:
        """Begin a history that prints itself as a table."""
        self.history_ = TrainingHistory()
        return self

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call callbacks; to theirs, a batch is ``(X, labels)`` with a label for each output."""
        if "batch" in kwargs:
            X, (labels, _) = kwargs["batch"]
            n_outputs = len(kwargs["y_pred"][0]) if "y_pred" in kwargs else len(labels)
            kwargs["batch"] = X, torch.cat([labels] * (n_outputs // len(labels)))
        super().notify(method_name, **kwargs)

    def get_iterator(self, dataset: Dataset, training: bool = False) -> Batches:
        """Load training batches as the batch sampler says, others in order."""
        batches = self.state.batch_sampler if training else self.in_order(dataset)
        return self.load(dataset, batches, training=training)

    def in_order(self, dataset: Any) -> list[list[int]]:
        """Cut a dataset into batches that the memory of a step can hold."""
        return in_order(len(dataset), self.plan.batch_size, self.plan.micro_batch_size)

    def load(self, dataset: Any, batches: Any, *, training: bool = False) -> Batches:
        """Load batches of indices: features from memory, images with a loader."""
        if isinstance(dataset, LabelledFeatures):
            return FeatureBatches(dataset.to(self.device), batches)
        loader = "iterator_train" if training else "iterator_valid"
        options = self.get_params_for(loader)
        return getattr(self, loader)(dataset, batch_sampler=batches, **options)

    # one forward pass

    def infer(self, x: Any, **fit_params: Any) -> tuple[Tensor, Tensor]:
        """Run the module: logits and embeddings."""
        summing = self.parallel is not None and torch.is_grad_enabled()
        run: Any = self.parallel if summing else self.module_
        x = x.to(self.device, non_blocking=True)
        with self._autocast():
            return run(x) if self.module_.training else run_in_parts(run, x)

    def classifier_inputs(self, x: Any) -> tuple[Tensor, Tensor]:
        """Compute the classifier's inputs, and its logits."""
        x = x.to(self.device, non_blocking=True)
        with self._autocast():
            inputs, _ = run_in_parts(self.module_.classifier_inputs, x)
            return inputs, self.module_.head.classifier(inputs)

    def _autocast(self) -> torch.autocast:
        return autocast(self.plan.precision, torch.device(self.device))

    def get_loss(self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False) -> Tensor:
        """Compute the criterion of outputs, labels and weights, gathered from all processes."""
        targets = [target.to(self.device, non_blocking=True) for target in y_true]
        terms = self.criterion_.terms(*y_pred, *targets)
        loss = self.criterion_.weigh(terms)
        for name, term in terms.items() if training else ():
            self.history.record_batch(f"train_{name}", term.detach())
        return loss

    # one step

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Augment the views of a batch and take one step; return the loss and the outputs."""
        batch = self._views(batch)
        evaluations: list[dict[str, Any]] = []  # an optimizer such as LBFGS makes several

        def evaluate() -> Tensor:
            self._zero_grad_optimizer()
            evaluations.append(self.train_step_single(batch))
            parameters = TeeGenerator(self.get_all_learnable_params())
            self.notify("on_grad_computed", named_parameters=parameters, batch=batch, training=True)
            return evaluations[-1]["loss"]

        with _explained_batch_norm():
            if self.scaling is None:
                self._step_optimizer(evaluate)
            else:
                evaluate()
                self.scaling.step(self.optimizer_)
        return evaluations[0]

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute loss and gradients, in parts if the batch is too large for the memory."""
        images, targets = batch
        self._set_training(True)
        assert self.parallel is not None  # it trains
        backward = Tensor.backward if self.scaling is None else self.scaling.backward
        micro_batch_size = self.plan.micro_batch_size
        if micro_batch_size is None or len(images) <= micro_batch_size:
            outputs: Any = self.infer(images)
            loss = self.get_loss(outputs, targets, training=True)
            backward(loss)
        else:
            loss, outputs = backward_in_parts(
                self.infer,
                lambda outputs: self.get_loss(outputs, targets, training=True),
                images.to(self.device, non_blocking=True),
                micro_batch_size,
                unsummed=self.parallel.unsummed,
                backward=backward,
            )
        if self.scaling is not None:
            self.scaling.unscale(self.optimizer_)
        return {"loss": loss, "y_pred": tuple(outputs)}

    def _views(self, batch: Any) -> Any:
        augment, n_views = self.plan.augment, self.plan.n_views
        if augment is None:
            return batch
        images, targets = batch
        images = images.to(self.device, non_blocking=True)
        if n_views == 1:
            return augmented(augment, images), targets
        views = [augmented(augment, view) for view in images.chunk(n_views)]
        return torch.cat(views), targets

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute the loss of a batch, and record its accuracy and outputs for scores."""
        step = super().validation_step(batch)
        if self.state.score is not None:
            self.state.score.add(step["y_pred"])
        labels, weights = (target.to(self.device, non_blocking=True) for target in batch[1])
        hits, weights = self.module_.outputs.hits(step["y_pred"][0], labels, weights)
        exact = highest_precision_dtype(weights.device)
        weights = gather(weights.to(exact))
        total = weights.sum()
        hit = (gather(hits.to(exact)) * weights).sum()
        # a batch whose weights are all zero does not count in the mean of the epoch
        self.history.record_batch("valid_acc", hit / torch.where(total > 0, total, 1))
        self.history.record_batch("valid_weight", total)
        return step

    # the loop

    def train(self, dataset: Dataset, state: FitState) -> None:
        """Train from the present weights and history, until the plan or a callback ends it."""
        self.fit_state = state
        device = torch.device(self.device)
        if self.plan.precision != "float16":
            self.scaling = None
        else:
            self.scaling = LossScaling(device) if self.scaling is None else self.scaling.on(device)
        network = self.module_
        backbone = network.backbone if network.finetunes_pretrained else None
        try:
            with nullcontext() if backbone is None else stochastic_depth(backbone):
                self.notify("on_train_begin", X=dataset, y=None)
                try:
                    self._run_epochs(dataset)
                finally:
                    self.notify("on_train_end", X=dataset, y=None)
        finally:
            self.fit_state = None

    def on_train_begin(self, net: CLCENet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Begin to count the epochs of this call; a checkpoint may then set them forward."""
        for group in self.optimizer_.param_groups:
            group["lr"] = group["initial_lr"] = self.lr * group["lr_scale"]
        self.state.epochs_before = len(self.history_)
        self.state.time.begin_steps()

    def _run_epochs(self, dataset: Dataset) -> None:
        """Run the epochs that are left."""
        state = self.state
        datasets = {"dataset_train": dataset, "dataset_valid": state.validation}
        views = Views(shared(state.batch_sampler), self.plan.n_views)
        training = self.load(dataset, views, training=True)
        validation = None
        if state.validation is not None:
            validation = self.load(state.validation, shared(self.in_order(state.validation)))
        state.time.n_validation_batches = len(validation or ())
        if state.time.is_over and state.epochs_done == 0:
            state.time.warn()
        self.parallel = Parallel(self.module_)
        try:
            while not state.is_over:
                self._run_epoch(training, validation, datasets)
            if self.scaling is not None and not self.plan.is_partial_fit:  # a part is not the end
                self.scaling.check_end()
        except KeyboardInterrupt:
            if self.plan.raises_interrupts or not self._has_trained():
                raise  # of a search, or with nothing to keep
            self._keep_interrupted()
        except NonFiniteError as error:
            self._restore_last_good(error)
        finally:
            self.parallel = None

    def _run_epoch(
        self, training: Batches, validation: Batches | None, datasets: dict[str, Any]
    ) -> None:
        state = self.state
        epoch = state.epochs_before + state.epochs_done
        state.batch_sampler.epoch = epoch  # so that it draws what it would draw in one long fit
        assert self.resume is not None
        torch.manual_seed(mix_seed(self.resume.seed, epoch, rank()))
        self.notify("on_epoch_begin", **datasets)
        self._take_steps(training, is_training=True)
        state.time.end_steps()
        share_buffers(self.module_)
        check_weights(self.module_, self.optimizer_, epoch=state.epochs_done + 1)
        if validation is not None:
            self._take_steps(validation, is_training=False)
        if state.score is not None:
            score = state.score.take(self, epoch=state.epochs_done + 1)
            self.history.record("valid_score", broadcast(score))
        state.time.count_tail()
        state.epochs_done += 1
        try:
            self.notify("on_epoch_end", **datasets)
        except KeyboardInterrupt:
            if not self._is_stopped_by_skorch():
                raise
            state.stopped = True
        state.stopped = any(gather_objects(state.stopped))  # a callback may be of one process
        if state.checkpoint is not None:  # after all callbacks: one may have stopped the fit
            state.checkpoint.save(self)
        state.time.count_tail()

    def _take_steps(self, batches: Batches, *, is_training: bool) -> None:
        """Take a step for each batch; skorch's own loop waits for the loss of each."""
        state = self.state
        prefix, step_fn = "valid", self.validation_step
        if is_training:
            prefix, step_fn = "train", self.train_step
        metrics = StepMetrics(torch.device(self.device), state.epochs_done + 1, self.scaling)
        for batch in batches:
            self.notify("on_batch_begin", batch=batch, training=is_training)
            step = step_fn(batch)
            self.history.record_batch(f"{prefix}_loss", step["loss"].detach())
            self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
            metrics.add(self.history[-1]["batches"][-1])
            if is_training:
                state.time.count_step()
            self.notify("on_batch_end", batch=batch, training=is_training, **step)
            if is_training and state.time.is_over:
                break
        metrics.take_all()
        self.history.record(f"{prefix}_batch_count", metrics.n_taken)

    # the end before the end

    def _is_stopped_by_skorch(self) -> bool:
        """Return whether skorch's early stopping raised the KeyboardInterrupt, and not Ctrl-C."""
        return any(
            isinstance(callback, skorch.callbacks.EarlyStopping)
            and getattr(callback, "misses_", 0) >= callback.patience
            for _, callback in self.callbacks_
        )

    def _has_trained(self) -> bool:
        """Return whether this call has taken a step."""
        batches = [b for row in self.history_[self.state.epochs_before :] for b in row["batches"]]
        return bool(self.state.epochs_done) or "train_loss" in (batches or [{}])[0]

    def _keep_interrupted(self) -> None:
        """Keep the network as it is, if it can be used."""
        try:
            check_weights(self.module_, self.optimizer_, epoch=self.state.epochs_done + 1)
        except NonFiniteError as error:
            self._restore_last_good(error)
        else:
            self.state.cut_short = True
            self._warn_cut_short("interrupted by the user", "its weights of that moment")

    def _restore_last_good(self, error: NonFiniteError) -> None:
        """Restore the weights of the last epoch that ended well."""
        if self.state.epochs_done == 0:
            raise ValueError(f"{error}; no epoch had ended, so nothing is kept") from None
        if self.scaling is not None and self.scaling.n_taken == 0:
            raise ValueError(f"{error}; nothing was learned, so nothing is kept") from None
        dict(self.callbacks_)["last_good_weights"].restore(self)
        self._warn_cut_short(str(error), f"the weights of epoch {self.state.epochs_done}")

    def _warn_cut_short(self, why: str, kept: str) -> None:
        state = self.state
        del self.history_[state.epochs_before + state.epochs_done :]
        if dict(self.callbacks_)["early_stopping"].best_weights_ is not None:
            kept = "the weights of the epoch with the best validation score"
        warn(
            f"fit was cut short in epoch {state.epochs_done + 1}: {why}. The estimator can be "
            f"used and keeps {kept}",
            ConvergenceWarning,
        )

    # the pickle

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the module once, no data, and the optimizer's state only if it will be used."""
        bare = object.__new__(type(self))  # this net may be training: it stays as it is
        bare.__dict__ |= self.__dict__ | {"module": None, "fit_state": None}
        if not self.plan.keeps_optimizer and hasattr(self, "optimizer_"):
            del bare.optimizer_  # with its entries in skorch's lists of names
        state = super(CLCENet, bare).__getstate__()
        return state | {"history_": pack_history(state.get("history_", []))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Point both names at the one module again; the device may be another one now."""
        super().__setstate__(
            state | {"history_": TrainingHistory(unpack_history(state["history_"]))}
        )
        self.module = getattr(self, "module_", None)
        device = torch.device(self.device)
        if device.type != self.plan.device.type:
            self.plan = replace(self.plan, passes=self.plan.passes.on(device))


@contextmanager
def _explained_batch_norm() -> Iterator[None]:
    """Explain the error of a batch norm that is given a single sample."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "X, batch_size or micro_batch_size gives the network one sample at a time, which "
            "its batch norm can't train on: at least two are required"
        ) from error


def identity_collate(batch: Any) -> Any:
    """Collate nothing: the datasets of :mod:`sklearn_clce.data` give whole batches."""
    return batch
