"""One run: draw the pictures, train, measure."""

import platform
import subprocess
import time
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from sklearn_clce import BackboneFeatures, CLCEClassifier, few_shot_score
from sklearn_clce._system import resolve_device
from sklearn_clce.backbones import frozen_backbone

from .baselines import make_baseline
from .beit_script import BeitScript
from .configuration import FROZEN, OURS, VOTE
from .fastai_learner import FastaiLearner
from .metrics import classification_metrics, embedding_metrics
from .pictures import COLLECTIONS, draw, resize_once, rows_of_each
from .sources import first_of_each

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "skorch", "numpy", "fastai")
WEIGHT_FILES = {"vit_tiny": "vit_tiny_patch16_224.fp16.safetensors"}
MOST_SHOTS = 40  # those of a head are some of so many, whose features are computed once
N_TIMED = 32  # pictures
N_WAY, N_EPISODES, EPISODE_SHOTS = 5, 300, (1, 5)
NEW_CLASSES, NEW_IMAGES, N_QUERIES = 20, 30, 10  # at most; of each; of each in an episode
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


def measure(configuration, surroundings):
    """Do one run, and return its line: configuration, metrics, seconds, memory, machine.

    A run that fails has an ``error`` instead of metrics.
    """
    if surroundings.threads:
        torch.set_num_threads(surroundings.threads)
    line = {"configuration": asdict(configuration)}
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            line |= TASKS[configuration.task](configuration, surroundings)
        except Exception as error:  # whatever it is, the other runs go on
            line["error"] = f"{type(error).__name__}: {error}"
    messages = dict.fromkeys(str(warning.message)[:200] for warning in caught)
    return line | {
        "seconds": round(time.perf_counter() - start, 3),
        "warnings": list(messages),
        "machine": machine(surroundings),
        "versions": versions(),
    }


def classify(configuration, surroundings):
    """Train on images of some classes and classify other images of them."""
    x_train, y_train, x_test, y_test = _drawn(configuration, surroundings, configuration.shots)
    model = make_model(configuration, surroundings)
    training = _fit(model, x_train, y_train, surroundings)
    if configuration.method in FROZEN:  # the others of the same pictures need these features too
        model[0].set_params(memory=surroundings.features)
    metrics = classification_metrics(model.classes_, y_test, model.predict_proba(x_test))
    return {"metrics": metrics, **training, "images": [len(x_train), len(x_test)]}


def head(configuration, surroundings):
    """Train a classifier of images whose features are kept."""
    anyone = replace(configuration, method="", shots=0, parameters=(), recipe=None)
    is_ours = configuration.method in OURS
    train, y_train, test, y_test, seconds = _kept_features(anyone, surroundings, is_ours)
    kept, _ = first_of_each(y_train, configuration.shots)
    train, y_train = train[kept], y_train[kept]
    if is_ours:
        model = _head(configuration, surroundings)
        embed = model.transform
    else:
        model = make_baseline(configuration.method, configuration.seed)
        embed = Normalizer().fit_transform
    start = time.perf_counter()
    model.fit(train, y_train)
    training = {"fit_seconds": round(time.perf_counter() - start, 3), **_budget(model)}
    metrics = classification_metrics(model.classes_, y_test, model.predict_proba(test))
    metrics |= embedding_metrics(embed(train), y_train, embed(test), y_test)
    return {
        "metrics": metrics,
        **training,
        "images": [len(train), len(test)],
        "seconds_a_picture": seconds,
    }


def new_classes(configuration, surroundings):
    """Train on some classes, then learn others from a few features or embeddings of them."""
    base, y_base, images, labels = COLLECTIONS[configuration.data].load(surroundings.data)
    rng = np.random.default_rng(configuration.seed)
    old = rng.permutation(np.unique(y_base))[: configuration.n_classes]
    names, counts = np.unique(labels, return_counts=True)
    new = rng.permutation(names[counts >= N_QUERIES + max(EPISODE_SHOTS)])[:NEW_CLASSES]
    rows = rows_of_each(y_base, old, configuration.shots, configuration.seed)
    new_rows = rows_of_each(labels, new, NEW_IMAGES, configuration.seed)
    base, y_base, images, labels = _resized(
        (base[rows], y_base[rows], images[new_rows], labels[new_rows]), configuration, surroundings
    )
    model = make_model(configuration, surroundings)
    training = _fit(model, base, y_base, surroundings)
    if configuration.method in OURS:
        tuned = BackboneFeatures(model.module_.backbone, device=surroundings.device)
        spaces = {"features": tuned.fit_transform(images), "embedding": model.transform(images)}
    else:
        spaces = {"features": model[0].transform(images)}
    learners = {"regression": LogisticRegression(), "class_mean": NearestCentroid()}
    metrics = {
        f"{space}_{name}_{k_shot}_shot": few_shot_score(
            learner,
            values,
            labels,
            n_way=N_WAY,
            k_shot=k_shot,
            n_queries=N_QUERIES,
            n_episodes=N_EPISODES,
            random_state=configuration.seed,
        ).mean
        for space, values in spaces.items()
        for name, learner in learners.items()
        for k_shot in EPISODE_SHOTS
    }
    return {"metrics": metrics, **training, "images": [len(base), len(images)]}


TASKS = {"classify": classify, "head": head, "new_classes": new_classes}


def make_model(configuration, surroundings):
    """Make the classifier of images that a configuration names."""
    method, seed = configuration.method, configuration.seed
    common = _common(configuration, surroundings)
    if method in OURS:
        return _ours(configuration, **common)
    if method == VOTE:
        tuned = _ours(configuration, **common)
        head = clone(tuned).set_params(trainable="head")
        return VotingClassifier([("tuned", tuned), ("head", head)], voting="soft")
    if method in FROZEN:
        features = BackboneFeatures(configuration.backbone, **common)
        return make_pipeline(features, make_baseline(method, seed))
    start = _backbone(configuration, surroundings)
    return SCRIPTS[method](start.module, start.config, seed, resolve_device(surroundings.device))


def _ours(configuration, **settings):
    changed = OURS.get(configuration.method, {}) | dict(configuration.parameters)
    return CLCEClassifier(
        configuration.backbone, random_state=configuration.seed, **settings, **changed
    )


def _head(configuration, surroundings):
    common = _common(configuration, surroundings) | {"memory": surroundings.features}
    return _ours(configuration, trainable="head", **common)


def _common(configuration, surroundings):
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


def _backbone(configuration, surroundings):
    return frozen_backbone(
        configuration.backbone,
        pretrained=pretrained(configuration, surroundings),
        image_size=configuration.image_size,
    )


def _resized(parts, configuration, surroundings):
    """Resize images once instead of in every epoch, and make RGB of grey ones."""
    config = _backbone(configuration, surroundings).config
    x_train, y_train, x_test, y_test = parts
    x_train, x_test = (_colour(resize_once(images, config)) for images in (x_train, x_test))
    return x_train, y_train, x_test, y_test


def _colour(images):
    return images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)


def _drawn(configuration, surroundings, shots):
    parts = draw(
        COLLECTIONS[configuration.data],
        n_classes=configuration.n_classes,
        shots=shots,
        seed=configuration.seed,
        folder=surroundings.data,
    )
    return _resized(parts, configuration, surroundings)


@lru_cache(maxsize=1)
def _pictures(configuration, surroundings):
    return _drawn(configuration, surroundings, MOST_SHOTS)


@lru_cache(maxsize=2)
def _kept_features(configuration, surroundings, is_ours):
    """Compute what is kept of a draw, and the seconds that a picture takes.

    Our heads keep more than the last features, and are given the images.
    """
    x_train, y_train, x_test, y_test = _pictures(configuration, surroundings)
    if is_ours:
        model = _head(replace(configuration, method="ce"), surroundings)
        few, _ = first_of_each(y_train, 2)
        nothing_kept = joblib.Memory(None)
        run = model.set_params(memory=nothing_kept).fit(x_train[few], y_train[few]).predict
    else:
        model = BackboneFeatures(
            configuration.backbone, **_common(configuration, surroundings)
        ).fit(x_train[:1])
        run = model.transform
    run(x_train[:1])
    start = time.process_time()  # so that other work on the machine does not count
    run(x_test[:N_TIMED])
    seconds = (time.process_time() - start) / len(x_test[:N_TIMED])
    model.set_params(memory=surroundings.features)
    kept = run(x_train), run(x_test)
    train, test = (x_train, x_test) if is_ours else kept
    return train, y_train, test, y_test, round(seconds, 5)


def _fit(model, X, y, surroundings):
    """Fit, and return what that took."""
    start, of_processor, peak = time.perf_counter(), time.process_time(), peak_memory(surroundings)
    model.fit(X, y)
    cost = {
        "fit_seconds": round(time.perf_counter() - start, 3),
        "fit_processor_seconds": round(time.process_time() - of_processor, 3),
    }
    if peak is not None:
        cost["fit_memory"] = round(peak_memory(surroundings) - peak, 1)
    return cost | _budget(model)


def _budget(model):
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


@cache
def machine(surroundings):
    """Name processor, its vector instructions and cores, GPU and threads."""
    cuda = resolve_device(surroundings.device).type == "cuda"
    return {
        "cpu": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": torch.multiprocessing.cpu_count(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "threads": torch.get_num_threads(),
    }


@cache
def versions():
    """Return the releases of the packages that matter, and the commit of this one."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    with suppress(OSError, subprocess.CalledProcessError):
        changed = _git("status", "--porcelain", "-uno", "--", "sklearn_clce", "benchmarks/accuracy")
        found["commit"] = _git("rev-parse", "--short", "HEAD") + (", changed" if changed else "")
    return found


def _git(*arguments):
    """Return what git says in the repository, if this is one."""
    result = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def _processor():
    with suppress(OSError):
        for row in Path("/proc/cpuinfo").read_text().splitlines():
            if row.startswith("model name"):
                return row.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
