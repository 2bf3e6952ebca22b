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

from .._checks import prefix_errors
from .._system import (
    check_default_dtype,
    gpu_lock,
    is_main,
    resolve_device,
    resolve_precision,
    seeded_torch,
    warn_if_not_joined,
)
from ..data import MemoryBudget
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
    tuned_features,
)
from .start import finish_classifier, start_head
from .time_limit import TimeLimit
from .training_set import TrainingSet
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
    whole = TrainingSet(samples, labels, weights, np.arange(len(labels)))
    given = whole.at(np.flatnonzero(weights))  # a sample of weight 0 is as good as none
    course = _course_of(parameters, after)
    checkpoint = None
    if not in_part:
        checkpoint = checkpoint_of(
            parameters,
            given.samples,
            given.labels,
            given.weights,
            classes=classes,
            before=None if after is None else after.module_,
            validation=validation,
        )
    if checkpoint is not None:
        course = replace(course, seed=checkpoint.seed_or(course.seed))
    with checkpoint or nullcontext(), gpu_lock(device), seeded_torch(course.seed, device):
        time = TimeLimit(parameters.max_time)  # waiting for one's turn is not part of it
        net, features = _begin(parameters, given, len(classes), after, device, course.seed)
        ends_anew = not in_part and _ends_anew(parameters, net.module_, given.samples)
        if parameters.weight == 1 and not ends_anew and not net.module_.classifier.weight.any():
            _warn_of_no_classifier(features)
        if ends_anew:
            time.expect_pass(-(-len(given) // parameters.batch_size))
        augment = make_augmentation(parameters, net.module_, given.samples)
        settled = features if net.module_.frozen else None  # training leaves them as they are
        shown = given
        if settled is not None and augment is None:
            shown = replace(given, samples=settled)
        all_train = validation is not None or not parameters.early_stopping
        net.course = keep_split(course, parameters, given.labels, given.rows, all_train=all_train)
        train_on, validation = _validated(parameters, net, given, shown, validation)
        training = shown.at(train_on)
        _start(parameters, net, features, train_on, training, is_new=after is None)
        room = MemoryBudget(parameters.cache_size)
        dataset = make_dataset(
            net.module_,
            training.samples,
            training.labels,
            training.weights,
            augment=augment,
            room=room,
        )
        run = Run(
            batch_sampler=_batches(parameters, training.labels, course.seed),
            n_epochs=1 if in_part else parameters.max_epochs,
            scheduled=not in_part,
            augment=augment,
            validation=_dataset_of(validation, net.module_, room) if validation else None,
            score=ValidationScore(parameters, validation) if validation else None,
            time=time,
            checkpoint=checkpoint,
            is_of_clone=parameters._is_clone,
            fit_task=fit_task and fit_task.of(training.rows, len(whole)),
        )
        train(net, dataset, run)
        if settled is not None:
            training = replace(training, samples=settled[train_on])
        _end(parameters, net, training, anew=ends_anew, in_part=in_part)
    epochs = net.history_[net.run.epochs_before :]
    scores = [epoch["valid_score"] for epoch in epochs] if parameters.early_stopping else None
    return FittedNet(net, scores)


def _begin(
    parameters: CLCEParameters,
    given: TrainingSet,
    n_classes: int,
    after: CLCENet | None,
    device: torch.device,
    seed: int,
) -> tuple[CLCENet, Tensor | None]:
    """Return a new net, or a copy of an earlier one, and what is known of the samples' features."""
    if after is None:
        module, features = make_module(parameters, given.samples, n_classes, device, seed)
        return make_net(parameters, module, device), features
    net = continued_net(parameters, after, device)
    return net, features_for(parameters, net, given.samples, parameters.verbose)


def _validated(
    parameters: CLCEParameters,
    net: CLCENet,
    given: TrainingSet,
    shown: TrainingSet,
    validation: ValidationSet | None,
) -> tuple[np.ndarray, ValidationSet | None]:
    """Return indices of the samples that train, and what is validated on, if anything.

    ``shown`` is what the net is given of the samples: images, or their features.
    """
    assert net.course is not None
    if net.course.split is None:
        if validation is not None:
            validation = _with_features(parameters, net, validation)
        return np.arange(len(given)), validation
    train_on, aside = split(given.labels, net.course.split)
    net.course = keep_aside(net.course, digest_of(given.at(aside).samples))
    held = shown.at(aside)
    return train_on, set_aside(held.samples, held.labels, held.weights)


def _start(
    parameters: CLCEParameters,
    net: CLCENet,
    features: Tensor | None,
    train_on: np.ndarray,
    training: TrainingSet,
    *,
    is_new: bool,
) -> None:
    """Give the classifier what a closed form gives it: all of a new one, or classes that are new.

    ``features``: of all samples, those that are set aside among them.
    """
    starts = features is not None and (is_new or not net.module_.started)
    if features is not None:
        if starts:
            start_head(net.module_, features[train_on], training.labels, training.weights)
        check_finite(
            net.module_,
            features,
            resolve_precision(parameters.precision, torch.device(net.device)),
        )
    if not is_new and not starts:
        start_late_classes(net, training.samples, training.labels)


def _end(
    parameters: CLCEParameters,
    net: CLCENet,
    training: TrainingSet,
    *,
    anew: bool,
    in_part: bool,
) -> None:
    """Fit the classifier anew, as its start was, and keep the means of the classes.

    Both need a pass over samples. Ctrl-C in it leaves the network as it trained.
    """
    samples, labels, weights = training.samples, training.labels, training.weights
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
    with prefix_errors("X_val"):
        precision = resolve_precision(parameters.precision, torch.device(net.device))
        check_finite(net.module_, features, precision)
    return validation.with_samples(features)


def _dataset_of(validation: ValidationSet, module: CLCEModule, room: MemoryBudget) -> Dataset:
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
        warn_of_anchors_without_positive(batch_sampler, labels)
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


def warn_of_anchors_without_positive(batch_sampler: BatchSampler, labels: np.ndarray) -> None:
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
