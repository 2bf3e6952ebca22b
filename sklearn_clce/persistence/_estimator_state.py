"""A fitted estimator as plain values, and rebuilt from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from types import NoneType
from typing import Any

import numpy as np
from torch import Tensor, nn

from .._head import HeadConfig
from .._network import Network
from .._system import seeded_torch
from .._targets import outputs_named
from .._training import ResumeState, Split, plan_without_fit, remembered, restore_net
from ..backbones import UNSTORED_PATH, JoinedBackbone, are_several, each_backbone
from ._module_state import check_backbone, check_restorable, module_state
from ._plain import (
    SCALARS,
    NotPlainError,
    from_json,
    labels_from_json,
    labels_to_json,
    take,
    take_number,
    to_json,
)

OF_THE_MACHINE = ("device", "memory", "checkpoint")  # a file must not choose where files go
SKORCH_PREFIXES = ("optimizer__", "callbacks__")
MAX_WORKERS = 128
MAX_SEED = 2**31 - 1


def estimator_state(clf: Any, module: Network) -> tuple[dict[str, Any], list[str]]:
    """Describe a fitted estimator without its tensors, and name what is left out."""
    parameters, left_out = _stored_parameters(clf)
    epochs = []
    for row in clf.history_:
        plain = {name: value for name, value in row.items() if _is_scalar(value)}
        epochs.append(to_json(plain))
        left_out += [f"history_[:, {name!r}]" for name in sorted(row.keys() - plain - {"batches"})]
    columns = getattr(clf, "feature_names_in_", None)
    state = {
        "parameters": parameters,
        "classes": labels_to_json(clf.classes_),
        "module": module_state(module),
        "history": epochs,
        "validation_scores": clf.validation_scores_,
        "resume": _resume_state(clf, clf.net_.resume),
        "n_features_in": getattr(clf, "n_features_in_", None),
        "saw_colour": getattr(clf, "_saw_colour", None),
        "offset": getattr(clf, "offset_", None),
        "feature_names_in": None if columns is None else columns.tolist(),
    }
    return state, list(dict.fromkeys(left_out))


def _resume_state(clf: Any, resume: ResumeState) -> dict[str, Any]:
    """Describe what a later call of training inherits; parameters may have been set since."""
    made_with = type(clf)(**clf.get_params(deep=False) | resume.known_parameters())
    parameters, _ = _stored_parameters(made_with)
    return {
        "seed": resume.seed,
        "split": None if resume.split is None else asdict(resume.split),
        "has_trained": resume.has_trained,
        "parameters": {name: parameters[name] for name in resume.parameters if name in parameters},
    }


def _is_scalar(value: Any) -> bool:
    return isinstance(value, np.generic) or type(value) in SCALARS


def _stored_parameters(clf: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters that a file can hold, and name the others that are set."""
    defaults = type(clf)().get_params(deep=False)
    parameters: dict[str, Any] = {}
    left_out = []
    for name, value in clf.get_params(deep=False).items():
        if name in OF_THE_MACHINE:
            continue
        if name == "backbone":
            value = _names_alone(value)
        if name == "pretrained" and isinstance(value, (str, os.PathLike)):
            value = UNSTORED_PATH
        try:
            saved = to_json(value)
            _check_storable(name, from_json(saved))
            parameters[name] = saved
        except (NotPlainError, ValueError):
            if value is not defaults[name]:
                left_out.append(
                    f"{name}={getattr(value, '__qualname__', type(value).__qualname__)}"
                )
    return parameters, left_out


def _names_alone(backbone: Any) -> Any:
    """Return the names among backbones, and None in the place of a module."""
    if isinstance(backbone, JoinedBackbone):
        backbone = each_backbone(backbone)
    if are_several(backbone):
        return type(backbone)(map(_names_alone, backbone))
    return None if isinstance(backbone, nn.Module) else backbone


def _with_modules(saved: Any, given: Any) -> Any:
    """Return backbones that a file names, with a user's modules in their places."""
    if not isinstance(saved, (tuple, list)):
        return given
    for name, part in zip(saved, each_backbone(given), strict=True):
        if isinstance(part, str) and part != name:
            raise ValueError(f"backbone={part!r}: the file holds {name!r} in its place")
    return type(saved)(
        part if isinstance(part, nn.Module) else name
        for name, part in zip(saved, each_backbone(given), strict=True)
    )


def _check_storable(name: str, value: Any) -> None:
    """Reject what a file must not set."""
    if name in OF_THE_MACHINE or name == "callbacks":
        raise ValueError(f"{name} is not a parameter of a model file")
    if name == "pretrained" and type(value) is not bool and value != UNSTORED_PATH:
        raise ValueError("pretrained is a path, which is not stored")
    if name == "skorch_params" and value is not None:
        foreign = [key for key in value if not str(key).startswith(SKORCH_PREFIXES)]
        if foreign:
            raise ValueError(f"skorch_params sets {str(foreign[0])[:80]!r}, which is not stored")
    if name == "num_workers" and value != "auto" and value > MAX_WORKERS:
        raise ValueError(f"num_workers above {MAX_WORKERS} is not stored")


def check_loadable(
    clf: Any, module: Network, state: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Reject the state of an estimator that :func:`restore` would reject."""

    def build(n_classes: int) -> Network:
        check_restorable(module, state["module"], n_classes, tensors)
        return Network(None, None, n_features=1, n_classes=n_classes, head=HeadConfig(None))

    has_modules = any(isinstance(part, nn.Module) for part in each_backbone(clf.backbone))
    backbone = clf.backbone if has_modules else None
    try:
        with seeded_torch(0):  # so that the caller's generators stay as they are
            restore(type(clf), state, build, device="cpu", backbone=backbone)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no model file can hold this model: {error}; a pickle can") from error


def restore(
    cls: Any,
    state: dict[str, Any],
    build: Callable[[int], Network],
    *,
    device: Any,
    backbone: Any,
) -> Any:
    """Rebuild a fitted estimator; ``build`` makes its network of so many classes."""
    check_backbone(take(state, "module", dict), backbone)
    parameters = take(state, "parameters", dict)
    clf = _unfitted(cls, parameters, device, backbone)
    clf.classes_ = labels_from_json(take(state, "classes", dict))
    outputs = outputs_named(take(take(state, "module", dict), "outputs", str))
    outputs.check_classes(clf.classes_)
    scores = take(state, "validation_scores", list, NoneType)
    if not all(type(score) is float for score in scores or []):
        raise ValueError("its validation_scores are not numbers")
    clf.validation_scores_ = scores
    clf.best_validation_score_ = None if scores is None else max(scores, default=None)
    _restore_optional(clf, state)
    history = [_epoch(row) for row in take(state, "history", list)]
    clf.n_iter_ = len(history)
    saved = take(state, "resume", dict)
    made_with = _unfitted(cls, parameters | take(saved, "parameters", dict), device, backbone)
    resume, module = _restored_resume(saved, made_with), build(len(clf.classes_))
    try:
        plan = plan_without_fit(clf, module, resume.seed)
        clf.net_ = restore_net(plan, module, history, resume)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"its net can't be made: {error}") from error
    return clf


def _unfitted(cls: Any, saved: dict[str, Any], device: Any, backbone: Any) -> Any:
    """Make the estimator from its parameters, which must be such as it takes."""
    unknown = sorted(saved.keys() - set(cls._get_param_names()))
    if unknown:
        raise ValueError(f"it has parameters that this version does not know: {unknown[:3]}")
    parameters = {name: from_json(value) for name, value in saved.items()}
    if backbone is not None:
        parameters["backbone"] = _with_modules(parameters.get("backbone"), backbone)
    clf = cls(**parameters | {"device": device})
    clf._validate_params()
    for name, value in parameters.items():
        _check_storable(name, value)
    return clf


def _restore_optional(clf: Any, state: dict[str, Any]) -> None:
    """Set the attributes that not every fitted estimator has."""
    names = take(state, "feature_names_in", list, NoneType)
    if not all(type(name) is str for name in names or []):
        raise ValueError("its feature_names_in are not names")
    found = {
        "n_features_in_": take(state, "n_features_in", int, NoneType),
        "feature_names_in_": None if names is None else np.array(names, dtype=object),
        "_saw_colour": take(state, "saw_colour", bool, NoneType),
        "offset_": take(state, "offset", float, NoneType),
    }
    for name, value in found.items():
        if value is not None:
            setattr(clf, name, value)


def _epoch(row: Any) -> dict[str, Any]:
    """Read the figures of an epoch; those of its batches are not kept."""
    figures = from_json(row)
    if type(figures) is not dict or not all(_is_scalar(value) for value in figures.values()):
        raise ValueError("its history holds what is not a figure of an epoch")
    return {"batches": [], **figures}


def _restored_resume(saved: dict[str, Any], made_with: Any) -> ResumeState:
    split = take(saved, "split", dict, NoneType)
    if split is not None:
        split = Split(
            seed=take_number(split, "seed", 0, MAX_SEED, int),
            validation_fraction=take(split, "validation_fraction", float),
            samples=take(split, "samples", str),
            content=take(split, "content", str),
        )
    seed = take_number(saved, "seed", 0, MAX_SEED, int)
    has_trained = take(saved, "has_trained", bool)
    return ResumeState(seed, remembered(made_with), split, has_trained)
