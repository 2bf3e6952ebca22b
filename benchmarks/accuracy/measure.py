"""One run: draw the pictures, train, measure."""

import platform
import subprocess
import time
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from skorch.callbacks import Callback

from sklearn_clce import BackboneFeatures, CLCEClassifier, few_shot_score
from sklearn_clce._validation import resolve_device
from sklearn_clce.backbones import frozen_backbone

from .depthwise import fast_depthwise
from .metrics import classification_metrics, embedding_metrics
from .pictures import COLLECTIONS, draw, resize_once, rows_of_each

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "skorch", "numpy")
WEIGHT_FILES = {"vit_tiny": "vit_tiny_patch16_224.fp16.safetensors"}
TRAINING = (
    "backbone",
    "trainable",
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
N_WAY, BASE_SHOTS = 5, (1, 5)


@dataclass(frozen=True)
class Surroundings:
    """What a run needs that its numbers do not depend on.

    Parameters
    ----------
    data, weights : path or None
        Folders of data and of weights.
    features : path or None
        Folder in which frozen features are kept between runs.
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
    """Do one run.

    Parameters
    ----------
    configuration : Configuration
        What to run.
    surroundings : Surroundings
        Where.

    Returns
    -------
    dict
        A line of the results: configuration, metrics, seconds, memory, machine. A run
        that fails has an ``error`` instead of metrics.
    """
    if surroundings.threads:
        torch.set_num_threads(surroundings.threads)
    line = {"configuration": asdict(configuration)}
    start = time.perf_counter()
    with fast_depthwise(), warnings.catch_warnings(record=True) as caught:
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
    x_train, y_train, x_test, y_test = _resized(
        draw(
            COLLECTIONS[configuration.data],
            n_classes=configuration.n_classes,
            shots=configuration.shots,
            seed=configuration.seed,
            folder=surroundings.data,
        ),
        configuration,
        surroundings,
    )
    model, training = _fitted(configuration, surroundings, x_train, y_train)
    embeddings = [_embed(model, images) for images in (x_train, x_test)]
    metrics = classification_metrics(model.classes_, y_test, model.predict_proba(x_test))
    metrics |= embedding_metrics(embeddings[0], y_train, embeddings[1], y_test)
    return {"metrics": metrics, **training, "images": [len(x_train), len(x_test)]}


def episodes(configuration, surroundings):
    """Fit on the support images of episodes of new classes."""
    *_, images, labels = _resized(
        COLLECTIONS[configuration.data].load(surroundings.data), configuration, surroundings
    )
    start, peak = time.perf_counter(), peak_memory(surroundings)
    score = few_shot_score(
        make_model(configuration, surroundings),
        images,
        labels,
        n_way=configuration.n_classes,
        k_shot=configuration.shots,
        n_episodes=configuration.episodes,
        random_state=configuration.seed,
    )
    return {"metrics": {"accuracy": score.mean}, **_cost(start, peak, surroundings)}


def base(configuration, surroundings):
    """Train on base classes, then learn new classes from a few embeddings of them."""
    x_base, y_base, *novel = COLLECTIONS[configuration.data].load(surroundings.data)
    rows = rows_of_each(y_base, np.unique(y_base), configuration.shots, configuration.seed)
    x_base, y_base, images, labels = _resized(
        (x_base[rows], y_base[rows], *novel), configuration, surroundings
    )
    model, training = _fitted(configuration, surroundings, x_base, y_base)
    embeddings = _embed(model, images)
    learners = {
        "accuracy": LogisticRegression(max_iter=1000),
        "class_mean_accuracy": NearestCentroid(),
    }
    metrics = {
        f"{name}_{k_shot}_shot": few_shot_score(
            learner,
            embeddings,
            labels,
            n_way=N_WAY,
            k_shot=k_shot,
            n_episodes=configuration.episodes,
            random_state=configuration.seed,
        ).mean
        for name, learner in learners.items()
        for k_shot in BASE_SHOTS
    }
    return {"metrics": metrics, **training}


TASKS = {"classify": classify, "episodes": episodes, "base": base}


class RandomClassifier(Callback):
    """Let the classifier start as torch initialises it."""

    def on_train_begin(self, net, **kwargs):
        """Draw its weights."""
        net.module_.classifier.reset_parameters()


def make_model(configuration, surroundings):
    """Make the classifier of a configuration.

    Parameters
    ----------
    configuration : Configuration
        What to run.
    surroundings : Surroundings
        Where.

    Returns
    -------
    classifier
        ``CLCEClassifier``, or logistic regression on frozen features.
    """
    common = {
        "pretrained": pretrained(configuration, surroundings),
        "image_size": configuration.image_size,
        "device": surroundings.device,
        "memory": surroundings.features,
    }
    if configuration.method == "logistic":
        features = BackboneFeatures(configuration.backbone, **common)
        return make_pipeline(features, StandardScaler(), LogisticRegression(max_iter=1000))
    settings = {name: getattr(configuration, name) for name in TRAINING}
    given = {name: value for name, value in settings.items() if value is not None}
    if configuration.projection_dim is None:
        given["projection_dim"] = None
    if configuration.classifier == "random":
        given["callbacks"] = [RandomClassifier()]
    return CLCEClassifier(random_state=configuration.seed, **common, **given)


def pretrained(configuration, surroundings):
    """Say where the weights of a backbone are: in the folder of weights if it has them.

    Parameters
    ----------
    configuration : Configuration
        What to run.
    surroundings : Surroundings
        Where.

    Returns
    -------
    bool or str
        As ``pretrained`` of ``CLCEClassifier``.
    """
    name = WEIGHT_FILES.get(configuration.backbone)
    if name is None or surroundings.weights is None:
        return True
    return str(Path(surroundings.weights) / name)


def peak_memory(surroundings):
    """Measure the most memory that was ever in use, of the GPU if there is one.

    Parameters
    ----------
    surroundings : Surroundings
        Where the run is.

    Returns
    -------
    float or None
        MiB; None where the system does not tell.
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
    """Name the machine.

    Parameters
    ----------
    surroundings : Surroundings
        Where the run is.

    Returns
    -------
    dict
        Processor, its vector instructions and cores, GPU and threads.
    """
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
    """Return the releases of the packages that matter, and the commit of this one.

    Returns
    -------
    dict of str to str
        Release by name.
    """
    found = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
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


def _resized(parts, configuration, surroundings):
    config = frozen_backbone(
        configuration.backbone,
        pretrained=pretrained(configuration, surroundings),
        image_size=configuration.image_size,
    ).config
    x_train, y_train, x_test, y_test = parts
    return resize_once(x_train, config), y_train, resize_once(x_test, config), y_test


def _fitted(configuration, surroundings, X, y):
    start, peak = time.perf_counter(), peak_memory(surroundings)
    model = make_model(configuration, surroundings).fit(X, y)
    return model, _cost(start, peak, surroundings)


def _cost(start, peak, surroundings):
    cost = {"fit_seconds": round(time.perf_counter() - start, 3)}
    if peak is not None:
        cost["fit_memory"] = round(peak_memory(surroundings) - peak, 1)
    return cost


def _embed(model, images):
    """Return L2-normalised embeddings; of a pipeline those are its standardised features."""
    if isinstance(model, CLCEClassifier):
        return model.transform(images)
    return Normalizer().fit_transform(model[:-1].transform(images)).astype(np.float32)
