"""One call of training: its epochs, and what is kept of them where they end early."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch.utils.data import Dataset

from .._system import Parallel, rank, resolve_precision, share_buffers, shared
from .course import mix_seed
from .loading import Batches, Views, in_order, load
from .loss_scaling import LossScaling
from .readings import NonFiniteError, Readings, check_weights
from .run import Run
from .stochastic_depth import stochastic_depth


def train(net: Any, dataset: Dataset, run: Run) -> None:
    """Train a net, from the weights and the history that are there."""
    net.run = run
    device = torch.device(net.device)
    if resolve_precision(net.precision, device) != "float16":
        net.scaling = None
    else:
        net.scaling = LossScaling(device) if net.scaling is None else net.scaling.on(device)
    module = net.module_
    try:
        with stochastic_depth(module.backbone) if module.tunes else nullcontext():
            net.partial_fit(dataset)
    finally:
        net.run = run.ended()
    if run.interrupted:  # skorch would end training as if it had come to its end
        raise KeyboardInterrupt


def run_epochs(net: Any, dataset: Dataset) -> None:
    """Go through the epochs that are left, until something says that it is enough."""
    run: Run = net.run
    datasets = {"dataset_train": dataset, "dataset_valid": run.validation}
    views = Views(shared(run.batch_sampler), net.n_views)
    training = load(net, dataset, views, training=True)
    validation = None
    if run.validation is not None:
        validation = load(net, run.validation, shared(in_order(net, run.validation)))
    run.time.n_validation_batches = len(validation or ())
    if run.time.is_over and run.epochs_done == 0:
        run.time.warn()
    net.parallel = Parallel(net.module_)
    try:
        while not run.is_over:
            _run_epoch(net, training, validation, datasets)
        if net.scaling is not None and run.scheduled:  # a part of one is not the end
            net.scaling.check_end()
    except KeyboardInterrupt:
        _interrupted(net)
    except NonFiniteError as error:
        _fall_back(net, error)
    finally:
        net.parallel = None


def _run_epoch(
    net: Any, training: Batches, validation: Batches | None, datasets: dict[str, Any]
) -> None:
    run: Run = net.run
    _seed_epoch(net)
    net.notify("on_epoch_begin", **datasets)
    _take_steps(net, training, "train", net.train_step)
    run.time.end_steps()
    share_buffers(net.module_)
    check_weights(net.module_, net.optimizer_, epoch=run.epochs_done + 1)
    if validation is not None:
        _take_steps(net, validation, "valid", net.validation_step)
    if run.score is not None:
        net.history.record("valid_score", run.score.take(net, epoch=run.epochs_done + 1))
    run.time.count_tail()
    run.epochs_done += 1
    net.notify("on_epoch_end", **datasets)
    if run.checkpoint is not None:  # after all callbacks: one may have stopped the fit
        run.checkpoint.save(net)
    run.time.count_tail()


def _seed_epoch(net: Any) -> None:
    """Let the epoch draw what it would draw as a part of one long fit."""
    run: Run = net.run
    assert run.batch_sampler is not None
    epoch = run.epochs_before + run.epochs_done
    run.batch_sampler.epoch = epoch
    torch.manual_seed(mix_seed(net.course.seed, epoch, rank()))


def _take_steps(
    net: Any, batches: Batches, prefix: str, step_fn: Callable[[Any], dict[str, Any]]
) -> None:
    """Take a step for each batch; skorch's own loop waits for the loss of each."""
    run: Run = net.run
    training = prefix == "train"
    readings = Readings(torch.device(net.device), epoch=run.epochs_done + 1, scaling=net.scaling)
    for batch in batches:
        net.notify("on_batch_begin", batch=batch, training=training)
        step = step_fn(batch)
        net.history.record_batch(f"{prefix}_loss", step["loss"].detach())
        net.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
        readings.add(net.history[-1]["batches"][-1])
        if training:
            run.time.count_step()
        net.notify("on_batch_end", batch=batch, training=training, **step)
        if training and run.time.is_over:
            break
    readings.take_all()
    net.history.record(f"{prefix}_batch_count", readings.n_taken)


def _interrupted(net: Any) -> None:
    """Keep what can be used for a user at the prompt; end a search, whose fit this is."""
    run: Run = net.run
    batches = [batch for row in net.history_[run.epochs_before :] for batch in row["batches"]]
    if run.is_of_clone or not (run.epochs_done or "train_loss" in (batches or [{}])[0]):
        run.interrupted = True
        return
    try:
        check_weights(net.module_, net.optimizer_, epoch=run.epochs_done + 1)
    except NonFiniteError as error:
        _fall_back(net, error)
    else:
        run.cut_short = True
        _cut_short(net, "interrupted by the user", "its weights of that moment")


def _fall_back(net: Any, error: NonFiniteError) -> None:
    """Go back to the weights of the last epoch that ended well."""
    if net.run.epochs_done == 0:
        raise ValueError(f"{error}; no epoch had ended, so nothing is kept") from None
    if net.scaling is not None and net.scaling.n_taken == 0:
        raise ValueError(f"{error}; nothing was learned, so nothing is kept") from None
    dict(net.callbacks_)["last_good_weights"].restore(net)
    _cut_short(net, str(error), f"the weights of epoch {net.run.epochs_done}")


def _cut_short(net: Any, why: str, kept: str) -> None:
    run: Run = net.run
    del net.history_[run.epochs_before + run.epochs_done :]
    if dict(net.callbacks_)["early_stopping"].best_weights_ is not None:
        kept = "the weights of the epoch with the best validation score"
    warnings.warn(
        f"fit was cut short in epoch {run.epochs_done + 1}: {why}. The estimator can be "
        f"used and keeps {kept}",
        ConvergenceWarning,
        stacklevel=2,
    )
