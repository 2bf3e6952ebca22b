"""What a later call of training inherits from the earlier ones of the same net."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from torch import nn

from .._head import HeadConfig
from .._network import Network, is_adapted, merge
from .._system import broadcast
from .._targets import Target
from ..backbones import UNSTORED_PATH, JoinedBackbone, are_several, each_backbone, name_of

BUILT_WITH = ("backbone", "pretrained", "image_size", *(each.name for each in fields(HeadConfig)))
REMEMBERED = (*BUILT_WITH, "trainable", "lora_rank", "random_state")
FORGOTTEN = "the user's module"  # not kept: the net has its own copy

Epoch = dict[str, Any]
Packed = tuple[list[str], list[np.ndarray | list[Any]]]
COLUMNS = {float: np.float64, np.float64: np.float64, int: np.int64, bool: np.bool_}


@dataclass(frozen=True)
class Split:
    """The samples that are set aside: chosen by the first fit, found again by each."""

    seed: int
    validation_fraction: float
    samples: str  # digest of the labels and of which samples count
    content: str = ""  # digest of the samples set aside; empty if none can be made


@dataclass(frozen=True)
class ResumeState:
    """State of all calls of training on one net."""

    seed: int
    parameters: Mapping[str, Any]  # as given to the last call, by name
    split: Split | None = None
    has_trained: bool = False

    def known_parameters(self) -> dict[str, Any]:
        """Return the parameters of the last call, without modules that a pickle left out."""
        known = dict(self.parameters)
        if FORGOTTEN in each_backbone(known["backbone"]):
            del known["backbone"]
        return known

    def changes_trainable(self, parameters: Mapping[str, Any], network: Network) -> bool:
        """Return whether other parts of a network are to be trainable than in the last call."""
        if network.backbone is None:
            return False
        changed = any(
            parameters[name] != self.parameters[name] for name in ("trainable", "lora_rank")
        )
        return changed or (parameters["trainable"] == "lora" and not is_adapted(network.backbone))

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without the user's modules."""
        backbone = _forgetting(self.parameters["backbone"])
        return vars(self) | {"parameters": {**self.parameters, "backbone": backbone}}


def _forgetting(backbone: Any) -> Any:
    """Return the names among backbones, and in place of modules that there was one."""
    if are_several(backbone):
        return tuple(map(_forgetting, each_backbone(backbone)))
    return FORGOTTEN if isinstance(backbone, nn.Module) else backbone


def remembered(estimator: Any) -> dict[str, Any]:
    """Return the parameters that a later call compares with its own."""
    return {name: getattr(estimator, name) for name in REMEMBERED}


def start_state(parameters: Mapping[str, Any]) -> ResumeState:
    """Draw a seed for a new net."""
    return ResumeState(draw_seed(parameters["random_state"]), parameters)


def continue_state(
    state: ResumeState, parameters: Mapping[str, Any], backbone: nn.Module | None
) -> ResumeState:
    """Continue with parameters as they are now; ``backbone`` is the net's own.

    Raises a ValueError for a parameter that a net can't change.
    """
    for name in BUILT_WITH:
        now, before = parameters[name], state.parameters[name]
        if name == "backbone":
            differs = _are_others(now, before, backbone)
        else:  # of a loaded model, a path may be given again
            differs = before != UNSTORED_PATH and _differs(now, before)
        if differs:
            now = name_of(now) if isinstance(now, nn.Module) else repr(now)
            raise ValueError(
                f"{name}={now}: cannot change {name} when continuing training; restore it, or fit "
                "with warm_start=False"
            )
    if _differs(parameters["random_state"], state.parameters["random_state"]):
        state = replace(state, seed=draw_seed(parameters["random_state"]))
    return replace(state, parameters=parameters)


def _differs(now: Any, before: Any) -> bool:
    return now is not before and (isinstance(now, nn.Module) or now != before)


def _are_others(now: Any, before: Any, own: nn.Module | None) -> bool:
    """Return whether backbones are others than before; ``own`` is the net's."""
    names, known = each_backbone(now), each_backbone(before)
    parts = own.parts if isinstance(own, JoinedBackbone) else [own]
    return len(names) != len(known) or any(map(_is_other, names, known, parts))


def _is_other(now: Any, before: Any, own: nn.Module | None) -> bool:
    if isinstance(now, nn.Module) and before == FORGOTTEN:
        return not _are_alike(now, own)
    return _differs(now, before)


def draw_seed(random_state: Any) -> int:
    """Draw a seed, the same in all processes."""
    drawn = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    return broadcast(int(drawn))


def _are_alike(module: nn.Module, other: nn.Module | None) -> bool:
    """Return whether two modules are of one class and hold tensors of the same shapes.

    Low-rank matrices that were added to ``other`` do not count.
    """
    if other is None or type(module) is not type(other):
        return False
    other = copy.deepcopy(other)
    merge(other)
    shapes = [
        {name: getattr(value, "shape", None) for name, value in each.state_dict().items()}
        for each in (module, other)
    ]
    return shapes[0] == shapes[1]


def continue_split(
    state: ResumeState,
    target: Target,
    rows: np.ndarray,
    *,
    validation_fraction: float,
    sets_aside: bool,
) -> ResumeState:
    """Return the state with the split of this call, which must be that of earlier calls.

    Shapes: rows (n,), the indices of the samples in what ``fit`` was given.
    """
    if not sets_aside:
        return replace(state, split=None, has_trained=True)  # trains on samples once set aside
    digest = hashlib.blake2b(
        np.concatenate([target.labels.ravel(), rows]).tobytes(), digest_size=16
    )
    seed = state.seed if state.split is None else state.split.seed
    content = "" if state.split is None else state.split.content
    split = Split(seed, float(validation_fraction), digest.hexdigest(), content)
    if state.has_trained and state.split is None:
        raise ValueError(
            "early_stopping=True: earlier calls have trained on samples that it would set aside; "
            "set it before the first fit, or fit with warm_start=False"
        )
    if state.has_trained and state.split != split:
        raise _other_samples()
    return replace(state, split=split, has_trained=True)


def check_content_aside(state: ResumeState, content: str) -> ResumeState:
    """Return the state with a digest of the samples set aside, which must not have changed."""
    assert state.split is not None
    if state.split.content and content and state.split.content != content:
        raise _other_samples()
    return replace(state, split=replace(state.split, content=content))


def _other_samples() -> ValueError:
    return ValueError(
        "early_stopping=True: the samples that the first fit set aside stay aside, so "
        "validation_fraction and the samples of X, in their order, must be those of that fit, "
        "without classes that came later; otherwise fit with warm_start=False, or set "
        "early_stopping=False"
    )


def mix_seed(seed: int, *place: int) -> int:
    """Mix a seed with a place at which numbers are drawn, such as an epoch and a process."""
    mixed = np.random.SeedSequence(seed, spawn_key=place)
    return int(mixed.generate_state(1, np.uint64)[0])


def pack_history(epochs: Iterable[Epoch]) -> list[Packed]:
    """Turn epochs into columns, one set for each run of epochs that hold the same kinds."""
    packed: list[Packed] = []
    for kinds, group in groupby(epochs, key=_kinds):
        columns = zip(*(epoch.values() for epoch in group), strict=True)
        dtypes = [COLUMNS.get(kind) for _, kind in kinds]
        packed.append(
            (
                [name for name, _ in kinds],
                [
                    list(column) if dtype is None else np.array(column, dtype)
                    for column, dtype in zip(columns, dtypes, strict=True)
                ],
            )
        )
    return packed


def _kinds(epoch: Epoch) -> list[tuple[str, type]]:
    return [(name, type(value)) for name, value in epoch.items()]


def unpack_history(packed: Iterable[Packed]) -> Iterator[Epoch]:
    """Yield the epochs again, in plain numbers."""
    for names, columns in packed:
        plain = [c.tolist() if isinstance(c, np.ndarray) else c for c in columns]
        for values in zip(*plain, strict=True):
            yield dict(zip(names, values, strict=True))
