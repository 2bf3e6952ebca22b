"""The skorch net: one training loop over logits and embeddings."""

from __future__ import annotations

import math
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import skorch
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.callbacks import EpochTimer, PassthroughScoring
from skorch.history import History
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .._distributed import (
    Parallel,
    from_all,
    gather,
    is_main,
    rank,
    share_buffers,
    share_of,
    shared,
)
from .._progress import bar
from .._validation import autocast, resolve_precision, widest_float
from ..backbones import run_in_parts
from ..data import FeatureBatches, ImageBatches, LabelledFeatures
from .callbacks import (
    ClipGradients,
    EarlyStopping,
    LastGoodWeights,
    SaveCheckpoint,
    ValidationAccuracy,
    WarmupCosine,
)
from .course import Course, mix_seed
from .epochs import pack, unpack
from .fit_tasks import EpochTasks
from .loss_scaling import LossScaling
from .micro_batches import backward_in_parts
from .optim import parameter_groups
from .progress import Progress
from .readings import NonFiniteError, Readings, check_weights
from .run import Run

Batches = ImageBatches | FeatureBatches | DataLoader
Infer = Callable[[Any], tuple[Tensor, ...]]  # a batch to outputs of shape (n, ...)


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
        warmup: float = 0.0,
        clip_grad: float | None = None,
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
        self.warmup = warmup
        self.clip_grad = clip_grad
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
            ("valid_loss", PassthroughScoring(name="valid_loss")),
            ("valid_acc", ValidationAccuracy("valid_acc", lower_is_better=False)),
            ("clip_grad", ClipGradients(self.clip_grad)),
            ("lr_scheduler", WarmupCosine(self.warmup)),
            ("last_good_weights", LastGoodWeights()),
            ("early_stopping", EarlyStopping(self.patience, self.tol)),
            ("checkpoint", SaveCheckpoint()),
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

    def train_on(self, dataset: Dataset, run: Run) -> CLCENet:
        """Train, from the weights and the history that are there."""
        self.run = run
        device = torch.device(self.device)
        if resolve_precision(self.precision, device) != "float16":
            self.scaling = None
        else:
            self.scaling = LossScaling(device) if self.scaling is None else self.scaling.on(device)
        try:
            self.partial_fit(dataset)
        finally:
            self.run = run.ended()
        if run.interrupted:  # skorch would end training as if it had come to its end
            raise KeyboardInterrupt
        return self

    def get_split_datasets(
        self, X: Dataset, y: Any = None, **fit_params: Any
    ) -> tuple[Dataset, Dataset | None]:
        """Return the samples to train on, and those set aside."""
        return X, self.run.validation

    def get_iterator(self, dataset: Dataset, training: bool = False) -> Batches:
        """Load training batches as the batch sampler says, others in order."""
        batches = self.run.batch_sampler if training else self._in_order(dataset)
        return self._load(dataset, batches, "iterator_train" if training else "iterator_valid")

    def _in_order(self, dataset: Any) -> list[list[int]]:
        """Cut a dataset into batches of nearly equal size that the memory of a step can hold."""
        size = min(self.batch_size, self.micro_batch_size or self.batch_size)
        indices = np.arange(len(dataset))
        return [part.tolist() for part in np.array_split(indices, math.ceil(len(indices) / size))]

    def _load(self, dataset: Dataset, batches: Any, loader: str) -> Batches:
        if isinstance(dataset, LabelledFeatures):
            return FeatureBatches(dataset.to(self.device), batches)
        return getattr(self, loader)(dataset, batch_sampler=batches, **self.get_params_for(loader))

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Count the epochs of this call; a checkpoint may then set them forward."""
        self.reset_learning_rate()
        self.run.epochs_before = len(self.history_)
        self.run.time.begin_steps()

    def fit_loop(self, X: Any, y: Any = None, **fit_params: Any) -> CLCENet:
        """Train for the epochs that are left, until something says that it is enough."""
        train, valid = self.get_split_datasets(X, y)
        loaders = {
            "train": self._load(
                train, Views(shared(self.run.batch_sampler), self.n_views), "iterator_train"
            ),
            "valid": valid and self._load(valid, shared(self._in_order(valid)), "iterator_valid"),
        }
        datasets = {"dataset_train": train, "dataset_valid": valid}
        self.run.time.n_validation_batches = len(loaders["valid"] or ())
        if self.run.time.is_over and self.run.epochs_done == 0:
            self.run.time.warn()
        self.parallel = Parallel(self.module_)
        try:
            while not self.run.is_over:
                self._run_epoch(loaders, datasets)
            if self.scaling is not None and self.run.scheduled:  # a part of one is not the end
                self.scaling.check_end()
        except KeyboardInterrupt:
            self._interrupted()
        except NonFiniteError as error:
            self._fall_back(error)
        finally:
            self.parallel = None
        return self

    def _run_epoch(self, loaders: dict[str, Any], datasets: dict[str, Any]) -> None:
        self._seed_epoch()
        self.notify("on_epoch_begin", **datasets)
        self.run_single_epoch(
            loaders["train"], training=True, prefix="train", step_fn=self.train_step
        )
        self.run.time.end_steps()
        share_buffers(self.module_)
        check_weights(self.module_, self.optimizer_, epoch=self.run.epochs_done + 1)
        self.run_single_epoch(
            loaders["valid"], training=False, prefix="valid", step_fn=self.validation_step
        )
        if self.run.score is not None:
            score = self.run.score.take(self, epoch=self.run.epochs_done + 1)
            self.history.record("valid_score", score)
        self.run.time.count_tail()
        self.run.epochs_done += 1
        self.notify("on_epoch_end", **datasets)
        self.run.time.count_tail()

    def _seed_epoch(self) -> None:
        """Let the epoch draw what it would draw as a part of one long fit."""
        assert self.course is not None
        assert self.run.batch_sampler is not None
        epoch = self.run.epochs_before + self.run.epochs_done
        self.run.batch_sampler.epoch = epoch
        torch.manual_seed(mix_seed(self.course.seed, epoch, rank()))

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Take a step for each batch; skorch's own loop waits for the loss of each."""
        if iterator is None:
            return
        n_batches = 0
        readings = Readings(
            torch.device(self.device), epoch=self.run.epochs_done + 1, scaling=self.scaling
        )
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            self.history.record_batch(f"{prefix}_loss", step["loss"].detach())
            self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
            readings.add(self.history[-1]["batches"][-1])
            if training:
                self.run.time.count_step()
            self.notify("on_batch_end", batch=batch, training=training, **step)
            n_batches += 1
            if training and self.run.time.is_over:
                break
        readings.take_all()
        self.history.record(f"{prefix}_batch_count", n_batches)

    def _interrupted(self) -> None:
        """Keep what can be used for a user at the prompt; end a search, whose fit this is."""
        run = self.run
        batches = [batch for row in self.history_[run.epochs_before :] for batch in row["batches"]]
        if run.is_of_clone or not (run.epochs_done or "train_loss" in (batches or [{}])[0]):
            run.interrupted = True
            return
        try:
            check_weights(self.module_, self.optimizer_, epoch=run.epochs_done + 1)
        except NonFiniteError as error:
            self._fall_back(error)
        else:
            self._cut_short("interrupted by the user", "its weights of that moment")

    def _cut_short(self, why: str, kept: str) -> None:
        del self.history_[self.run.epochs_before + self.run.epochs_done :]
        warnings.warn(
            f"fit was cut short in epoch {self.run.epochs_done + 1}: {why}. The estimator can be "
            f"used and keeps {kept}",
            ConvergenceWarning,
            stacklevel=2,
        )

    def _fall_back(self, error: NonFiniteError) -> None:
        """Go back to the weights of the last epoch that ended well."""
        if self.run.epochs_done == 0:
            raise ValueError(f"{error}; no epoch had ended, so nothing is kept") from None
        if self.scaling is not None and self.scaling.n_taken == 0:
            raise ValueError(f"{error}; nothing was learned, so nothing is kept") from None
        dict(self.callbacks_)["last_good_weights"].restore(self)
        self._cut_short(str(error), f"the weights of epoch {self.run.epochs_done}")

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
        device = torch.device(self.device)
        with autocast(resolve_precision(self.precision, device), device):
            return run(x) if self.module_.training else run_in_parts(run, x)

    def read(self, x: Any) -> tuple[Tensor, Tensor]:
        """Compute what the classifier reads, and its logits."""
        x = x.to(self.device, non_blocking=True)
        device = torch.device(self.device)
        with autocast(resolve_precision(self.precision, device), device):
            read, _ = run_in_parts(self.module_.read, x)
            return read, self.module_.classifier(read)

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
        exact = widest_float(weights.device)
        weights = gather(weights.to(exact))
        total = weights.sum()
        self.history.record_batch("valid_acc", (gather(hits.to(exact)) * weights).sum() / total)
        self.history.record_batch("valid_weight", total)
        return step

    def infer_batches(self, dataset: Dataset, infer: Infer | None = None) -> tuple[Tensor, ...]:
        """Return logits and embeddings, or what ``infer`` gives, in order.

        They are of shape (n, ...), float32 on the CPU. Each process computes some of the batches.
        """
        self.module_.eval()
        outputs = []
        batches: Any = self._load(dataset, share_of(self._in_order(dataset)), "iterator_valid")
        shown = bool(self.verbose) and is_main() and not isinstance(batches, FeatureBatches)
        for batch, _ in bar(batches, total=len(batches), unit="batch", shown=shown):
            with torch.inference_mode():
                found = (infer or self.infer)(batch)
                outputs.append([output.float().cpu() for output in found])
        return tuple(map(torch.cat, zip(*chain(*from_all(outputs)), strict=True)))

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


class Views:
    """Batches whose samples come several times, to be augmented each time."""

    def __init__(self, batches: Any, n_views: int) -> None:
        self.batches = batches
        self.n_views = n_views

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(indices) * self.n_views for indices in self.batches)


def already_a_batch(batch: Any) -> Any:
    """Collate nothing: the datasets of :mod:`sklearn_clce.batches` give whole batches."""
    return batch
