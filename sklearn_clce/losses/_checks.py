"""Checks of what a loss is given, with messages that name the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

FORMS = ("auto", "plain", "blocks")
REDUCTIONS = ("mean", "none")


def check_settings(
    *,
    temperature: float | Tensor,
    hardness: float | Tensor,
    weight: float = 0.0,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    form: str = "auto",
) -> None:
    """Raise an error if a setting of the criterion is of a wrong type or out of its range."""
    _check_number(
        "temperature",
        temperature,
        lambda value: 0 < value < math.inf,
        "it divides similarities, so it must be finite and > 0",
    )
    _check_number(
        "hardness",
        hardness,
        lambda value: 0 <= value < math.inf,
        "it must be finite and >= 0; 0 turns it off",
    )
    share = "the share of the contrastive term is in [0, 1]"
    _check_number("weight", weight, lambda value: 0 <= value <= 1, share)
    share = "a share in [0, 1] is required"
    _check_number("label_smoothing", label_smoothing, lambda value: 0 <= value <= 1, share)
    for name, value, known in (("reduction", reduction, REDUCTIONS), ("form", form, FORMS)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: one of {', '.join(map(repr, known))} is required")


def _check_number(name: str, value: Any, holds: Callable[[Any], bool], requirement: str) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} of shape {tuple(value.shape)}: one value is required")
        if not is_readable(value):
            return
        value = value.item()
    elif not isinstance(value, Real):
        raise TypeError(f"{name}={value!r}: a number is required")
    if not holds(value):
        raise ValueError(f"{name}={value!r}: {requirement}")


def is_readable(tensor: Tensor) -> bool:
    """Tell whether values can be looked at: not where it would wait for a GPU or cut a graph."""
    return (
        tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def check_samples(name: str, samples: Any, may_be_empty: bool = False) -> None:
    """Raise an error if samples are not a tensor of shape (n, n_something)."""
    check_tensor(name, samples)
    if samples.ndim != 2:
        raise ValueError(f"{name} of shape {tuple(samples.shape)}: one vector a sample is required")
    if samples.shape[0] == 0 and not may_be_empty:
        raise ValueError(f"{name} of shape {tuple(samples.shape)}: at least one sample is required")


def check_labels(name: str, labels: Any, of: str, samples: Tensor) -> Tensor:
    """Return labels as int64; raise an error if they are not one integer for each sample."""
    check_tensor(name, labels)
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise TypeError(f"{name} of dtype {labels.dtype}: class indices, so integers, are required")
    if labels.shape != samples.shape[:1]:
        raise ValueError(
            f"one label for each of the {of} is required, got {of} {tuple(samples.shape)}, "
            f"{name} {tuple(labels.shape)}"
        )
    return labels.long()


def check_weights(name: str, weights: Any, n: int | None = None, of: str = "") -> Tensor:
    """Return weights, n of them; raise an error if one is negative or not finite.

    Where values can't be looked at, a weight that is either becomes NaN, and so does the loss.
    """
    check_tensor(name, weights)
    if weights.ndim != 1 or n not in (None, weights.shape[0]):
        each = f"one weight for each of the {n} {of}" if of else "one weight for each class"
        raise ValueError(f"{name} of shape {tuple(weights.shape)}: {each} is required")
    valid = (weights >= 0) & (weights < math.inf)
    if not is_readable(valid):
        return torch.where(valid, weights, math.nan)
    if not valid.all():
        first = weights[~valid][0].item()
        raise ValueError(f"{name} holds {first!r}: weights must be finite and >= 0")
    return weights


def check_mask(mask: Any, n_anchors: int, n_columns: int) -> Tensor:
    """Return a mask of positives; raise an error if it does not say yes or no to every pair."""
    check_tensor("positive_mask", mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"positive_mask of dtype {mask.dtype}: torch.bool is required")
    if mask.shape != (n_anchors, n_columns):
        raise ValueError(
            f"positive_mask of shape {tuple(mask.shape)}: {(n_anchors, n_columns)} is required, "
            "anchors against themselves and then the references"
        )
    return mask


def check_tensor(name: str, value: Any) -> None:
    """Raise an error if a value is an array or a list."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} is a {type(value).__name__}: a torch.Tensor is required, such as "
            f"torch.as_tensor({name})"
        )
