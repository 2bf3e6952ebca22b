"""One run: draw the pictures, train, measure."""

import platform
import subprocess
import time
import warnings
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import Normalizer

from sklearn_clce import BackboneFeatures, few_shot_score
from sklearn_clce._system import resolve_device

from .baselines import make_baseline
from .configuration import FROZEN, OURS
from .few_shot import few_shot
from .kinds import kind
from .metrics import classification_metrics, embedding_metrics
from .models import budget, drawn, make_head, make_model, resized, settings_of, timed_fit
from .multilabel import multilabel
from .pictures import COLLECTIONS, rows_of_each
from .sources import first_of_each
from .transfer import transfer

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "skorch", "numpy", "fastai")
MOST_SHOTS = 40  # those of a head are some of so many, whose features are computed once
N_TIMED = 32  # pictures
N_WAY, N_EPISODES, EPISODE_SHOTS = 5, 300, (1, 5)
NEW_CLASSES, NEW_IMAGES, N_QUERIES = 20, 30, 10  # at most; of each; of each in an episode


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
    x_train, y_train, x_test, y_test = drawn(configuration, surroundings, configuration.shots)
    model = make_model(configuration, surroundings)
    training = timed_fit(model, x_train, y_train, surroundings)
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
        model = make_head(configuration, surroundings)
        embed = model.transform
    else:
        model = make_baseline(configuration.method, configuration.seed)
        embed = Normalizer().fit_transform
    start = time.perf_counter()
    model.fit(train, y_train)
    training = {"fit_seconds": round(time.perf_counter() - start, 3), **budget(model)}
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
    base, y_base, images, labels = resized(
        (base[rows], y_base[rows], images[new_rows], labels[new_rows]), configuration, surroundings
    )
    model = make_model(configuration, surroundings)
    training = timed_fit(model, base, y_base, surroundings)
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


TASKS = {
    "classify": classify,
    "head": head,
    "new_classes": new_classes,
    "few_shot": few_shot,
    "transfer": transfer,
    "multilabel": multilabel,
    "grey_8_bits": kind,
    "grey_16_bits": kind,
    "imbalanced": kind,
    "wrong_labels": kind,
}


@lru_cache(maxsize=1)
def _pictures(configuration, surroundings):
    return drawn(configuration, surroundings, MOST_SHOTS)


@lru_cache(maxsize=2)
def _kept_features(configuration, surroundings, is_ours):
    """Compute what is kept of a draw, and the seconds that a picture takes.

    Our heads keep more than the last features, and are given the images.
    """
    x_train, y_train, x_test, y_test = _pictures(configuration, surroundings)
    if is_ours:
        model = make_head(replace(configuration, method="ce"), surroundings)
        few, _ = first_of_each(y_train, 2)
        nothing_kept = joblib.Memory(None)
        run = model.set_params(memory=nothing_kept).fit(x_train[few], y_train[few]).predict
    else:
        model = BackboneFeatures(
            configuration.backbone, **settings_of(configuration, surroundings)
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
