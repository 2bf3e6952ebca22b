"""What one run is: task, pictures, backbone, method and draw."""

import itertools
import json
from dataclasses import dataclass, fields

from .pictures import COLLECTIONS

# By task. To be raised when a change of the estimator changes what it learns there at its defaults:
# lines of an earlier recipe are then history, and its own methods are measured again.
RECIPES = {"classify": 2, "head": 2, "new_classes": 2}
OURS = {"clce": {}, "ce": {"weight": 0.0}, "supcon": {"hardness": 0.0}}
VOTE = "vote"  # of the default and a head
FROZEN = ("logistic", "logistic_cv", "neighbours")  # classifiers on features of the frozen backbone
TRAINED = ("fastai", "script")  # what else fine-tunes


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One run, with every choice that its numbers depend on.

    Parameters
    ----------
    task : {"classify", "head", "new_classes"}
        Train on images of some classes and classify others of them; the same, from features that
        are computed beforehand; or train on some classes and learn new ones from a few embeddings.
    data : str
        A collection of pictures.
    n_classes : int
        Classes drawn by the seed.
    shots : int
        Training images of each class.
    backbone : str
        As for ``CLCEClassifier``.
    image_size : int or None
        Side in pixels; None: the backbone's own.
    method : str
        One of ours, which are ``CLCEClassifier`` at its defaults but for what is named, or another.
    parameters : tuple of (str, object)
        What else is not the estimator's default.
    recipe : int or None
        Which of the estimator's own defaults; None for other methods.
    seed : int
        Fixes classes, images, initialisation and order.
    """

    task: str
    data: str
    n_classes: int
    shots: int
    backbone: str
    image_size: int | None
    method: str
    parameters: tuple[tuple[str, object], ...]
    recipe: int | None
    seed: int

    @property
    def key(self):
        """Text that two equal configurations share."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps(values, sort_keys=True)


def configure(
    *,
    data,
    method="clce",
    task="classify",
    n_classes=7,
    shots=10,
    backbone="efficientnet_lite0",
    image_size=None,
    seed=0,
    **parameters,
):
    """Make a configuration; ``parameters`` are those of the estimator."""
    is_ours = method in OURS or method == VOTE
    return Configuration(
        task=task,
        data=data,
        n_classes=min(n_classes, COLLECTIONS[data].n_classes),
        shots=shots,
        backbone=backbone,
        image_size=image_size,
        method=method,
        parameters=tuple(sorted(parameters.items())) if is_ours else (),
        recipe=RECIPES[task] if is_ours else None,
        seed=seed,
    )


def from_record(record):
    """Make a configuration of what a line of results holds."""
    parameters = tuple((name, value) for name, value in record["parameters"])
    return Configuration(**record | {"parameters": parameters})


def product(**choices):
    """Combine lists of choices of the arguments of :func:`configure`; the first varies slowest.

    A dict among the choices stands for several arguments that go together.
    """
    configurations = []
    for values in itertools.product(*choices.values()):
        arguments = {}
        for name, value in zip(choices, values, strict=True):
            arguments |= value if isinstance(value, dict) else {name: value}
        configurations.append(configure(**arguments))
    return list(dict.fromkeys(configurations))
