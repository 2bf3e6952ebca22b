"""Checks of arguments, with messages that name the remedy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from numbers import Real
from typing import Any, Concatenate, ParamSpec

import numpy as np
import torch

P = ParamSpec("P")


def to_numpy(values: Any) -> Any:
    """Make an array of a tensor of any device and dtype, and arrays of a list of them."""
    if isinstance(values, (list, tuple)) and values and isinstance(values[0], torch.Tensor):
        return [to_numpy(one) for one in values]
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def check_not_swapped(X: Any, y: Any) -> None:
    """Raise a ValueError where y holds pictures or vectors, and X what could be their labels."""
    first = _first(X)
    is_label = isinstance(first, (str, Real)) and _n_axes_of_items(X) == 0
    if is_label and _n_axes_of_items(y) > 0:
        raise ValueError(
            f"X and y are swapped: y holds pictures, or vectors, and X holds {first!r}; "
            "fit(X, y) takes the pictures first"
        )


def check_not_images(X: Any) -> None:
    """Raise a ValueError where pictures are handed in as features."""
    first = X if isinstance(X, (str, os.PathLike)) else _first(X)
    is_path = isinstance(first, (str, os.PathLike))
    if is_path or _n_axes_of_items(X) > 1:
        pictures = f"paths, such as {first!r}," if is_path else "images"
        raise ValueError(
            f"backbone='precomputed': X holds {pictures} and a feature vector for each sample is "
            "required; BackboneFeatures() makes them, or name a backbone"
        )


def _first(items: Any) -> Any:
    """Return the first of some items, or None where there is none to be had."""
    if hasattr(items, "iloc"):
        items = items.iloc[:1].to_numpy()  # of a data frame iteration gives the names of columns
    # a data set of the user's is not read here, a generator not used up
    if not isinstance(items, (list, tuple, np.ndarray, torch.Tensor)) or len(items) == 0:
        return None
    first = items[0]
    if isinstance(first, np.ndarray) and first.dtype.kind == "O" and len(first) == 1:  # one column
        first = first[0]
    is_scalar = isinstance(first, (np.generic, torch.Tensor)) and first.ndim == 0
    return first.item() if is_scalar else first


def _n_axes_of_items(items: Any) -> int:
    """Count the axes of an item: 0 for a label, 1 for a vector, 2 or more for a picture."""
    item = _first(items)
    if isinstance(item, (str, os.PathLike)):
        is_file = os.path.splitext(item)[1] and os.path.isfile(item)  # a label may have its name
        return 3 if is_file else 0
    if getattr(item, "size", None) == 1:  # of a column of labels
        return 0
    return getattr(item, "ndim", 0) or 2 * hasattr(item, "getbands")  # of PIL


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" for names near a known one, else an empty string.

    The nearest comes first; of names that are equally near, the one known first. Where none is
    near, it may stand for the first letters of one, as lr for learning_rate.
    """
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, known, n=len(known), cutoff=0.7)
    # in the order of the arguments: get_close_matches compares so, and the ratio is not symmetric
    distance = {other: -difflib.SequenceMatcher(None, other, name).ratio() for other in near}
    near = sorted(near, key=lambda other: (distance[other], known.index(other)))[:3]
    near = near or [other for other in known if len(name) > 1 and _initials(other) == name][:3]
    return f" Did you mean {', '.join(map(repr, near))}?" if near else ""


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def suggests_parameters(
    init: Callable[Concatenate[Any, P], None],
) -> Callable[Concatenate[Any, P], None]:
    """Make an ``__init__`` answer a keyword that is not a parameter with the nearest one."""
    known = [name for name in signature(init).parameters if name != "self"]

    @wraps(init)
    def checked(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
        for name in kwargs:
            if name not in known:
                raise TypeError(
                    f"{type(self).__name__}({name}=...): there is no such parameter."
                    f"{suggestion(name, known)}"
                )
        init(self, *args, **kwargs)

    return checked


@contextmanager
def prefix_errors(what: str) -> Iterator[None]:
    """Say in errors of the block which arguments they are about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        error.args = (f"{what}: {error}",)
        raise


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Give an estimator its attributes back when the block raises."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
