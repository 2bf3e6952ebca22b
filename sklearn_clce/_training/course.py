"""What a later call of training inherits from the earlier ones of the same net."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from torch import nn

from .._system import broadcast
from .low_rank import is_adapted, merge
from .parameters import CLCEParameters

BUILT_WITH = ("backbone", "pretrained", "image_size", "projection_dim")
CHANGEABLE = ("trainable", "lora_rank", "gradient_checkpointing", "random_state")
FORGOTTEN = "a module that was handed in"


@dataclass(frozen=True)
class Split:
    """The samples that are set aside: settled by the first fit, drawn again by each."""

    seed: int
    validation_fraction: float
    samples: str  # digest of the labels and of which samples count
    content: str = ""  # digest of what is set aside; empty where none can be made


@dataclass(frozen=True)
class Course:
    """The course of training over all calls, as :class:`Run` is one of them."""

    seed: int
    parameters: dict[str, Any] = field(default_factory=dict)  # that the net is made with
    split: Split | None = None
    began: bool = False  # it has trained

    def with_parameters(self, parameters: CLCEParameters) -> Course:
        """Note what the net is made with."""
        made_with = {name: getattr(parameters, name) for name in BUILT_WITH + CHANGEABLE}
        return replace(self, parameters=made_with)

    def changed(self, parameters: CLCEParameters, name: str) -> bool:
        """Tell whether a parameter is another one than in the last call."""
        now, before = getattr(parameters, name), self.parameters[name]
        return now is not before and (isinstance(now, nn.Module) or now != before)

    def known_parameters(self) -> dict[str, Any]:
        """Return what the net was made with, but for a module that a pickle left out."""
        return {
            name: value
            for name, value in self.parameters.items()
            if isinstance(value, nn.Module) or value != FORGOTTEN
        }

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without the user's module, of which the net has its own copy."""
        made_with = {
            name: FORGOTTEN if isinstance(value, nn.Module) else value
            for name, value in self.parameters.items()
        }
        return vars(self) | {"parameters": made_with}


def begin(parameters: CLCEParameters) -> Course:
    """Draw a seed for a new net."""
    return Course(draw_seed(parameters)).with_parameters(parameters)


def go_on(parameters: CLCEParameters, course: Course, backbone: nn.Module | None) -> Course:
    """Continue a course with parameters as they are now; ``backbone`` is the net's own.

    Raises a ValueError for a parameter that a net can't change.
    """
    for name in BUILT_WITH:
        now = getattr(parameters, name)
        if isinstance(now, nn.Module) and course.parameters[name] == FORGOTTEN:
            other = not alike(now, backbone)
        else:
            other = course.changed(parameters, name)
        if other:
            now = type(now).__name__ if isinstance(now, nn.Module) else repr(now)
            raise ValueError(
                f"{name}={now}: the net that is to go on was built with another {name}; set it "
                "back, or begin anew with warm_start=False and fit"
            )
    if course.changed(parameters, "random_state"):
        course = replace(course, seed=draw_seed(parameters))
    return course.with_parameters(parameters)


def draw_seed(parameters: CLCEParameters) -> int:
    """Draw a seed, the same in all processes."""
    random_state = check_random_state(parameters.random_state)
    return broadcast(int(random_state.randint(np.iinfo(np.int32).max)))


def alike(module: nn.Module, other: nn.Module | None) -> bool:
    """Tell whether two modules are of one class and hold tensors of the same shapes.

    What low-rank adaptation adds to ``other`` does not count.
    """
    if other is None or type(module) is not type(other):
        return False
    if is_adapted(other):
        other = copy.deepcopy(other)
        merge(other)
    shapes = [
        {name: getattr(value, "shape", None) for name, value in each.state_dict().items()}
        for each in (module, other)
    ]
    return shapes[0] == shapes[1]


def keep_split(
    course: Course,
    parameters: CLCEParameters,
    labels: np.ndarray,
    counted: np.ndarray,
    *,
    all_train: bool,
) -> Course:
    """Return the course with the split of this call, which must be that of the calls before."""
    if all_train:
        return replace(course, split=None, began=True)  # trains on samples that were set aside
    digest = hashlib.blake2b(np.concatenate([labels, counted]).tobytes(), digest_size=16)
    seed = course.seed if course.split is None else course.split.seed
    content = "" if course.split is None else course.split.content
    split = Split(seed, float(parameters.validation_fraction), digest.hexdigest(), content)
    if course.began and course.split is None:
        raise ValueError(
            "early_stopping=True: earlier calls have trained on samples that it would set aside; "
            "set it before the first fit, or begin anew with warm_start=False"
        )
    if course.began and course.split != split:
        raise _other_samples()
    return replace(course, split=split, began=True)


def keep_aside(course: Course, content: str) -> Course:
    """Return the course with a digest of what is set aside, which must be as it was."""
    assert course.split is not None
    if course.split.content and content and course.split.content != content:
        raise _other_samples()
    return replace(course, split=replace(course.split, content=content))


def _other_samples() -> ValueError:
    return ValueError(
        "early_stopping=True: what the first fit set aside stays aside, so validation_fraction "
        "and the samples of X, in their order, must be those of that fit, without classes that "
        "came later; otherwise begin anew with warm_start=False, or set early_stopping=False"
    )


def mix_seed(seed: int, *place: int) -> int:
    """Mix the seed of what is drawn at one place, such as an epoch and a process."""
    mixed = np.random.SeedSequence(seed, spawn_key=place)
    return int(mixed.generate_state(1, np.uint64)[0])
