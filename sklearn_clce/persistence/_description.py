"""A fitted estimator as plain values, and made again from them."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from types import NoneType
from typing import Any

import numpy as np
from torch import Tensor, nn

from .._network import Network
from .._training import CLCENet, ResumeState, Split, plan_without_fit, remembered, restore_net
from ._module import check_backbone, describe_module, restore_module
from ._plain import (
    SCALARS,
    NotPlainError,
    from_json,
    labels_from_json,
    labels_to_json,
    take,
    to_json,
)

OF_THE_MACHINE = ("device", "memory", "checkpoint")  # a file must not choose where files go
SKORCH_PREFIXES = ("optimizer__", "callbacks__")
MAX_WORKERS = 128


def describe(clf: Any, module: Network) -> tuple[dict[str, Any], list[str]]:
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
        "parameters": parameters,
        "classes": labels_to_json(clf.classes_),
        "module": describe_module(module),
        "history": epochs,
        "validation_scores": clf.validation_scores_,
        "course": _describe_course(clf, clf.net_.resume),
        "n_features_in": getattr(clf, "n_features_in_", None),
        "saw_colour": getattr(clf, "_saw_colour", None),
        "offset": getattr(clf, "offset_", None),
        "feature_names_in": None if columns is None else columns.tolist(),
    }
    return model, list(dict.fromkeys(left_out))


def _describe_course(clf: Any, course: ResumeState) -> dict[str, Any]:
    """Describe where training stands; parameters may have been set to others since."""
    earlier = type(clf)(**clf.get_params(deep=False) | course.known_parameters())
    parameters, _ = stored_parameters(earlier)
    return {
        "seed": course.seed,
        "split": None if course.split is None else asdict(course.split),
        "began": course.has_trained,
        "parameters": {name: parameters[name] for name in course.parameters if name in parameters},
    }


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
    course = _course(model)
    if course is not None:
        earlier = take(model, "course", dict).get("parameters", {})  # not in files of before
        if type(earlier) is not dict:
            raise ValueError("the parameters of its course are not named")
        saved = take(model, "parameters", dict) | earlier
        parameters = remembered(_unfitted(cls, saved, device, backbone))
        course = replace(course, parameters=parameters)
    clf.net_ = _net(clf, module, history, course)
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


def _course(model: dict[str, Any]) -> ResumeState | None:
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
            content=take(split, "content", str) if "content" in split else "",
        )
    return ResumeState(_seed(saved), {}, split, has_trained=take(saved, "began", bool))


def _seed(saved: dict[str, Any]) -> int:
    seed = take(saved, "seed", int)
    if not 0 <= seed < 2**31:
        raise ValueError("its seed is not one")
    return seed


def _net(
    clf: Any, module: Network, history: list[dict[str, Any]], course: ResumeState | None
) -> CLCENet:
    try:
        assert course is not None
        plan = plan_without_fit(clf, module, course.seed)
        return restore_net(plan, module, history, course)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"its net can't be made: {error}") from error
