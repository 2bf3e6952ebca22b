"""One fit: plan, build, prepare, train, finish."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from .._checks import prefix_errors
from .._head import MAX_PER_CLASS, Head
from .._system import (
    agree,
    bar,
    expect,
    gpu_lock,
    is_main,
    note,
    seeded_torch,
    warn,
    warn_if_not_joined,
)
from .._targets import Target
from ..data import MemoryBudget, make_batch_sampler
from .batches import LabelledSamples, Samples, make_dataset, part_of
from .build import (
    LoadedBackbone,
    build_net,
    build_network,
    continue_net,
    open_backbone,
    warn_if_memory_is_unused,
)
from .checkpoint import digest_of, open_checkpoint
from .inference import as_frozen, features_for, frozen_features, infer_batches
from .plan import FitPlan, make_plan, plan_passes
from .resume import (
    ResumeState,
    check_content_aside,
    continue_split,
    continue_state,
    remembered,
    start_state,
)
from .sklearn_callbacks import FitTask
from .skorch_arguments import check_callbacks
from .time_limit import TimeLimit
from .trainer import BatchSampler, CLCENet, FitState
from .validation import ValidationScore, ValidationSet, set_aside


@dataclass(frozen=True)
class FittedNet:
    """A trained net, and the validation scores of its last call by epoch."""

    net: CLCENet
    validation_scores: list[float] | None  # None without early stopping

    @property
    def best_validation_score(self) -> float | None:
        """The highest validation score."""
        return max(self.validation_scores or [], default=None)


@dataclass(frozen=True)
class Request:
    """A fit as it was asked for: what is decided from it, and what it may continue."""

    plan: FitPlan
    resume: ResumeState
    train_on: np.ndarray  # indices of the samples that train, among those with a weight
    aside: np.ndarray  # and of those to validate on
    loaded: LoadedBackbone | None
    previous: CLCENet | None


def fit_net(
    estimator: Any,
    data: LabelledSamples,
    *,
    previous: CLCENet | None = None,
    is_partial_fit: bool = False,
    validation: ValidationSet | None = None,
    fit_task: FitTask | None = None,
) -> FittedNet:
    """Train a new net, or a copy of a previous one, so that an error loses nothing.

    ``is_partial_fit``: one epoch at the peak learning rate. ``validation``: samples to validate
    on, in place of some that are set aside. ``fit_task`` is the fit as scikit-learn's callbacks
    know it.
    """
    warn_if_not_joined()
    is_validated = validation is not None or estimator.early_stopping
    check_callbacks(estimator.callbacks, validated=is_validated)
    n_given = len(data)
    data = data.take(np.flatnonzero(data.target.sample_weights))  # weight 0 is as good as no sample
    circumstances: dict[str, Any] = {
        "previous": previous,
        "is_partial_fit": is_partial_fit,
        "sets_aside": estimator.early_stopping and validation is None,
    }
    request = resolve(estimator, data, **circumstances)
    agree(request.plan.shared())
    checkpoint = open_checkpoint(
        estimator.checkpoint,
        request.plan,
        data,
        previous=None if previous is None else previous.module_,
        validation=validation,
    )
    if checkpoint is not None and checkpoint.seed_or(request.plan.seed) != request.plan.seed:
        request = resolve(estimator, data, **circumstances, seed=checkpoint.seed)
    plan, device = request.plan, request.plan.device
    with checkpoint or nullcontext(), gpu_lock(device), seeded_torch(plan.seed, device):
        time = TimeLimit(plan.max_time)  # waiting for the lock does not count
        if plan.verbose and is_main():
            note(str(plan))
        expect(later=plan.n_images_later, n_fits=None if fit_task is None else fit_task.n_of_search)
        net, features = _build(request, data)
        if plan.refits_classifier:
            time.expect_pass(-(-len(data) // plan.batch_size))
        training, validation = _split(request, net, data, features, validation)
        _start(net, features, request.train_on, training, is_new=previous is None)
        state = FitState(
            plan,
            _make_batches(plan, training.target),
            time=time,
            score=_score_of(estimator, validation),
            checkpoint=checkpoint,
            fit_task=fit_task and fit_task.of(training.rows, n_given),
        )
        _train(net, training, validation, state)
        if net.module_.frozen and features is not None:
            training = training.with_samples(features[request.train_on])
        with bar(what="last pass", shown=False):
            _finish(net, training, state)
    epochs = net.history_[state.epochs_before :]
    scores = [epoch["valid_score"] for epoch in epochs] if plan.early_stopping else None
    return FittedNet(net, scores)


def resolve(
    estimator: Any,
    data: LabelledSamples,
    *,
    previous: CLCENet | None,
    is_partial_fit: bool,
    sets_aside: bool,
    seed: int | None = None,
) -> Request:
    """Decide everything, before anything is computed; ``seed``: that of a checkpoint."""
    parameters = remembered(estimator)
    changes_trainable = False
    loaded, network = None, None
    if previous is None:
        resume = start_state(parameters)
    else:
        network = previous.module_
        assert previous.resume is not None  # it has trained
        resume = continue_state(previous.resume, parameters, network.backbone)
        changes_trainable = previous.resume.changes_trainable(parameters, network)
    resume = resume if seed is None else replace(resume, seed=seed)
    resume = continue_split(
        resume,
        data.target,
        data.rows,
        validation_fraction=estimator.validation_fraction,
        sets_aside=sets_aside,
    )
    train_on, aside = np.arange(len(data)), np.arange(0)
    if resume.split is not None:
        train_on, aside = data.target.split(resume.split.validation_fraction, resume.split.seed)
    if previous is None:
        loaded = _load(estimator, data.samples, resume.seed)
        backbone = None if loaded is None else loaded.module
    else:
        backbone = (previous.module_.merged() if changes_trainable else previous.module_).backbone
    plan = make_plan(
        estimator,
        samples=data.samples,
        target=data.target.take(train_on),
        passes=plan_passes(estimator),
        seed=resume.seed,
        backbone=backbone,
        knows_features=isinstance(data.samples, Tensor)
        or (loaded is not None and loaded.frozen is not None),
        previous=network,
        changes_trainable=changes_trainable,
        is_partial_fit=is_partial_fit,
    )
    if previous is None:
        _warn_of_unused_memory(estimator, loaded)
    return Request(plan, resume, train_on, aside, loaded, previous)


def _load(estimator: Any, samples: Samples, seed: int) -> LoadedBackbone | None:
    """Load the backbone of a new net; features need none."""
    return None if isinstance(samples, Tensor) else open_backbone(estimator, samples, seed)


def _warn_of_unused_memory(estimator: Any, loaded: LoadedBackbone | None) -> None:
    if loaded is None:
        why_not = "X holds features already (backbone='precomputed')"
    elif loaded.frozen is None:
        why_not = (
            f"the backbone trains (trainable={estimator.trainable!r}); features are kept with "
            "trainable='head'"
        )
    else:
        return
    warn_if_memory_is_unused(estimator.memory, why_not)


def _build(request: Request, data: LabelledSamples) -> tuple[CLCENet, Tensor | None]:
    """Return a net to train, and the samples' features if they are known."""
    plan = request.plan
    if request.previous is not None:
        net = continue_net(plan, request.previous)
        features = features_for(net.module_, data.samples, plan.passes)
    else:
        network, features = build_network(plan, request.loaded, data.samples, data.target)
        net = build_net(plan, network)
    net.resume = request.resume
    return net, features


def _split(
    request: Request,
    net: CLCENet,
    data: LabelledSamples,
    features: Tensor | None,
    validation: ValidationSet | None,
) -> tuple[LabelledSamples, ValidationSet | None]:
    """Return the samples that train, and those to validate on, as the network takes them."""
    inputs = data
    if net.module_.frozen and features is not None and request.plan.augment is None:
        inputs = data.with_samples(features)  # training leaves them as they are
    assert net.resume is not None
    if net.resume.split is None:
        return inputs, validation and _with_features(net, validation)
    aside = data.take(request.aside)
    net.resume = check_content_aside(net.resume, digest_of(aside.samples))
    of_network = inputs.take(request.aside).samples
    return inputs.take(request.train_on), set_aside(aside).with_samples(of_network)


def _with_features(net: CLCENet, validation: ValidationSet) -> ValidationSet:
    """Run a frozen backbone over the validation set, once."""
    features = features_for(net.module_, validation.samples, net.plan.passes)
    if features is None:
        return validation
    with prefix_errors("X_val"):
        check_finite(net, features)
    return validation.with_samples(features)


def _start(
    net: CLCENet,
    features: Tensor | None,
    train_on: np.ndarray,
    training: LabelledSamples,
    *,
    is_new: bool,
) -> None:
    """Fit the closed form of the classifier: all of a new one, or columns of new classes.

    ``features``: of all samples, including those set aside.
    """
    head = net.module_.head
    starts = features is not None and (is_new or not head.is_initialised)
    if features is not None:
        if starts:
            target = training.target
            target.outputs.start_head(head, features[train_on], *target.tensors())
        check_finite(net, features)
    if not is_new and not starts:
        _start_late_classes(net, training)
    no_classifier = net.plan.weight == 1 and not net.plan.refits_classifier
    if no_classifier and features is None and not head.has_classifier and is_main():
        warn(
            "weight=1 disables cross-entropy, so the classifier is not trained and predicts a "
            "single class. A smaller weight is required, or fit with early_stopping=False, which "
            "fits the classifier at the end"
        )


def _start_late_classes(net: CLCENet, training: LabelledSamples) -> None:
    """Fit the columns of classes that were named earlier and have their first samples now."""
    head: Head = net.module_.head

    def read(indices: np.ndarray) -> Tensor:
        dataset = make_dataset(net.module_, part_of(training.samples, indices))
        return infer_batches(net, dataset, net.classifier_inputs)[0]

    if head.has_class_means:
        training.target.start_late_classes(head, read)


def check_finite(net: CLCENet, features: Tensor) -> None:
    """Reject features (n, n_features) whose standardised form float32 can't hold."""
    standardize = net.module_.head.standardize
    if not standardize(features.to(standardize.mean.device)).isfinite().all():
        source = "X" if net.module_.backbone is None else "backbone"
        is_half = net.plan.precision == "float16"
        wider = "; precision='float32' holds more than 'float16'" if is_half else ""
        raise ValueError(f"{source}: its features are not finite, or too large, in float32{wider}")


def _make_batches(plan: FitPlan, target: Target) -> BatchSampler:
    """Make the batches, and warn if the contrastive term finds few pairs in them."""
    batch_sampler = make_batch_sampler(
        plan.sampler, target.groups, plan.batch_size, random_state=plan.seed
    )
    if plan.weight > 0 and plan.n_views == 1:
        warn_of_anchors_without_positive(batch_sampler, target)
    return batch_sampler


def warn_of_anchors_without_positive(batch_sampler: BatchSampler, target: Target) -> None:
    """Warn if most anchors will not have a positive in their batch."""
    epoch, n_paired, n_anchors = batch_sampler.epoch, 0, 0
    for batch in batch_sampler:
        n_paired += target.paired(batch).sum()
        n_anchors += target.are_anchors[batch].sum()
    batch_sampler.epoch = epoch
    if not n_anchors:
        return
    if not target.paired(slice(None)).any() and is_main():
        warn(
            "each class has only one sample, and the contrastive term compares two of a class: add "
            "samples, use n_views=2, or weight=0"
        )
    elif n_paired < n_anchors / 2 and is_main():
        warn(
            f"only {n_paired} of {n_anchors} anchors have a positive in their batch, so the "
            "contrastive term does little: use a larger batch_size, sampler='balanced', "
            "n_views=2, or weight=0"
        )


def _score_of(estimator: Any, validation: ValidationSet | None) -> ValidationScore | None:
    if validation is None:
        return None
    return ValidationScore(estimator.scoring, validation, estimator._with_known_outputs)


def _train(
    net: CLCENet, training: LabelledSamples, validation: ValidationSet | None, state: FitState
) -> None:
    """Run the epochs."""
    budget = MemoryBudget(net.plan.cache_size)
    dataset = make_dataset(
        net.module_, training.samples, training.target, augment=net.plan.augment, budget=budget
    )
    if validation is not None:
        state.validation = make_dataset(
            net.module_, validation.samples, validation.target, budget=budget
        )
    net.train(dataset, state)


def _finish(net: CLCENet, training: LabelledSamples, state: FitState) -> None:
    """Refit the classifier, in the way of its start, and compute the means of the classes.

    Both need a pass over samples. Ctrl-C in it leaves the network as it trained.
    """
    try:
        if net.plan.refits_classifier and state.time.closes and not state.cut_short:
            training = _refit(net, training)
        _add_class_means(net, training)
    except KeyboardInterrupt:
        if net.plan.raises_interrupts:
            raise
        warn(
            "fit was interrupted by the user in the pass that follows training. The estimator can "
            "be used and keeps its weights; the end of the pass is missing: the refitted "
            "classifier, or means of the classes for score_samples and add_classes",
            ConvergenceWarning,
        )


def _refit(net: CLCENet, training: LabelledSamples) -> LabelledSamples:
    """Refit the classifier to features of the trained backbone, and return these."""
    assert not isinstance(training.samples, Tensor)  # the backbone trained
    passes = replace(net.plan.passes, store=None, verbose=0)  # of this backbone none are kept
    features = frozen_features(as_frozen(net.module_), training.samples, passes)
    target = training.target
    target.outputs.refit_classifier(net.module_.head, features, *target.tensors())
    return training.with_samples(features)


def _add_class_means(net: CLCENet, training: LabelledSamples) -> None:
    head: Head = net.module_.head
    head.expect_class_means(training.target.members()[1])
    if not isinstance(training.samples, Tensor):
        training = training.take(training.target.evenly_per_class(MAX_PER_CLASS))
    members, labels, weights = training.target.members()
    if not len(labels):
        return
    dataset = make_dataset(net.module_, training.samples)
    inputs, _ = infer_batches(net, dataset, net.classifier_inputs)
    keep_earlier = net.plan.is_partial_fit
    head.add_class_means(inputs[members], labels, weights, keep_earlier=keep_earlier)
