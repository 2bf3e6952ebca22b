"""What one run is: task, pictures, backbone, method and draw."""

import itertools
import json
from dataclasses import dataclass, fields

from .pictures import COLLECTIONS

# By task. To be raised when a change of the estimator changes what it learns there at its defaults:
# lines of an earlier recipe are then history, and its own methods are measured again.
RECIPES = {
    "classify": 2,
    "head": 2,
    "new_classes": 2,
    "few_shot": 1,
    "transfer": 1,
    "multilabel": 1,
    "grey_8_bits": 1,
    "grey_16_bits": 1,
    "imbalanced": 1,
    "wrong_labels": 1,
}
# What is compared: criteria by name, each with every setting of it.
CRITERIA = {
    "ce": {"weight": 0.0},
    "each_5": {"positives": "each", "weight": 0.5},
    "mean_9": {"positives": "mean", "weight": 0.9},
    "supcon_9": {"positives": "each", "hardness": 0.0, "weight": 0.9},
    "each_9": {"positives": "each", "weight": 0.9},
    "mean_5": {"positives": "mean", "weight": 0.5},
    "supcon_5": {"positives": "each", "hardness": 0.0, "weight": 0.5},
}
# The recipe of the authors' code, as far as it is the estimator's business.
AUTHORS = {
    "batch_size": 128,
    "layer_decay": 0.65,
    "learning_rate": 7e-4,
    "n_views": 2,
    "projection_dim": 128,
    "warmup_fraction": 0.05,
    "weight_decay": 0.05,
}
RECIPE_OF_AUTHORS = {
    "authors_ce": AUTHORS | CRITERIA["ce"],
    "authors_mean_9": AUTHORS | CRITERIA["mean_9"],
}
HEADS = {"head": {"trainable": "head"}, "head_ce": {"trainable": "head", "weight": 0.0}}
OURS = {"clce": {}, "supcon": {"hardness": 0.0}} | CRITERIA | RECIPE_OF_AUTHORS | HEADS
VOTE = "vote"  # of the default and a head
# Classifiers on features of the frozen backbone.
FROZEN = ("logistic", "logistic_cv", "neighbours", "discriminant", "svc", "class_mean")
TRAINED = ("fastai", "script")  # what else fine-tunes


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One run, with every choice that its numbers depend on.

    Parameters
    ----------
    task : str
        A key of ``RECIPES``. Train on images of some classes and classify others of them; the
        same, from features that are computed beforehand; train on some classes and learn new ones
        from a few embeddings; the same on all base classes of a few-shot benchmark; classify, find
        images and meet corrupted ones; train on images with several labels; or classify images of
        a kind (:mod:`kinds`).
    data : str
        A collection of pictures.
    n_classes : int
        Classes drawn by the seed.
    shots : int
        Training images of each class, or all of them where an image has several labels.
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
