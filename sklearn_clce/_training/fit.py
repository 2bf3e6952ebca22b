"""The entry to training: parameters and samples become a trained net."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedShuffleSplit
from torch import Tensor
from torch.utils.data import Dataset

from .._distributed import is_main, own_turn, seeded_torch, warn_if_not_joined
from .._validation import check_default_dtype, naming, resolve_device, resolve_precision
from ..data import Room
from ..samplers import make_batch_sampler
from .assembly import continued_net, make_module, make_net
from .callbacks import check_callbacks
from .checkpoint import checkpoint_of
from .class_means import keep_class_means
from .course import Course, Split, begin, go_on, keep_aside, keep_split
from .fit_tasks import FitTask
from .growing import start_late_classes
from .identity import digest_of
from .loop import train
from .module import CLCEModule
from .net import CLCENet
from .parameters import CLCEParameters
from .run import BatchSampler, Run
from .samples import (
    Samples,
    features_for,
    make_augmentation,
    make_dataset,
    part_of,
    tuned_features,
)
from .start import finish_classifier, start_head
from .time_limit import TimeLimit
from .validation import ValidationScore, ValidationSet, set_aside


@dataclass(frozen=True)
class FittedNet:
    """A trained net, and what its fit tells of itself."""

    net: CLCENet
    validation_scores: list[float] | None  # of this call, by epoch; None without early stopping

    @property
    def best_validation_score(self) -> float | None:
        """The highest validation score."""
        return max(self.validation_scores or [], default=None)


def fit_net(
    parameters: CLCEParameters,
    samples: Samples,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    classes: np.ndarray,
    after: CLCENet | None = None,
    in_part: bool = False,
    validation: ValidationSet | None = None,
    fit_task: FitTask | None = None,
) -> FittedNet:
    """Train a new net, or a copy of an earlier one, so that an error loses nothing.

    ``labels`` are indices into ``classes``. ``in_part``: one epoch at the peak learning rate.
    ``validation``: samples to validate on, in place of some that are set aside. ``fit_task`` is
    what scikit-learn's callbacks know the fit by.
    """
    warn_if_not_joined()
    check_default_dtype()
    validated = validation is not None or parameters.early_stopping
    check_callbacks(parameters.callbacks, validated=validated)
    device = resolve_device(parameters.device)
    counted = np.flatnonzero(weights)
    if len(counted) < len(labels):  # a sample of weight 0 is as good as none
        samples = part_of(samples, counted)
        labels, weights = labels[counted], weights[counted]
        fit_task = fit_task and replace(fit_task, indices=counted)
    before = None if after is None else after.module_
    course = _course_of(parameters, after)
    checkpoint = None
    if not in_part:
        checkpoint = checkpoint_of(
            parameters,
            samples,
            labels,
            weights,
            classes=classes,
            before=before,
            validation=validation,
        )
    if checkpoint is not None:
        course = replace(course, seed=checkpoint.seed_or(course.seed))
    with checkpoint or nullcontext(), own_turn(device), seeded_torch(course.seed, device):
        time = TimeLimit(parameters.max_time)  # waiting for one's turn is not part of it
        if after is None:
            module, features = make_module(parameters, samples, len(classes), device, course.seed)
            net = make_net(parameters, module, device)
        else:
            net = continued_net(parameters, after, device)
            features = features_for(parameters, net, samples, parameters.verbose)
        ends_anew = not in_part and _ends_anew(parameters, net.module_, samples)
        if parameters.weight == 1 and not ends_anew and not net.module_.classifier.weight.any():
            _warn_of_no_classifier(features)
        if ends_anew:
            time.expect_pass(-(-len(samples) // parameters.batch_size))
        augment = make_augmentation(parameters, net.module_, samples)
        given = samples
        if features is not None and augment is None and net.module_.frozen:
            samples = features
        room = Room(parameters.cache_size)
        all_train = validation is not None or not parameters.early_stopping
        net.course = keep_split(course, parameters, labels, counted, all_train=all_train)
        training = np.arange(len(labels))
        if net.course.split is not None:
            training, aside = split(labels, net.course.split)
            net.course = keep_aside(net.course, digest_of(part_of(given, aside)))
            validation = set_aside(part_of(samples, aside), labels[aside], weights[aside])
        elif validation is not None:
            validation = _with_features(parameters, net, validation)
        starts = features is not None and (after is None or not net.module_.started)
        if features is not None:
            if starts:
                start_head(net.module_, features[training], labels[training], weights[training])
            check_finite(net.module_, features, resolve_precision(parameters.precision, device))
        if len(training) < len(labels):
            samples = part_of(samples, training)
            labels, weights = labels[training], weights[training]
            fit_task = fit_task and replace(fit_task, indices=counted[training])
        if after is not None and not starts:
            start_late_classes(net, samples, labels)
        dataset = make_dataset(net.module_, samples, labels, weights, augment=augment, room=room)
        run = Run(
            batch_sampler=_batches(parameters, labels, course.seed),
            n_epochs=1 if in_part else parameters.max_epochs,
            scheduled=not in_part,
            augment=augment,
            validation=_dataset_of(validation, net.module_, room) if validation else None,
            score=ValidationScore(parameters, validation) if validation else None,
            time=time,
            checkpoint=checkpoint,
            is_of_clone=parameters._is_clone,
            fit_task=fit_task,
        )
        train(net, dataset, run)
        if features is not None and net.module_.frozen:
            samples = features[training]
        _end(parameters, net, samples, labels, weights, anew=ends_anew, in_part=in_part)
    epochs = net.history_[net.run.epochs_before :]
    scores = [epoch["valid_score"] for epoch in epochs] if parameters.early_stopping else None
    return FittedNet(net, scores)


def _end(
    parameters: CLCEParameters,
    net: CLCENet,
    samples: Samples,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    anew: bool,
    in_part: bool,
) -> None:
    """Fit the classifier anew, as its start was, and keep the means of the classes.

    Both need a pass over samples. Ctrl-C in it leaves the network as it trained.
    """
    try:
        if anew and net.run.time.closes and not net.run.cut_short:
            assert not isinstance(samples, Tensor)  # the backbone trained
            samples = tuned_features(parameters, net, samples)
            finish_classifier(net.module_, samples, labels, weights)
        keep_class_means(net, samples, labels, weights, goes_on=in_part)
    except KeyboardInterrupt:
        if parameters._is_clone:
            raise
        warnings.warn(
            "fit was interrupted by the user in the pass that follows training. The estimator can "
            "be used and keeps its weights; the end of the pass is missing: the classifier as "
            "fitted anew, or means of the classes for score_samples and add_classes",
            ConvergenceWarning,
            stacklevel=4,
        )


def _ends_anew(parameters: CLCEParameters, module: CLCEModule, samples: Samples) -> bool:
    """Tell whether the classifier is fitted anew after training: never one that was scored.

    That of a pretrained backbone that trains is, and one that the loss doesn't reach.
    """
    trained = not isinstance(samples, Tensor) and not module.frozen
    return trained and (module.tunes or parameters.weight == 1) and not parameters.early_stopping


def _warn_of_no_classifier(features: Tensor | None) -> None:
    """Warn where nothing trains a classifier of zeros; from features it starts."""
    if features is None and is_main():
        warnings.warn(
            "weight=1 leaves cross-entropy out, from which the classifier learns: it predicts one "
            "class. A smaller weight is required, or fit with early_stopping=False, which fits it "
            "at the end",
            UserWarning,
            stacklevel=4,
        )


def _course_of(parameters: CLCEParameters, after: CLCENet | None) -> Course:
    if after is None:
        return begin(parameters)
    assert after.course is not None  # it has trained
    return go_on(parameters, after.course, after.module_.backbone)


def _with_features(
    parameters: CLCEParameters, net: CLCENet, validation: ValidationSet
) -> ValidationSet:
    """Run a backbone that is frozen over the validation set, once."""
    features = features_for(parameters, net, validation.samples, parameters.verbose)
    if features is None:
        return validation
    with naming("X_val"):
        precision = resolve_precision(parameters.precision, torch.device(net.device))
        check_finite(net.module_, features, precision)
    return validation.with_samples(features)


def _dataset_of(validation: ValidationSet, module: CLCEModule, room: Room) -> Dataset:
    return make_dataset(
        module, validation.samples, validation.labels, validation.weights, room=room
    )


def check_finite(module: CLCEModule, features: Tensor, precision: str) -> None:
    """Refuse features (n, n_features) whose standardised form float32 can't hold."""
    device = module.standardize.mean.device
    if not module.standardize(features.to(device)).isfinite().all():
        source = "X" if module.backbone is None else "backbone"
        wider = "" if precision != "float16" else "; precision='float32' holds more than 'float16'"
        raise ValueError(f"{source}: its features are not finite, or too large, in float32{wider}")


def _batches(parameters: CLCEParameters, labels: np.ndarray, seed: int) -> BatchSampler:
    """Make the batches, and warn where the contrastive term will find little in them."""
    batch_sampler = make_batch_sampler(
        parameters.sampler,
        labels,
        parameters.batch_size,
        weight=parameters.weight,
        random_state=seed,
    )
    if parameters.weight > 0 and parameters.n_views == 1:
        warn_of_lonely_anchors(batch_sampler, labels)
    return batch_sampler


def split(labels: np.ndarray, how: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of samples to train on, and of those to set aside of each class."""
    shuffled = StratifiedShuffleSplit(1, test_size=how.validation_fraction, random_state=how.seed)
    try:
        return next(shuffled.split(labels, labels))
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True with validation_fraction={how.validation_fraction!r}: {error}"
        ) from error


def warn_of_lonely_anchors(batch_sampler: BatchSampler, labels: np.ndarray) -> None:
    """Warn where most anchors will not have a positive in their batch."""
    epoch, n_paired, n_anchors = batch_sampler.epoch, 0, 0
    for batch in batch_sampler:
        counts = np.bincount(labels[batch])
        n_paired += counts[counts > 1].sum()
        n_anchors += len(batch)
    batch_sampler.epoch = epoch
    if n_paired < n_anchors / 2 and is_main():
        warnings.warn(
            f"only {n_paired} of {n_anchors} anchors have a positive in their batch, so the "
            "contrastive term does little: take a larger batch_size, sampler='balanced', "
            "n_views=2, or weight=0",
            UserWarning,
            stacklevel=4,
        )
