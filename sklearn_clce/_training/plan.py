"""The plan of a fit: every "auto" is decided here, once, from estimator, data and earlier calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._head import MAX_REGRESSED, HeadConfig
from .._network import (
    Network,
    blocks_of,
    fixed_parameters,
    resolve_layer_decay,
    resolve_trainable,
    trainable_names,
    trainable_of,
)
from .._system import count, duration, n_processes, resolve_device, resolve_precision
from .._targets import Target
from ..data import Augmentation, check_augment, make_batch_sampler, resolve_sampler
from ..features import FeatureStore, ProcessStore, open_store
from .batches import Augment, Samples
from .skorch_arguments import check_skorch_params

PROJECTION_DIM = 128
MAX_EPOCHS = 20  # of what "auto" decides
# A head starts from a closed form of up to MAX_REGRESSED samples. If these are all, more than so
# many samples of each class, the same ones again if there are few, changed neither accuracy nor
# log-loss (``benchmarks/head_epochs.py``).
HEAD_SAMPLES = 200
STEP_OF_LAST, STEP_OF_ALL = 2.0, 3.5  # passes that an epoch costs, of the last blocks and of all

# Parameters of one value that "auto" decides; they follow from data and other parameters.
DECIDED = ("augment", "layer_decay", "max_epochs", "projection_dim", "sampler", "trainable")
COMPARED = (
    *("augment", "layer_decay", "sampler", "trainable"),
    *("backbone", "pretrained", "image_size", "lora_rank", "gradient_checkpointing", "compile"),
    *("weight", "temperature", "hardness", "positives", "label_smoothing"),
    *("batch_size", "micro_batch_size", "n_views", "max_epochs", "max_time", "learning_rate"),
    *("weight_decay", "warmup_fraction", "max_grad_norm", "skorch_params", "random_state"),
    *("early_stopping", "scoring", "validation_fraction", "n_iter_no_change", "tol"),
)


@dataclass(frozen=True)
class Passes:
    """How networks run over samples; the result depends on it by rounding at most."""

    device: torch.device
    precision: str
    precision_follows_device: bool
    batch_size: int
    num_workers: int | None  # None: a thread per core, for images that are thread-safe
    store: FeatureStore | ProcessStore | None
    verbose: int | bool

    def on(self, device: torch.device) -> Passes:
        """Return the same on another device, which may have another precision."""
        if not self.precision_follows_device:
            return replace(self, device=device)
        return replace(self, device=device, precision=resolve_precision("auto", device))


def plan_passes(estimator: Any, device: Any = None) -> Passes:
    """Decide how to run over samples; ``device`` is where a fitted network already is."""
    store = _decide_store(estimator, is_fit=device is None)
    device = resolve_device(estimator.device) if device is None else torch.device(device)
    return Passes(
        device=device,
        precision=resolve_precision(estimator.precision, device),
        precision_follows_device=estimator.precision == "auto",
        batch_size=estimator.batch_size,
        num_workers=_none_if_auto(estimator.num_workers),
        store=store,
        verbose=estimator.verbose,
    )


def _decide_store(estimator: Any, *, is_fit: bool) -> FeatureStore | ProcessStore | None:
    """Return where features are kept.

    In the process those of fits, and of predictions in searches and cross-validation, whose samples
    other fits need; of other predictions the samples seldom come again.
    """
    is_wanted = is_fit or estimator._is_clone or estimator.memory is not None
    return open_store(estimator.memory) if is_wanted else None


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What one call of training does: decided values only.

    Fields that have a parameter's name hold its value, "auto" replaced by the decision.
    """

    # the network
    backbone: str | nn.Module
    pretrained: Any
    image_size: int | None
    is_pretrained: bool  # the backbone comes with weights that know more than a few images
    trainable: str | int
    trains_backbone: bool
    changes_trainable: bool  # of a network that has trained before
    lora_rank: int
    head: HeadConfig
    gradient_checkpointing: bool
    compile: bool
    # the criterion
    weight: float
    temperature: float
    hardness: float
    positives: str
    label_smoothing: float
    # the batches
    sampler: str
    batch_size: int
    micro_batch_size: int | None
    n_views: int
    augment: Augment | None
    # the optimisation
    max_epochs: int
    max_time: float | None
    learning_rate: float
    layer_decay: float
    weight_decay: float
    warmup_fraction: float
    max_grad_norm: float | None
    skorch_params: Mapping[str, Any]
    callbacks: list[Any] | None
    keeps_optimizer: bool
    # the validation
    early_stopping: bool
    scoring: Any
    validation_fraction: float
    n_iter_no_change: int
    tol: float
    # the stages
    is_partial_fit: bool  # one epoch at the peak learning rate
    refits_classifier: bool  # after training
    is_of_clone: bool  # made by a search or another meta-estimator
    random_state: Any
    seed: int
    # the machine
    passes: Passes
    cache_size: int | None  # bytes; None: until a quarter of the memory is left
    verbose: int | bool
    # the sizes, for people
    n_samples: int
    n_steps: int  # of an epoch
    n_blocks: int | None  # of the backbone, if it lists them

    @property
    def patience(self) -> int | None:
        """Epochs without a better score before training stops; None: it does not."""
        return self.n_iter_no_change if self.early_stopping else None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle names in place of the user's objects, which a later call has again."""
        objects = {name: getattr(self, name) for name in ("backbone", "scoring")}
        named = {
            name: type(value).__name__
            for name, value in objects.items()
            if isinstance(value, nn.Module) or callable(value)
        }
        return vars(self) | named | {"callbacks": None}

    def compared(self) -> dict[str, Any]:
        """Return the parameters that the result of a fit depends on, by name."""
        compared = {name: getattr(self, name) for name in COMPARED}
        return compared | asdict(self.head) | {"precision": self.precision}

    def shared(self) -> dict[str, Any]:
        """Return what must be the same in all processes that train together, by name."""
        names = ("precision", "n_epochs", "n_steps", "n_samples", "refits_classifier")
        decided = self.compared() | {name: getattr(self, name) for name in names}
        return decided | {"random_state": None}  # the seed is that of the main process

    @property
    def raises_interrupts(self) -> bool:
        """Whether Ctrl-C is an error: in a search, and where other processes wait."""
        return self.is_of_clone or n_processes() > 1

    @property
    def n_epochs(self) -> int:
        """Epochs of this call, if nothing ends it."""
        return 1 if self.is_partial_fit else self.max_epochs

    @property
    def n_images_later(self) -> float:
        """What follows the first pass, in images that the backbone runs on."""
        if not self.trains_backbone:
            return 0.0 if self.augment is None else self.n_samples * self.n_epochs
        passes = _passes_of_training(self.trainable, self.n_epochs * self.n_views)
        return self.n_samples * (passes + self.refits_classifier)

    @property
    def precision(self) -> str:
        """Precision of the network."""
        return self.passes.precision

    @property
    def device(self) -> torch.device:
        """Where the fit computes."""
        return self.passes.device

    def __str__(self) -> str:
        limit = "up to " if self.early_stopping or self.max_time is not None else ""
        time = "" if self.max_time is None else f", for at most {duration(self.max_time)}"
        return (
            f"trains {self._trained_parts()}: {self.n_samples:,} samples, {limit}"
            f"{count(self.n_epochs, 'epoch')} of {count(self.n_steps, 'step')}, batches of up to "
            f"{min(self.batch_size, self.n_samples)}{time}, {self.precision} on {self.device}"
        )

    def _trained_parts(self) -> str:
        name = self.backbone if isinstance(self.backbone, str) else type(self.backbone).__name__
        if not self.trains_backbone:
            return "a head" if name == "precomputed" else f"a head on features of {name}"
        if self.trainable == "lora":
            return f"a head and low-rank matrices of {name}"
        if self.trainable == "all":
            return f"all of {name}"
        last = "last" if self.trainable == 1 else f"last {self.trainable}"
        return f"the {last} of {self.n_blocks} blocks of {name}"


def make_plan(
    estimator: Any,
    *,
    samples: Samples | None,
    target: Target | None,
    passes: Passes,
    seed: int,
    backbone: nn.Module | None,
    knows_features: bool,
    previous: Network | None = None,
    changes_trainable: bool = False,
    is_partial_fit: bool = False,
) -> FitPlan:
    """Decide what a fit does.

    ``samples`` are all that count, ``target`` is that of those that train. ``backbone`` is newly
    loaded, or that of the ``previous`` network, without low-rank matrices if it changes.
    ``knows_features``: a frozen backbone gives a new head features to start from.
    """
    check_skorch_params(estimator.skorch_params or {}, estimator.get_params(deep=False))
    groups = n_partners = np.zeros(0, dtype=np.int64)
    if target is not None:
        groups, n_partners = target.groups, target.n_partners()
    pretrained = is_pretrained(estimator) if previous is None else previous.pretrained
    fixed = fixed_parameters(estimator.backbone)
    trainable, trains_backbone = _decide_trainable(
        estimator.trainable, backbone, fixed, previous, pretrained, changes_trainable
    )
    sampler = resolve_sampler(
        estimator.sampler,
        groups,
        estimator.batch_size,
        weight=estimator.weight,
        n_partners=n_partners,
    )
    batches = make_batch_sampler(sampler, groups, estimator.batch_size, random_state=seed)
    head = _decide_head(estimator, knows_features) if previous is None else previous.head.config
    augment = _decide_augmentation(estimator, samples, trains_backbone)
    is_start_enough = not (trains_backbone or augment or _wants_epochs(estimator))
    is_refit = trains_backbone and (pretrained or estimator.weight == 1)
    decided: dict[str, Any] = {
        "is_pretrained": pretrained,
        "trainable": trainable,
        "trains_backbone": trains_backbone,
        "changes_trainable": changes_trainable,
        "head": head,
        "sampler": sampler,
        "augment": augment,
        "max_epochs": _decide_epochs(estimator.max_epochs, groups, is_start_enough),
        "layer_decay": resolve_layer_decay(backbone, estimator.layer_decay),
        "skorch_params": dict(estimator.skorch_params or {}),
        "keeps_optimizer": estimator.warm_start,
        "is_partial_fit": is_partial_fit,
        "cache_size": _none_if_auto(estimator.cache_size),
        "refits_classifier": is_refit and not (is_partial_fit or estimator.early_stopping),
        "is_of_clone": estimator._is_clone,
        "seed": seed,
        "passes": passes,
        "n_samples": len(groups),
        "n_steps": len(batches),
        "n_blocks": len(blocks_of(backbone)) if hasattr(backbone, "group_matcher") else None,
    }
    names = [each.name for each in fields(FitPlan) if each.name not in decided]
    return FitPlan(**{name: getattr(estimator, name) for name in names}, **decided)


def plan_without_fit(estimator: Any, network: Network, seed: int) -> FitPlan:
    """Decide what does not depend on samples, for a network that is not trained now."""
    return make_plan(
        estimator,
        samples=None,
        target=None,
        passes=plan_passes(estimator),
        seed=seed,
        backbone=network.backbone,
        knows_features=False,
        previous=network,
    )


def passes_of_fit(estimator: Any) -> float:
    """Estimate what a fit costs in passes over its images, before any of them is read."""
    trainable = getattr(estimator, "trainable", "head")
    if trainable == "head":
        return 1.0
    n_epochs = MAX_EPOCHS if estimator.max_epochs == "auto" else estimator.max_epochs
    return 2.0 + _passes_of_training(trainable, n_epochs * estimator.n_views)


def _passes_of_training(trainable: str | int, n_epochs: int) -> float:
    return n_epochs * (STEP_OF_ALL if trainable == "all" else STEP_OF_LAST)


def _none_if_auto(value: int | str) -> int | None:
    return None if isinstance(value, str) else value


def is_pretrained(estimator: Any) -> bool:
    """Return whether the backbone comes with weights that know more than a few images."""
    named = isinstance(estimator.backbone, str) and estimator.backbone != "precomputed"
    return named and estimator.pretrained is not False


def _decide_trainable(
    trainable: str | int,
    backbone: nn.Module | None,
    fixed: frozenset[str],
    previous: Network | None,
    pretrained: bool,
    changes_trainable: bool,
) -> tuple[str | int, bool]:
    """Return the trainable parts, and whether any of them is of the backbone."""
    if backbone is None:
        return "head", False
    if previous is not None and not changes_trainable:
        return trainable_of(previous), not previous.frozen
    trainable = resolve_trainable(trainable, backbone, pretrained=pretrained)
    return trainable, trainable == "lora" or not trainable_names(backbone, trainable) <= fixed


def _decide_head(estimator: Any, knows_features: bool) -> HeadConfig:
    """Decide "auto": a projection if there are features that it can start from."""
    values = {each.name: getattr(estimator, each.name) for each in fields(HeadConfig)}
    if values["projection_dim"] == "auto":
        values["projection_dim"] = PROJECTION_DIM if knows_features else None
    elif values["projection_dim"] is not None:
        values["projection_dim"] = int(values["projection_dim"])  # from NumPy
    return HeadConfig(**values)


def _wants_epochs(estimator: Any) -> bool:
    """Return whether a head is trained for more than its probabilities.

    That is a projection whose width is given, or that alone learns, and a choice of the best epoch.
    """
    has_width = not isinstance(estimator.projection_dim, str | None)
    return has_width or estimator.weight == 1 or estimator.early_stopping


def _decide_epochs(max_epochs: int | str, groups: np.ndarray, is_start_enough: bool) -> int:
    """Decide "auto": few epochs for a head that starts from many samples of each class, and all.

    Shape: groups (n,), a class of each sample.
    """
    if not isinstance(max_epochs, str):
        return max_epochs
    if not is_start_enough or not 0 < len(groups) <= MAX_REGRESSED:
        return MAX_EPOCHS
    return min(MAX_EPOCHS, math.ceil(HEAD_SAMPLES * len(np.unique(groups)) / len(groups)))


def _decide_augmentation(
    estimator: Any, samples: Samples | None, trains_backbone: bool
) -> Augment | None:
    augment = estimator.augment
    if samples is None:
        return None if augment == "auto" else augment
    if augment == "auto":
        augment = None
        if trains_backbone and not isinstance(samples, Tensor):
            augment = Augmentation(grey=samples.is_grey)
    if augment is not None and isinstance(samples, Tensor):
        raise ValueError("augment: X holds features; only images can be augmented")
    check_augment(augment)
    if augment is None and estimator.n_views > 1:
        raise ValueError(
            f"n_views={estimator.n_views!r}: without augmentation the views of an image are the "
            "same; augment must be a callable, or 'auto' with a trainable backbone"
        )
    return augment
