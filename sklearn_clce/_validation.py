"""Checks of what a user hands in, with messages that name the remedy."""

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
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    assert_all_finite,
    check_consistent_length,
    column_or_1d,
)

from ._distributed import local_gpu

IMAGE_CHANNELS = (1, 3, 4)
KIND_OF_LABEL = {"b": "bool", "i": "int", "u": "int", "f": "float", "U": "str", "O": "str"}

P = ParamSpec("P")


def encode_labels(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Turn labels of any kind into class indices.

    Shapes: y (n_samples,) -> classes (n_classes,), labels (n_samples,).
    """
    y = _checked_labels(X, y)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y holds one class, {classes.tolist()[0]!r}: a classifier needs at least two"
        )
    return classes, labels.astype(np.int64)


def _checked_labels(X: Any, y: Any) -> np.ndarray:
    if y is None:
        raise ValueError("y=None: requires y to be passed, but the target y is None")
    _refuse_missing(y, "y")
    y = column_or_1d(_of_numpy_dtype(y), warn=True)
    check_consistent_length(X, y)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    return y


def _refuse_missing(y: Any, name: str) -> None:
    """Name the first missing label, before NumPy makes a string of it."""
    if hasattr(y, "iloc") and getattr(y, "ndim", 1) == 2:  # iterated, it gives names of columns
        y = y.iloc[:, 0]
    if isinstance(y, np.ndarray) and y.dtype.kind in "biuUS":
        return
    labels = [_only(label) for label in y] if hasattr(y, "__iter__") else []
    missing = [index for index, label in enumerate(labels) if _is_missing(label)]
    if missing:
        raise ValueError(
            f"{name}[{missing[0]}]={labels[missing[0]]!r}: Input {name} contains NaN or None in "
            f"place of {len(missing)} of {len(labels)} labels; leave these out"
        )


def _of_numpy_dtype(y: Any) -> Any:
    """Take labels out of tensors, and whole numbers and bools out of pandas' nullable columns."""
    y = off_torch(y)
    if getattr(y, "ndim", 1) == 2 and hasattr(y, "iloc") and y.shape[1] == 1:
        y = y.iloc[:, 0]
    dtype = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    return y.to_numpy(dtype) if dtype is not None and dtype.kind in "biu" else y


def off_torch(values: Any) -> Any:
    """Make an array of a tensor of any device and dtype, and arrays of a list of them."""
    if isinstance(values, (list, tuple)) and values and isinstance(values[0], torch.Tensor):
        return [off_torch(one) for one in values]
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _only(label: Any) -> Any:
    """Take the label out of a row of one column."""
    is_row = isinstance(label, (np.ndarray, list, tuple)) and len(label) == 1
    return label[0] if is_row else label


def _is_missing(label: Any) -> bool:
    """Tell a label that is not there: None, NaN, and pandas' NA and NaT."""
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(label, (float, np.floating)) and bool(np.isnan(label))


def refuse_swapped(X: Any, y: Any) -> None:
    """Raise a ValueError where y holds pictures or vectors, and X what could be their labels."""
    first = _first(X)
    is_label = isinstance(first, (str, Real)) and _n_axes_of_items(X) == 0
    if is_label and _n_axes_of_items(y) > 0:
        raise ValueError(
            f"X and y are swapped: y holds pictures, or vectors, and X holds {first!r}; "
            "fit(X, y) takes the pictures first"
        )


def refuse_pictures(X: Any) -> None:
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


def known_classes(classes: Any, before: np.ndarray | None) -> np.ndarray:
    """Settle the classes of a fit in parts.

    Shapes: classes (n_classes,), before (n_classes,) -> (n_classes,).
    """
    if classes is None:
        if before is None:
            raise ValueError(
                "classes=None: classes must be passed on the first call to partial_fit"
            )
        return before
    _refuse_missing(classes, "classes")
    try:
        classes = np.unique(column_or_1d(_of_numpy_dtype(classes)))
    except TypeError as error:
        raise ValueError(f"classes={classes!r}: labels of one kind are required") from error
    if before is not None and not np.array_equal(classes, before):
        raise ValueError(
            f"classes={classes.tolist()!r} is not the same as on last call to partial_fit, "
            f"was: {before.tolist()!r}"
        )
    if len(classes) < 2:
        raise ValueError(f"classes={classes.tolist()!r}: at least two classes are required")
    return classes


def encode_known_labels(
    X: Any,
    y: Any,
    classes: np.ndarray,
    remedy: str = "name all classes in the first call to partial_fit",
) -> np.ndarray:
    """Turn labels into class indices, where the classes are settled.

    Shapes: y (n_samples,), classes (n_classes,) -> (n_samples,).
    """
    y = _checked_labels(X, y)
    if isinstance(y[0], str) != isinstance(classes[0], str):  # NumPy would make text of numbers
        raise _other_kind(y, classes)
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"y holds labels that are not in classes: {unknown.tolist()[:5]!r}; {remedy}"
        )
    return np.searchsorted(classes, y).astype(np.int64)


def encode_new_labels(
    X: Any, y: Any, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add the labels of y to the classes, none of which may be among them.

    Shapes: y (n_samples,), classes (n_old,) -> classes (n_all,), sorted; labels (n_samples,),
    counted from the first new class; order (n_all,), each one's place among the old ones followed
    by the new ones.
    """
    new, labels = np.unique(_checked_labels(X, y), return_inverse=True)
    if KIND_OF_LABEL.get(new.dtype.kind) != KIND_OF_LABEL.get(classes.dtype.kind):
        raise _other_kind(new, classes)
    known = np.intersect1d(new, classes)
    if len(known):
        raise ValueError(
            f"y holds labels that are known already: {known.tolist()[:5]!r}; partial_fit trains on "
            "more pictures of those"
        )
    together = np.concatenate([classes, new])
    if KIND_OF_LABEL.get(together.dtype.kind) != KIND_OF_LABEL.get(classes.dtype.kind):
        raise ValueError(
            f"y holds labels of dtype {new.dtype}, and no dtype holds them beside classes_, of "
            f"dtype {classes.dtype}: labels of that dtype are required"
        )
    order = np.argsort(together)
    return together[order], labels.astype(np.int64), order


def _other_kind(y: np.ndarray, classes: np.ndarray) -> ValueError:
    return ValueError(
        f"y holds labels such as {y.tolist()[0]!r}, of dtype {y.dtype}, and classes_ are such as "
        f"{classes.tolist()[0]!r}, of dtype {classes.dtype}: one kind is required"
    )


def sample_weights(
    labels: np.ndarray, classes: np.ndarray, sample_weight: Any, class_weight: Any
) -> np.ndarray:
    """Multiply the weights of samples and of their classes.

    Only ratios of weights count, so the largest is 1.
    Shapes: labels (n_samples,), classes (n_classes,), sample_weight (n_samples,) -> (n_samples,).
    """
    weights = _check_sample_weight(
        off_torch(sample_weight),
        np.empty((len(labels), 1)),
        dtype=np.float64,
        ensure_non_negative=True,
    )
    if not weights.any():
        raise ValueError("sample_weight holds only zeros: at least one sample must count")
    weights = weights / weights.max()
    weights *= _class_weights(labels, classes, weights, class_weight)[labels]
    if not weights.any():
        raise ValueError(
            f"class_weight={class_weight!r}, times sample_weight, leaves no sample a weight above "
            "0: at least one must count"
        )
    return (weights / weights.max()).astype(np.float32)


def _class_weights(
    labels: np.ndarray, classes: np.ndarray, weights: np.ndarray, class_weight: Any
) -> np.ndarray:
    """Return a weight in 0..1 for each class; "balanced" is over the classes that have a sample."""
    if isinstance(class_weight, str):
        totals = np.bincount(labels, weights, minlength=len(classes))
        least = totals[totals > 0].min()
        return np.divide(least, totals, out=np.zeros(len(classes)), where=totals > 0)
    by_class = compute_class_weight(class_weight, classes=classes, y=classes)
    if not (np.isfinite(by_class).all() and (by_class >= 0).all()):
        raise ValueError(
            f"class_weight={class_weight!r}: weights must not be negative, infinite or missing"
        )
    return by_class / (by_class.max() or 1)


def check_default_dtype() -> None:
    """Refuse to build a network in anything but float32, which is what images come in."""
    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        raise ValueError(
            f"torch's default dtype is {dtype}, and networks are built in it: "
            "torch.set_default_dtype(torch.float32) is required"
        )


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn ``device`` into a torch device that is there."""
    if device == "auto":
        alone = local_gpu() is None
        if torch.cuda.is_available():
            return torch.device("cuda" if alone else f"cuda:{local_gpu()}")
        # several processes exchange what they compute, which mps has no means for
        return torch.device("mps" if alone and torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device={device!r} can't be used here; device='auto' takes what there is ({reason})"
        ) from error
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn ``precision`` into the one to compute in."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    with torch.cuda.device(device):  # of several GPUs torch looks at the current one
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float16"


def widest_float(device: torch.device) -> torch.dtype:
    """Return the float of most digits that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which a network computes in a precision."""
    low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=low or torch.bfloat16, enabled=low is not None)


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
def naming(what: str) -> Iterator[None]:
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
