"""Checks of arguments, with messages that name the remedy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from numbers import Real
from typing import Any, Concatenate, ParamSpec, Self

import numpy as np
import torch
from sklearn.utils._param_validation import InvalidParameterError
from torch.utils.data import DataLoader

from ._system import TableMixin

P = ParamSpec("P")


def to_numpy(values: Any) -> Any:
    """Convert a tensor of any device and dtype, or a list of them, to arrays."""
    if isinstance(values, (list, tuple)) and values and isinstance(values[0], torch.Tensor):
        return [to_numpy(one) for one in values]
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def check_not_swapped(X: Any, y: Any) -> None:
    """Raise an error if y holds images or vectors and X labels, or X a DataLoader with both."""
    if isinstance(X, DataLoader):
        raise TypeError(
            "X is a DataLoader: pass its Dataset as X and the labels as y, fit(loader.dataset, y); "
            "batch_size and num_workers are parameters here"
        )
    first = _first(X)
    is_label = isinstance(first, (str, Real)) and _n_axes_of_items(X) == 0
    if is_label and _n_axes_of_items(y) > 0 and not _is_of_zeros_and_ones(_first(y)):
        raise ValueError(
            f"X and y are swapped: y holds images, or vectors, and X holds {first!r}; "
            "fit(X, y) takes the images first"
        )


def check_not_images(X: Any) -> None:
    """Raise a ValueError if images are passed as features."""
    first = X if isinstance(X, (str, os.PathLike)) else _first(X)
    is_path = isinstance(first, (str, os.PathLike))
    if is_path or _n_axes_of_items(X) > 1:
        images = f"paths, such as {first!r}," if is_path else "images"
        raise ValueError(
            f"backbone='precomputed': X holds {images} and a feature vector for each sample is "
            "required; BackboneFeatures() makes them, or name a backbone"
        )


def check_not_masked(X: Any) -> None:
    """Raise a TypeError if values of X are masked, or may be."""
    of = X if isinstance(X, (list, tuple)) else [X]
    if any(isinstance(values, np.ma.MaskedArray) for values in of):
        raise TypeError(
            "X is a masked array: its values must all be there; fill them, as X.filled(0), or "
            "leave such samples out"
        )


def _first(items: Any) -> Any:
    """Return the first of some items, or None if it can't be read."""
    if hasattr(items, "iloc"):
        items = items.iloc[:1].to_numpy()  # iterating a data frame gives the names of columns
    # a Dataset is not read here, and a generator not consumed
    if not isinstance(items, (list, tuple, np.ndarray, torch.Tensor)) or len(items) == 0:
        return None
    first = items[0]
    if isinstance(first, np.ndarray) and first.dtype.kind == "O" and len(first) == 1:  # one column
        first = first[0]
    is_scalar = isinstance(first, (np.generic, torch.Tensor)) and first.ndim == 0
    return first.item() if is_scalar else first


def _n_axes_of_items(items: Any) -> int:
    """Count the axes of an item: 0 for a label, 1 for a vector, 2 or more for an image."""
    item = _first(items)
    if isinstance(item, (str, os.PathLike)):
        is_file = os.path.splitext(item)[1] and os.path.isfile(item)  # a label may equal it
        return 3 if is_file else 0
    if getattr(item, "size", None) == 1:  # of a column of labels
        return 0
    return getattr(item, "ndim", 0) or 2 * hasattr(item, "getbands")  # of PIL


def _is_of_zeros_and_ones(row: Any) -> bool:
    """Return whether a row may be one of an indicator of labels: 0, 1 and NaN."""
    row = np.asarray(row)
    return (
        row.ndim == 1
        and row.dtype.kind in "biuf"
        and bool((np.isin(row, (0, 1)) | (row != row)).all())
    )


# What people type for a parameter, and what it is called here.
ALIASES = {
    "alpha": "weight",
    "bs": "batch_size",
    "epochs": "max_epochs",
    "img_size": "image_size",
    "input_size": "image_size",
    "lam": "weight",
    "lr": "learning_rate",
    "model": "backbone",
    "model_name": "backbone",
    "n_epochs": "max_epochs",
    "n_jobs": "num_workers",
    "optimizer": 'skorch_params={"optimizer": ...}',
    "patience": "n_iter_no_change",
    "seed": "random_state",
    "size": "image_size",
    "tau": "temperature",
    "transform": "augment",
    "transforms": "augment",
    "wd": "weight_decay",
}


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" for names near a known one, else an empty string.

    The nearest comes first; of names that are equally near, the one known first.
    """
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, known, n=len(known), cutoff=0.7)
    # in the order of the arguments: get_close_matches compares so, and the ratio is not symmetric
    distance = {other: -difflib.SequenceMatcher(None, other, name).ratio() for other in near}
    near = sorted(near, key=lambda other: (distance[other], known.index(other)))[:3]
    return f" Did you mean {', '.join(map(repr, near))}?" if near else ""


def _suggest_parameter(name: str, known: list[str]) -> str:
    """Suggest the parameter that an alias stands for, else the nearest ones."""
    meant = ALIASES.get(name, "")
    return f" Did you mean {meant!r}?" if meant.split("=")[0] in known else suggestion(name, known)


def suggests_parameters(
    init: Callable[Concatenate[Any, P], None],
) -> Callable[Concatenate[Any, P], None]:
    """Make an ``__init__`` answer an unknown keyword with the parameter that was meant."""
    parameters = list(signature(init).parameters.values())[1:]
    known = [parameter.name for parameter in parameters]
    by_name = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    by_position = known[: len(known) - len(by_name)]

    @wraps(init)
    def checked(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
        for name in kwargs:
            if name not in known:
                raise TypeError(
                    f"{type(self).__name__} has no parameter {name!r}."
                    f"{_suggest_parameter(name, known)}"
                )
        if len(args) > len(by_position):
            taken = " and ".join(by_position)
            raise TypeError(
                f"{type(self).__name__} takes only {taken} by position: pass the others by name, "
                f"such as {by_name[0]}={args[len(by_position)]!r}"
            )
        init(self, *args, **kwargs)

    return checked


# What people set a parameter to, of which types, and what is required instead.
USUAL_VALUES: dict[str, tuple[tuple[type, ...], str]] = {
    "image_size": ((tuple, list), "one number is required, the side of a square in pixels"),
    "augment": ((bool,), "'auto', None or a callable is required, and 'auto' is the default"),
    "memory": ((bool,), "the path of a folder is required, such as memory='features', or None"),
}


class SuggestingEstimator(TableMixin):
    """An estimator that suggests what was meant by unknown parameters and usual wrong values."""

    def _validate_params(self) -> None:
        """Check all values, the usual mistakes first."""
        for name, (wrong, required) in USUAL_VALUES.items():
            value = getattr(self, name, None)
            if isinstance(value, wrong):
                raise InvalidParameterError(f"{name}={value!r}: {required}")
        super()._validate_params()

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator.

        Parameters
        ----------
        **params : dict
            New values by name.

        Returns
        -------
        object
            The estimator itself.

        Raises
        ------
        ValueError
            If a name is not that of a parameter; then none is set.
        """
        known = self._get_param_names()
        for name in params:
            if name.split("__")[0] not in known:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}."
                    f"{_suggest_parameter(name, known)} Valid parameters are: {known}."
                )
        return super().set_params(**params)


@contextmanager
def prefix_errors(what: str) -> Iterator[None]:
    """Prefix errors of the block with the arguments that they are about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        error.args = (f"{what}: {error}",)
        raise


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Restore the attributes of an estimator if the block raises."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
