"""Models of a run, the images that it draws, and what a fit costs."""

import platform
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import make_pipeline

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce._system import resolve_device
from sklearn_clce.backbones import frozen_backbone

from .baselines import make_baseline
from .beit_script import BeitScript
from .configuration import FROZEN, OURS, VOTE
from .fastai_learner import FastaiLearner
from .pictures import COLLECTIONS, draw, resize_once

WEIGHT_FILES = {"vit_tiny": "vit_tiny_patch16_224.fp16.safetensors"}
SCRIPTS = {"fastai": FastaiLearner, "script": BeitScript}


@dataclass(frozen=True)
class Surroundings:
    """What a run needs that its numbers do not depend on.

    Parameters
    ----------
    data, weights : path or None
        Folders of data and of weights.
    features : path or None
        Folder in which features of test images, and those for heads, are kept between runs.
    device : str
        Where to compute.
    threads : int or None
        Of torch; None leaves them.
    """

    data: str | None = None
    weights: str | None = None
    features: str | None = None
    device: str = "auto"
    threads: int | None = None


def make_model(configuration, surroundings):
    """Make the classifier of images that a configuration names."""
    method, seed = configuration.method, configuration.seed
    common = settings_of(configuration, surroundings)
    if method in OURS:
        return make_ours(configuration, surroundings, **common)
    if method == VOTE:
        tuned = make_ours(configuration, surroundings, **common)
        head = clone(tuned).set_params(trainable="head")
        return VotingClassifier([("tuned", tuned), ("head", head)], voting="soft")
    if method in FROZEN:
        features = BackboneFeatures(configuration.backbone, **common)
        return make_pipeline(features, make_baseline(method, seed))
    start = backbone_of(configuration, surroundings)
    return SCRIPTS[method](start.module, start.config, seed, resolve_device(surroundings.device))


def make_ours(configuration, surroundings, **settings):
    changed = OURS.get(configuration.method, {}) | dict(configuration.parameters)
    backbone = named_backbone(configuration, surroundings)
    return CLCEClassifier(backbone, random_state=configuration.seed, **settings, **changed)


def make_head(configuration, surroundings):
    common = settings_of(configuration, surroundings) | {"memory": surroundings.features}
    return make_ours(configuration, surroundings, trainable="head", **common)


def settings_of(configuration, surroundings):
    return {
        "pretrained": pretrained(configuration, surroundings),
        "image_size": configuration.image_size,
        "device": surroundings.device,
        "memory": joblib.Memory(None),  # or a later run would find the pass of an earlier one
    }


def pretrained(configuration, surroundings):
    """Say where weights are, as ``pretrained``: in the folder of weights if it has them."""
    name = WEIGHT_FILES.get(configuration.backbone)
    if name is None or surroundings.weights is None:
        return True
    return str(Path(surroundings.weights) / name)


def named_backbone(configuration, surroundings):
    """Return the backbone; of several, those as modules whose weights are in a file."""
    names = configuration.backbone.split("+")
    if len(names) == 1:
        return configuration.backbone
    each = [replace(configuration, backbone=name) for name in names]
    return tuple(
        one.backbone
        if pretrained(one, surroundings) is True
        else backbone_of(one, surroundings, lower_blocks=True).module
        for one in each
    )


def backbone_of(configuration, surroundings, **settings):
    return frozen_backbone(
        configuration.backbone,
        pretrained=pretrained(configuration, surroundings),
        image_size=configuration.image_size,
        **settings,
    )


def resized(parts, configuration, surroundings):
    """Resize images once instead of in every epoch, if they have one size; make RGB of grey."""
    x_train, y_train, x_test, y_test = parts
    if "+" not in configuration.backbone:
        config = backbone_of(configuration, surroundings).config
        x_train, x_test = (resize_once(images, config) for images in (x_train, x_test))
    return _colour(x_train), y_train, _colour(x_test), y_test


def _colour(images):
    return images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)


def drawn(configuration, surroundings, shots):
    parts = draw(
        COLLECTIONS[configuration.data],
        n_classes=configuration.n_classes,
        shots=shots,
        seed=configuration.seed,
        folder=surroundings.data,
    )
    return resized(parts, configuration, surroundings)


def timed_fit(model, X, y, surroundings):
    """Fit, and return what that took."""
    start, of_processor, peak = time.perf_counter(), time.process_time(), peak_memory(surroundings)
    model.fit(X, y)
    cost = {
        "fit_seconds": round(time.perf_counter() - start, 3),
        "fit_processor_seconds": round(time.process_time() - of_processor, 3),
    }
    if peak is not None:
        cost["fit_memory"] = round(peak_memory(surroundings) - peak, 1)
    return cost | budget(model)


def budget(model):
    """Say how long a model trained: epochs, steps, and what of a backbone."""
    if not isinstance(model, CLCEClassifier):
        return {"budget": getattr(model, "budget", {})}
    epochs = list(model.history_)
    return {
        "budget": {
            "epochs": len(epochs),
            "steps": sum(epoch["train_batch_count"] for epoch in epochs),
            "batch_size": model.batch_size,
        },
        "epoch_seconds": round(sum(epoch["dur"] for epoch in epochs), 3),
        "trainable": model.trainable_,
    }


def peak_memory(surroundings):
    """Measure the most memory that was ever in use, in MiB, of the GPU if there is one.

    None where the system does not tell.
    """
    if resolve_device(surroundings.device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with suppress(ImportError):
        import resource

        per_mib = 2**20 if platform.system() == "Darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib
    return None
