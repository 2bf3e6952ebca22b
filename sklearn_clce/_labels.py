"""Labels: what a class may be called, and the indices of classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from ._checks import to_numpy

KIND_OF_DTYPE = {
    "b": "bool",
    "i": "int",
    "u": "int",
    "f": "float",
    "U": "str",
    "O": "str",
    "M": "date",
    "m": "duration",
}
NUMBERS = ("bool", "int", "float")
TYPES_OF_KIND: dict[str, Any] = {
    "str": str,
    "bool": (bool, np.bool_),
    "date": np.datetime64,
    "duration": np.timedelta64,
    "number": (int, float, np.integer, np.floating),  # the last: bools and durations are integers
}
CONTAINERS = (list, tuple, set, frozenset, np.ndarray)
N_SHOWN = 5


def as_labels(given: Any, name: str = "y", *, in_order: bool = True) -> np.ndarray:
    """Return labels of any container and dtype as bools, numbers, strings or dates: (n_labels,).

    Python objects get the dtype that NumPy gives a list of them, but an object array of strings
    stays one, as pandas' columns are. ``in_order``: they belong to samples, so a set is an error.
    """
    given = to_numpy(given)
    if getattr(getattr(given, "dtype", None), "kind", None) == "T":
        given = given.tolist()
    if hasattr(given, "iloc") and given.shape[1:] == (1,):  # a frame of one column
        given = given.iloc[:, 0]
    if in_order and isinstance(given, (set, frozenset)):
        raise TypeError(f"{name} is {type(given).__name__}, which has no order: pass a list")
    array = _as_array(given, name)
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise _not_one_column(given, array, name)
    if array.dtype.kind not in KIND_OF_DTYPE:
        raise _unsupported(array.tolist()[0], name)
    is_of_pandas = hasattr(given, "isna")  # whose NA NumPy may turn into NaN
    _check_not_missing(np.array(list(given), dtype=object) if is_of_pandas else array.ravel(), name)
    column = column_or_1d(array, warn=True)
    if column.dtype.kind != "O" or len(column) == 0:
        return column
    is_text = _kind_of_all(column, name) == "str"
    return column if is_text and hasattr(given, "__array__") else _unboxed(column, name)


def _as_array(given: Any, name: str) -> np.ndarray:
    """Return an array, of objects if the labels are in a Python container."""
    if isinstance(given, np.ma.MaskedArray):
        array = np.array(given.data, dtype=object)
        array[np.ma.getmaskarray(given)] = None
        return array
    if hasattr(given, "dtype") or hasattr(given, "__array__"):
        return np.asarray(given)
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is {type(given).__name__}: a list or array of labels is required")
    return np.array([_without_axes(label) for label in given], dtype=object)


def _without_axes(label: Any) -> Any:
    """Return the scalar of a tensor or an array without axes."""
    label = to_numpy(label)
    return label[()] if isinstance(label, np.ndarray) and label.ndim == 0 else label


def _not_one_column(given: Any, array: np.ndarray, name: str) -> ValueError:
    """Return the error for labels in several columns, which may be an indicator of classes."""
    problem = f"{name} should be a 1d array, got an array of shape {array.shape} instead"
    is_one_hot = array.ndim == 2 and array.dtype.kind in "biufO" and _has_one_label(array)
    if not is_one_hot and isinstance(given, (list, tuple)):
        return _several_labels(given[0], name)
    if not is_one_hot:
        return ValueError(f"{problem}: one label for each sample is required")
    of_list = f"np.argmax({name}, axis=1)"
    methods = (f"{name}.{way}(axis=1)" for way in ("idxmax", "argmax") if hasattr(given, way))
    return ValueError(
        f"{problem}: one label for each sample is required; for one-hot labels: "
        f"{next(methods, of_list)}"
    )


def _several_labels(label: Any, name: str) -> ValueError:
    return ValueError(
        f"{name} holds labels such as {label!r}: several labels for one sample are given as an "
        "indicator, a column of 0 and 1 for each label, which scikit-learn's "
        f"MultiLabelBinarizer().fit_transform({name}) makes of them"
    )


def _has_one_label(array: np.ndarray) -> bool:
    return bool(np.isin(array, (0, 1)).all() and ((array == 1).sum(axis=1) == 1).all())


def _check_not_missing(labels: np.ndarray, name: str) -> None:
    """Name the first missing label, before NumPy makes a string of it."""
    if labels.dtype.kind in "mM":
        missing = np.flatnonzero(np.isnat(labels))
    elif labels.dtype.kind in ("f", "O"):
        missing = np.flatnonzero([_is_missing(label) for label in labels])
    else:
        return
    if len(missing):
        raise ValueError(
            f"{name}[{missing[0]}]={labels[missing[0]]!r}: Input {name} contains NaN or None in "
            f"place of {len(missing)} of {len(labels)} labels; leave these out"
        )


def _is_missing(label: Any) -> bool:
    """Return whether a label is missing: None, NaN, and pandas' NA and NaT."""
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(label, (float, np.floating)) and bool(np.isnan(label))


def _kind_of_all(labels: np.ndarray, name: str) -> str | type:
    """Return the kind of labels in an object array, which must be one."""
    first_of_kind: dict[str | type, Any] = {}
    for label in labels:
        first_of_kind.setdefault(_kind_of(label), label)
    for kind, label in first_of_kind.items():
        if isinstance(kind, type):
            raise _unsupported(label, name)
    if len(first_of_kind) > 1:
        examples = " and ".join(f"{x!r} ({type(x).__name__})" for x in first_of_kind.values())
        raise ValueError(
            f"{name} holds labels of several kinds, such as {examples}: one kind is required; "
            f"[str(label) for label in {name}] makes strings of them"
        )
    return next(iter(first_of_kind))


def _kind_of(label: Any) -> str | type:
    """Return the kind of a label, or its type if it is not supported."""
    kinds = (kind for kind, types in TYPES_OF_KIND.items() if isinstance(label, types))
    return next(kinds, type(label))


def _unsupported(label: Any, name: str) -> Exception:
    if isinstance(label, CONTAINERS):
        return _several_labels(label, name)
    decoded = "label.decode()" if isinstance(label, bytes) else "str(label)"
    return TypeError(
        f"{name} holds labels such as {label!r}, of type {type(label).__name__}: strings, "
        f"integers, bools or NumPy's dates are required; [{decoded} for label in {name}] makes "
        "strings of them"
    )


def _unboxed(column: np.ndarray, name: str) -> np.ndarray:
    """Return labels of one kind in the dtype of a list of them, unless that would change some."""
    labels = column.tolist()
    array = np.array(labels)
    if array.dtype.kind in "mM" or (array.dtype.kind != "O" and array.tolist() == labels):
        return array
    if isinstance(labels[0], str):  # which may end in a null character, or be members of an Enum
        return column
    raise ValueError(f"{name} holds numbers that no dtype of NumPy holds together: use strings")


def encode_labels(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Turn labels of any kind into class indices.

    Shapes: y (n_samples,) -> classes (n_classes,), labels (n_samples,).
    """
    y = _labels_of(X, y)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y holds one class, {classes.tolist()[0]!r}: a classifier needs at least two"
        )
    return classes, labels.astype(np.int64)


def _labels_of(X: Any, y: Any) -> np.ndarray:
    """Return the labels of samples."""
    if y is None:
        raise ValueError(
            "y=None: requires y to be passed, but the target y is None; labels come apart from the "
            "images, those of a Dataset too: fit(dataset, [label for _, label in dataset])"
        )
    y = as_labels(y)
    check_consistent_length(X, y)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    return y


def known_classes(classes: Any, before: np.ndarray | None) -> np.ndarray:
    """Check the classes of a fit in parts.

    Shapes: classes (n_classes,), before (n_classes,) -> (n_classes,).
    """
    if classes is None:
        if before is None:
            raise ValueError(
                "classes=None: classes must be passed on the first call to partial_fit"
            )
        return before
    classes = np.unique(as_labels(classes, "classes", in_order=False))
    if before is not None and not np.array_equal(classes, before):
        raise ValueError(
            f"classes={classes.tolist()!r} is not the same as on last call to partial_fit, "
            f"was: {before.tolist()!r}"
        )
    if len(classes) < 2:
        raise ValueError(f"classes={classes.tolist()!r}: at least two classes are required")
    return classes


def find_labels(
    labels: np.ndarray, classes: np.ndarray, name: str = "y"
) -> tuple[np.ndarray, np.ndarray]:
    """Find labels among classes, of a kind that can be compared.

    Shapes: labels (n,), classes (n_classes,) -> indices (n,), int64; whether it is there (n,).
    """
    kinds = {KIND_OF_DTYPE.get(array.dtype.kind) for array in (labels, classes)}
    if len(kinds) > 1 and not kinds.issubset(NUMBERS):  # NumPy would make text of numbers
        raise _other_kind(labels, classes, name)
    order = np.argsort(classes, kind="stable")
    places = np.searchsorted(classes, labels, sorter=order).clip(max=len(classes) - 1)
    indices = order[places]
    return indices.astype(np.int64), classes[indices] == labels


def encode_known_labels(
    X: Any,
    y: Any,
    classes: np.ndarray,
    remedy: str = "name all classes in the first call to partial_fit",
) -> np.ndarray:
    """Turn labels into indices of known classes.

    Shapes: y (n_samples,), classes (n_classes,) -> (n_samples,).
    """
    y = _labels_of(X, y)
    indices, is_known = find_labels(y, classes)
    if not is_known.all():
        unknown = np.unique(y[~is_known]).tolist()
        raise ValueError(f"y holds labels that are not in classes: {unknown[:N_SHOWN]!r}; {remedy}")
    return indices


def encode_new_labels(
    X: Any, y: Any, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add the labels of y to the classes, none of which may be among them.

    Shapes: y (n_samples,), classes (n_old,) -> classes (n_all,), sorted; labels (n_samples,),
    counted from the first new class; order (n_all,), each one's place among the old ones followed
    by the new ones.
    """
    new, labels = np.unique(_labels_of(X, y), return_inverse=True)
    kind = KIND_OF_DTYPE.get(classes.dtype.kind)
    if KIND_OF_DTYPE.get(new.dtype.kind) != kind:
        raise _other_kind(new, classes)
    known = np.intersect1d(new, classes)
    if len(known):
        raise ValueError(
            f"y holds labels that are known already: {known.tolist()[:N_SHOWN]!r}; partial_fit "
            "trains on more images of those"
        )
    together = np.concatenate([classes, new])
    if KIND_OF_DTYPE.get(together.dtype.kind) != kind:
        raise ValueError(
            f"y holds labels of dtype {new.dtype}, and no dtype holds them and classes_, of "
            f"dtype {classes.dtype}: labels of that dtype are required"
        )
    order = np.argsort(together)
    return together[order], labels.astype(np.int64), order


def _other_kind(labels: np.ndarray, classes: np.ndarray, name: str = "y") -> ValueError:
    return ValueError(
        f"{name} holds labels such as {labels.tolist()[0]!r}, of dtype {labels.dtype}, and classes "
        f"are such as {classes.tolist()[0]!r}, of dtype {classes.dtype}: one kind is required"
    )
