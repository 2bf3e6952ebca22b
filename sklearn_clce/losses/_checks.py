"""Inputs and settings of a loss: gathered from all processes, and checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .._system import gather as all_gather
from .._system import n_processes, warn

CHOICES = {
    "positives": ("each", "mean"),
    "reduction": ("mean", "none"),
    "form": ("auto", "plain", "tiles"),
}


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


_LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (
        lambda value: 0 < value < math.inf,
        "it divides similarities, so it must be finite and > 0",
    ),
    "hardness": (lambda value: 0 <= value < math.inf, "it must be finite and >= 0; 0 turns it off"),
    "weight": (_is_share, "the share of the contrastive term must be in [0, 1]"),
    "label_smoothing": (_is_share, "a share in [0, 1] is required"),
}


def check_settings(**settings: Any) -> None:
    """Raise an error if a setting has a wrong type or is out of its range."""
    for name, value in settings.items():
        if name in _LIMITS:
            _check_number(name, value, *_LIMITS[name])
        elif value not in CHOICES[name]:
            known = ", ".join(map(repr, CHOICES[name]))
            raise ValueError(f"{name}={value!r}: one of {known} is required")


def _check_number(name: str, value: Any, holds: Callable[[float], bool], requirement: str) -> None:
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
    """Return whether reading values neither waits for a GPU nor breaks a graph."""
    return (
        tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def gathered(gather: bool | None, **samples: Any) -> list[Any]:
    """Return tensors, (n of all processes, ...) if ``gather``, and None for None."""
    if not gather:
        return list(samples.values())
    for name, value in samples.items():
        if value is not None:
            check_tensor(name, value)
    return [value if value is None else all_gather(value) for value in samples.values()]


def warn_if_apart(gather: bool | None) -> None:
    """Warn if there are several processes and ``gather`` has not been decided."""
    if gather is None and not torch.compiler.is_compiling() and n_processes() > 1:
        warn(
            "gather=None: the loss sees only the samples of its own process. gather=True makes "
            "one batch of those of all, gather=False keeps them apart without this warning"
        )


def check_samples(name: str, samples: Any, may_be_empty: bool = False) -> None:
    """Raise an error unless samples are a tensor of shape (n, n_something)."""
    check_tensor(name, samples)
    if samples.ndim != 2:
        raise ValueError(f"{name} of shape {tuple(samples.shape)}: one vector a sample is required")
    if samples.shape[0] == 0 and not may_be_empty:
        raise ValueError(f"{name} of shape {tuple(samples.shape)}: at least one sample is required")


def check_labels(name: str, labels: Any, of: str, samples: Tensor) -> Tensor:
    """Return labels as int64; raise an error unless they are one integer for each sample."""
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

    If values can't be read, such a weight becomes NaN, and so does the loss.
    """
    check_tensor(name, weights)
    if weights.ndim != 1 or n not in (None, weights.shape[0]):
        each = f"one weight for each of the {n} {of}" if of else "one weight for each class"
        raise ValueError(f"{name} of shape {tuple(weights.shape)}: {each} is required")
    return finite_weights(name, weights)


def finite_weights(name: str, weights: Tensor) -> Tensor:
    """Return weights of any shape; see :func:`check_weights`."""
    valid = (weights >= 0) & (weights < math.inf)
    if not is_readable(valid):
        return torch.where(valid, weights, math.nan)
    if not valid.all():
        first = weights[~valid][0].item()
        raise ValueError(f"{name} holds {first!r}: weights must be finite and >= 0")
    return weights


def check_tensor(name: str, value: Any) -> None:
    """Raise an error if a value is an array or a list."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} is a {type(value).__name__}: a torch.Tensor is required, such as "
            f"torch.as_tensor({name})"
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in its own dtype or in float32, whichever is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
