"""A fitted estimator in one file that runs nothing, and out of it again."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any, Self

import numpy as np
import torch
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from .._distributed import is_main
from .._training import CLCEModule, CLCENet, Course, Split, restored_net
from ._file import read_model_file, write_model_file
from ._module import (
    check_backbone,
    check_restorable,
    describe_module,
    restore_module,
    weights_of,
)
from ._plain import (
    SCALARS,
    NotPlainError,
    from_json,
    labels_from_json,
    labels_to_json,
    take,
    to_json,
)

LIBRARIES = ("sklearn-clce", "scikit-learn", "skorch", "timm", "torch", "torchvision", "pillow")

OF_THE_MACHINE = ("device", "memory", "checkpoint")  # a file must not choose where files go
SKORCH_PREFIXES = ("optimizer__", "callbacks__")
MAX_WORKERS = 128
OTHER_SUFFIXES = (".pkl", ".pickle", ".joblib", ".pt", ".pth")  # of files that run code when loaded


class ModelFileMixin:
    """What an estimator saves and loads."""

    def save(self: Any, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file.

        The file holds weights, parameters, labels, preprocessing and the figures of the
        epochs, and nothing that could run. It is a safetensors file, written in one step: a
        crash leaves the old file or the new one. Of several processes that train together
        the first one writes.

        Parameters
        ----------
        path : path
            The file, such as ``"model.safetensors"``.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        FileNotFoundError
            If the folder of the file is not there.
        ValueError
            If labels or the backbone are of a kind that has no place in a file.

        Warns
        -----
        UserWarning
            If parameters are set that are not stored: callables and other objects, ``callbacks``,
            folders (``memory``, ``checkpoint``). They are at their defaults after :meth:`load`.
            If the name of the file is that of a pickle.

        See Also
        --------
        load : Read the file.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_clce import CLCEClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = CLCEClassifier("precomputed", max_epochs=5, random_state=0).fit(X, y)
        >>> path = Path(tempfile.mkdtemp()) / "iris.safetensors"
        >>> clf.save(path)
        >>> loaded = CLCEClassifier.load(path)
        >>> bool((loaded.predict(X) == clf.predict(X)).all())
        True
        """
        check_is_fitted(self)
        if Path(path).suffix.lower() in OTHER_SUFFIXES:
            warnings.warn(
                f"path={os.fspath(path)!r}: what is written is a safetensors file, which "
                "CLCEClassifier.load reads and joblib.load does not; a name that ends in "
                ".safetensors says so",
                UserWarning,
                stacklevel=2,
            )
        module = self.module_.merged()
        model, left_out = describe(self, module)
        tensors = weights_of(module)
        check_restorable(model["module"], len(self.classes_), tensors)
        if is_main():
            write_model_file(path, model, tensors)
        if left_out:
            warnings.warn(
                f"{', '.join(left_out)} can't be stored in a model file: after load they are at "
                "their defaults, and set_params sets them again",
                UserWarning,
                stacklevel=2,
            )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "auto",
        backbone: nn.Module | None = None,
    ) -> Self:
        """Read an estimator that :meth:`save` wrote.

        Nothing is downloaded, nothing in the file is run, and no other file is opened.

        Parameters
        ----------
        path : path
            The file.
        device : str or torch.device, default="auto"
            Parameter ``device`` of the estimator; where it was fitted does not matter.
        backbone : nn.Module, default=None
            A module of the same architecture, required where the estimator was fitted
            with a module as backbone. It is copied, and the copy gets the saved weights.

        Returns
        -------
        CLCEClassifier
            Fitted; it predicts as the saved one, and ``partial_fit`` goes on from there.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a file of :meth:`save`, is damaged, was written by a newer version, or
            needs a ``backbone``.

        Warns
        -----
        InconsistentVersionWarning
            If it was saved with other versions of the libraries that predictions depend on.

        See Also
        --------
        save : Write the file.
        """
        model, tensors = read_model_file(path)
        try:
            clf = restore(cls, model, tensors, device=device, backbone=backbone)
            saved_with = take(model, "libraries", dict)
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(f"path={os.fspath(path)!r} can't be loaded: {error}") from error
        warn_of_versions(saved_with)
        return clf


class SavedWithOtherVersions(InconsistentVersionWarning):
    """A model file was saved with other versions of its libraries.

    Parameters
    ----------
    differences : list of str
        Library, its version then and its version now.
    **versions
        As :class:`sklearn.exceptions.InconsistentVersionWarning` takes them.
    """

    def __init__(self, differences: list[str], **versions: str) -> None:
        super().__init__(**versions)
        self.differences = differences

    def __str__(self) -> str:
        return (
            f"the {self.estimator_name} was saved with other versions: "
            f"{'; '.join(self.differences)}. Its predictions may differ; compare them, or "
            "install the versions that it was saved with"
        )


def describe(clf: Any, module: CLCEModule) -> tuple[dict[str, Any], list[str]]:
    """Describe a fitted estimator without its tensors."""
    parameters, left_out = stored_parameters(clf)
    epochs = []
    for row in clf.history_:
        plain = {name: value for name, value in row.items() if _is_scalar(value)}
        epochs.append(to_json(plain))
        unknown = sorted(row.keys() - plain.keys() - {"batches"})
        left_out += [f"history_[:, {name!r}]" for name in unknown]
    columns = getattr(clf, "feature_names_in_", None)
    model = {
        "libraries": {name: _version(name) for name in LIBRARIES},
        "parameters": parameters,
        "classes": labels_to_json(clf.classes_),
        "module": describe_module(module),
        "history": epochs,
        "validation_scores": clf.validation_scores_,
        "course": _describe_course(clf.net_.course),
        "n_features_in": getattr(clf, "n_features_in_", None),
        "saw_colour": getattr(clf, "_saw_colour", None),
        "offset": getattr(clf, "offset_", None),
        "feature_names_in": None if columns is None else columns.tolist(),
    }
    return model, list(dict.fromkeys(left_out))


def _describe_course(course: Course) -> dict[str, Any]:
    split = None if course.split is None else asdict(course.split)
    return {"seed": course.seed, "split": split, "began": course.began}


def _is_scalar(value: Any) -> bool:
    return isinstance(value, np.generic) or type(value) in SCALARS


def stored_parameters(clf: Any) -> tuple[dict[str, Any], list[str]]:
    """Separate parameters into those that a file can hold and others."""
    defaults = type(clf)().get_params(deep=False)
    parameters: dict[str, Any] = {}
    left_out = []
    for name, value in clf.get_params(deep=False).items():
        if name == "backbone" and isinstance(value, nn.Module):
            parameters[name] = None
            continue
        try:
            saved = to_json(value)
            check_storable(name, from_json(saved))
            parameters[name] = saved
        except (NotPlainError, ValueError):
            if name != "device" and value is not defaults[name]:
                left_out.append(f"{name}={_short(value)}")
    return parameters, left_out


def _short(value: Any) -> str:
    return getattr(value, "__qualname__", None) or f"{type(value).__qualname__}"


def check_storable(name: str, value: Any) -> None:
    """Refuse what a file must not set."""
    if name in OF_THE_MACHINE or name == "callbacks":
        raise ValueError(f"{name} is not a parameter of a model file")
    if name == "skorch_params" and value is not None:
        foreign = [key for key in value if not str(key).startswith(SKORCH_PREFIXES)]
        if foreign:
            raise ValueError(f"skorch_params sets {str(foreign[0])[:80]!r}, which is not stored")
    if name == "num_workers" and value != "auto" and value > MAX_WORKERS:
        raise ValueError(f"num_workers above {MAX_WORKERS} is not stored")


def restore(
    cls: type, model: dict[str, Any], tensors: dict[str, Tensor], *, device: Any, backbone: Any
) -> Any:
    """Make a fitted estimator from what a file held."""
    description = take(model, "module", dict)
    check_backbone(description, backbone)
    clf = _unfitted(cls, take(model, "parameters", dict), device, backbone)
    classes = labels_from_json(take(model, "classes", dict))
    if len(classes) < 2 or not np.array_equal(np.unique(classes), classes):
        raise ValueError("its classes are not two or more labels in order")
    module = restore_module(description, len(classes), tensors, backbone)
    history = [_epoch(row) for row in take(model, "history", list)]
    scores = take(model, "validation_scores", list, NoneType)
    if not all(type(score) is float for score in scores or []):
        raise ValueError("its validation_scores are not numbers")
    _take_columns(clf, model)
    clf.classes_ = classes
    clf.net_ = _net(clf, module, history, _course(model))
    clf.n_iter_ = len(history)
    clf.validation_scores_ = scores
    clf.best_validation_score_ = None if scores is None else max(scores, default=None)
    return clf


def _unfitted(cls: Any, saved: dict[str, Any], device: Any, backbone: Any) -> Any:
    """Make the estimator from its parameters, which must be such as it takes."""
    unknown = sorted(saved.keys() - set(cls._get_param_names()))
    if unknown:
        raise ValueError(f"it has parameters that this version does not know: {unknown[:3]}")
    parameters = {name: from_json(value) for name, value in saved.items()}
    if backbone is not None:
        parameters["backbone"] = backbone
    clf = cls(**parameters | {"device": device})
    clf._validate_params()
    for name, value in parameters.items():
        check_storable(name, value)
    return clf


def _epoch(row: Any) -> dict[str, Any]:
    """Read the figures of an epoch; those of its batches are not kept."""
    figures = from_json(row)
    if type(figures) is not dict or not all(_is_scalar(value) for value in figures.values()):
        raise ValueError("its history holds what is not a figure of an epoch")
    return {"batches": [], **figures}


def _take_columns(clf: Any, model: dict[str, Any]) -> None:
    n_features = take(model, "n_features_in", int, NoneType)
    names = take(model, "feature_names_in", list, NoneType)
    if n_features is not None:
        clf.n_features_in_ = n_features
    if "saw_colour" in model and model["saw_colour"] is not None:  # not in files of before
        clf._saw_colour = take(model, "saw_colour", bool)
    if "offset" in model and model["offset"] is not None:  # not in files of before
        clf.offset_ = _offset(take(model, "offset", float))
    if names is not None:
        if not all(type(name) is str for name in names):
            raise ValueError("its feature_names_in are not names")
        clf.feature_names_in_ = np.array(names, dtype=object)


def _offset(offset: float) -> float:
    if not math.isfinite(offset):
        raise ValueError("its offset is not a number")
    return offset


def _course(model: dict[str, Any]) -> Course | None:
    """Read where training stands; files of older versions do not say."""
    if "course" not in model:
        return None
    saved = take(model, "course", dict)
    split = take(saved, "split", dict, NoneType)
    if split is not None:
        split = Split(
            seed=_seed(split),
            validation_fraction=take(split, "validation_fraction", float),
            samples=take(split, "samples", str),
        )
    return Course(_seed(saved), split=split, began=take(saved, "began", bool))


def _seed(saved: dict[str, Any]) -> int:
    seed = take(saved, "seed", int)
    if not 0 <= seed < 2**31:
        raise ValueError("its seed is not one")
    return seed


def _net(
    clf: Any, module: CLCEModule, history: list[dict[str, Any]], course: Course | None
) -> CLCENet:
    try:
        return restored_net(clf, module, history, course)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"its net can't be made: {error}") from error


def warn_of_versions(saved_with: dict[str, Any]) -> None:
    """Warn where a model was saved with other versions of its libraries."""
    saved = {name: str(saved_with.get(name))[:40] for name in LIBRARIES}
    now = {name: _version(name) for name in LIBRARIES}
    differences = [
        f"{name} {saved[name]}, here {now[name]}" for name in LIBRARIES if saved[name] != now[name]
    ]
    if differences:
        warnings.warn(
            SavedWithOtherVersions(
                differences,
                estimator_name="CLCEClassifier",
                current_sklearn_version=now["scikit-learn"],
                original_sklearn_version=saved["scikit-learn"],
            ),
            stacklevel=3,
        )


def _version(package: str) -> str:
    """Return the release of a package, whatever it was built for (torch 2.6.0+cu124 is 2.6.0)."""
    return version(package).split("+")[0]
