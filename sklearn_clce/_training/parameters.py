"""The parameters of the estimator and the values that they may have."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Literal, Self

import joblib
import numpy as np
import torch
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    StrOptions,
)
from torch import Tensor, nn

from .._checks import SuggestingEstimator, suggestion, suggests_parameters
from ..features import FeatureStore

TAKE_BOOL = {"boolean", "verbose", "random_state"}  # the last two as everywhere in scikit-learn


class CLCEParameters(SuggestingEstimator):
    """What :class:`sklearn_clce.CLCEClassifier` is made with; it documents them."""

    _parameter_constraints: dict = {
        "backbone": [str, nn.Module],
        "pretrained": ["boolean", str, os.PathLike],
        "trainable": [
            StrOptions({"auto", "all", "head", "lora"}),
            Interval(Integral, 1, None, closed="left"),
        ],
        "lora_rank": [Interval(Integral, 1, None, closed="left")],
        "weight": [Interval(Real, 0, 1, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "hardness": [Interval(Real, 0, None, closed="left")],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
        "projection_dim": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": [tuple, list, None],
        "max_pixel_value": [Interval(Real, 0, None, closed="neither"), None],
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "micro_batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "layer_decay": [Interval(Real, 0, 1, closed="right"), StrOptions({"auto"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warmup_fraction": [Interval(Real, 0, 1, closed="left")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "sampler": [StrOptions({"auto", "shuffle", "balanced"})],
        "augment": [StrOptions({"auto"}), callable, None],
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "early_stopping": ["boolean"],
        "scoring": [str, callable, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "compile": ["boolean"],
        "gradient_checkpointing": ["boolean"],
        "num_workers": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "cache_size": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "memory": [str, os.PathLike, HasMethods(["cache"]), FeatureStore, None],
        "checkpoint": [str, os.PathLike, None],
        "callbacks": [list, None],
        "skorch_params": [dict, None],
    }

    _is_clone = False  # made by a search or another meta-estimator, for fits of its own

    @suggests_parameters
    def __init__(
        self,
        backbone: str | nn.Module = "efficientnet_lite0",
        *,
        pretrained: bool | str | os.PathLike[str] = True,
        trainable: Literal["auto", "all", "head", "lora"] | int = "auto",
        lora_rank: int = 8,
        weight: float = 0.5,
        temperature: float = 0.5,
        hardness: float = 1.0,
        label_smoothing: float = 0.0,
        projection_dim: int | Literal["auto"] | None = "auto",
        image_size: int | None = None,
        image_shape: tuple[int, ...] | list[int] | None = None,
        max_pixel_value: float | None = None,
        n_channels: int | None = None,
        batch_size: int = 32,
        micro_batch_size: int | None = None,
        max_epochs: int = 20,
        max_time: float | None = None,
        learning_rate: float = 1e-3,
        layer_decay: float | Literal["auto"] = "auto",
        weight_decay: float = 0.05,
        warmup_fraction: float = 0.1,
        max_grad_norm: float | None = 1.0,
        sampler: Literal["auto", "shuffle", "balanced"] = "auto",
        augment: Callable[[Tensor], Tensor] | Literal["auto"] | None = "auto",
        n_views: int = 1,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        early_stopping: bool = False,
        scoring: str | Callable[..., float] | None = "accuracy",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        compile: bool = False,
        gradient_checkpointing: bool = False,
        num_workers: int | Literal["auto"] = "auto",
        cache_size: int | Literal["auto"] = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
        memory: str | os.PathLike[str] | joblib.Memory | FeatureStore | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        callbacks: list[Any] | None = None,
        skorch_params: dict[str, Any] | None = None,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.trainable = trainable
        self.lora_rank = lora_rank
        self.weight = weight
        self.temperature = temperature
        self.hardness = hardness
        self.label_smoothing = label_smoothing
        self.projection_dim = projection_dim
        self.image_size = image_size
        self.image_shape = image_shape
        self.max_pixel_value = max_pixel_value
        self.n_channels = n_channels
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.max_epochs = max_epochs
        self.max_time = max_time
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.max_grad_norm = max_grad_norm
        self.sampler = sampler
        self.augment = augment
        self.n_views = n_views
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.compile = compile
        self.gradient_checkpointing = gradient_checkpointing
        self.num_workers = num_workers
        self.cache_size = cache_size
        self.random_state = random_state
        self.verbose = verbose
        self.memory = memory
        self.checkpoint = checkpoint
        self.callbacks = callbacks
        self.skorch_params = skorch_params

    def _validate_params(self) -> None:
        """Check all values, and refuse True where it would count as the number 1."""
        super()._validate_params()
        scorers = [*get_scorer_names(), "loss"]
        if isinstance(self.scoring, str) and self.scoring not in scorers:
            raise InvalidParameterError(
                f"scoring={self.scoring!r}: a name of sklearn.metrics.get_scorer_names(), 'loss', "
                f"a callable or None is required.{suggestion(self.scoring, scorers)}"
            )
        for name, value in self.get_params(deep=False).items():
            kinds = [kind for kind in self._parameter_constraints[name] if isinstance(kind, str)]
            if isinstance(value, bool) and not TAKE_BOOL.intersection(kinds):
                wanted = (
                    "'auto', 'all', 'head', 'lora' or a number of blocks"
                    if name == "trainable"
                    else "a number"
                )
                raise InvalidParameterError(f"{name}={value!r}: {wanted} is required")

    def __sklearn_clone__(self) -> Self:
        """Make a copy that knows that it is one."""
        clone = super().__sklearn_clone__()
        clone._is_clone = True
        return clone
