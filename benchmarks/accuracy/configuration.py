"""What one run is: data, backbone, criterion, budget and seed."""

import itertools
import json
from dataclasses import asdict, dataclass, replace

from sklearn_clce import CLCEClassifier

from .pictures import COLLECTIONS

# What logistic regression on frozen features does not know of.
OF_TRAINING = (
    "weight",
    "temperature",
    "hardness",
    "projection_dim",
    "n_views",
    "sampler",
    "batch_size",
    "max_epochs",
    "learning_rate",
)
OF_ESTIMATOR = {name: CLCEClassifier().get_params()[name] for name in OF_TRAINING}
DEFAULT_METHOD = "clce" if OF_ESTIMATOR["hardness"] > 0 else "supcon"
# "clce" has hardness, whatever the estimator's default is
DEFAULTS = OF_ESTIMATOR | {"hardness": OF_ESTIMATOR["hardness"] or 1.0}
# Each of "episodes" is a fine-tuning, each of "base" a small fit on embeddings.
EPISODES = {"classify": None, "episodes": 5, "base": 600}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One run, with every setting that its numbers depend on.

    Parameters
    ----------
    task : {"classify", "episodes", "base"}
        Train on some images of some classes and classify others; fine-tune on the
        support images of each of several episodes; or train on base classes once and
        learn new classes from a few embeddings.
    data : str
        A collection of pictures.
    n_classes : int
        Classes drawn by the seed.
    shots : int or None
        Training images of each class; None: all at hand.
    backbone : str
        As for ``CLCEClassifier``.
    image_size : int
        Side in pixels.
    trainable : {"all", "head"} or int
        As for ``CLCEClassifier``.
    method : {"ce", "supcon", "clce", "logistic"}
        Cross-entropy, with a contrastive term without and with hardness, or logistic
        regression on frozen features.
    weight, temperature, hardness, projection_dim, n_views, sampler, batch_size, \
max_epochs, learning_rate : object
        As for ``CLCEClassifier``; None where they have no meaning.
    seed : int
        Fixes classes, images, episodes and initialisation.
    episodes : int or None, default=None
        Number of episodes; None where there are none.
    classifier : {"zero", "random"}, default="zero"
        What the classifier starts from; the estimator has no other than "zero".
    """

    task: str
    data: str
    n_classes: int
    shots: int | None
    backbone: str
    image_size: int
    trainable: str | int
    method: str
    weight: float | None
    temperature: float | None
    hardness: float | None
    projection_dim: int | str | None
    n_views: int | None
    sampler: str | None
    batch_size: int | None
    max_epochs: int | None
    learning_rate: float | None
    seed: int
    episodes: int | None = None
    classifier: str = "zero"

    @property
    def key(self):
        """Text that two equal configurations share."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def setting(self):
        """The same run whatever the seed."""
        return replace(self, seed=-1)


def configure(
    *,
    data,
    method="clce",
    task="classify",
    n_classes=None,
    shots=20,
    backbone="efficientnet_lite0",
    image_size=64,
    trainable="all",
    seed=0,
    classifier="zero",
    **training,
):
    """Make a configuration; what is not given is the estimator's own default.

    Parameters
    ----------
    data, method, task, n_classes, shots, backbone, image_size, trainable, seed, \
classifier : object
        See :class:`Configuration`. ``n_classes=None``: all classes.
    **training : object
        Settings of the criterion and the budget.

    Returns
    -------
    Configuration
        Equal runs have equal configurations: ``hardness=0`` is "supcon", and what a
        method does not know of is None.
    """
    settings = DEFAULTS | training
    if method == "logistic":
        trainable, settings = "head", dict.fromkeys(OF_TRAINING)
    elif method == "ce" or settings["weight"] == 0:
        method = "ce"
        settings |= {"weight": 0.0, "temperature": None, "hardness": None}
    elif method == "supcon" or settings["hardness"] == 0:
        method = "supcon"
        settings["hardness"] = 0.0
    at_hand = COLLECTIONS[data].n_classes
    return Configuration(
        task=task,
        data=data,
        n_classes=at_hand if n_classes is None else min(n_classes, at_hand),
        shots=shots,
        backbone=backbone,
        image_size=image_size,
        trainable=trainable,
        method=method,
        episodes=EPISODES[task],
        seed=seed,
        classifier=classifier,
        **settings,
    )


def from_record(record):
    """Make a configuration of what a line of results holds.

    Parameters
    ----------
    record : dict
        The settings by name.

    Returns
    -------
    Configuration
        The configuration.
    """
    return Configuration(**record)


def product(**choices):
    """Combine lists of choices; the first varies slowest.

    Parameters
    ----------
    **choices : list
        Values of each argument of :func:`configure`. A dict among them stands for
        several arguments that go together.

    Returns
    -------
    list of Configuration
        Each one once.
    """
    configurations = []
    for values in itertools.product(*choices.values()):
        arguments = {}
        for name, value in zip(choices, values, strict=True):
            arguments |= value if isinstance(value, dict) else {name: value}
        configurations.append(configure(**arguments))
    return list(dict.fromkeys(configurations))
