"""What training a head is worth: everything that a head gives, by the number of its epochs.

From each set of pictures a third of the classes is left out. A head learns the others from a few
pictures of each; 0 epochs is its closed form. Measured on test pictures are

- ``accuracy`` and ``log_loss`` among the classes that it has learned;
- ``recall_at_1`` and ``class_mean`` of the embedding: the nearest other picture, and the nearest
  mean of a class, have the right label;
- ``new_recall_at_1``, ``new_1_shot`` and ``new_5_shot``: the same among the classes that were left
  out, whose means are those of so many pictures of each;
- ``novelty`` (of ``score_samples``) and ``novelty_neighbour`` (distance to the nearest training
  embedding): the area under the ROC curve of learned against left out classes.

Run ``python -m benchmarks.head_epochs run --data FOLDER --weights FOLDER``, which adds a line to
``benchmarks/results/head_epochs.jsonl`` for each set, backbone, seed and number of pictures that
has none, and ``python -m benchmarks.head_epochs report``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from sklearn_clce import CLCEClassifier
from sklearn_clce.backbones import frozen_backbone
from sklearn_clce.data import as_images
from sklearn_clce.features import features_of, process_store

from .accuracy.configuration import Configuration, configure
from .accuracy.frames import estimate
from .accuracy.groups import LITE0, SETS, VIT_TINY
from .accuracy.measure import machine, versions
from .accuracy.metrics import classification_metrics, embedding_metrics
from .accuracy.models import Surroundings, pretrained
from .accuracy.pictures import COLLECTIONS, draw, resize_once
from .accuracy.results import append, read_lines
from .accuracy.sources import first_of_each
from .photographs import draw_classes
from .tables import Table, text

RESULTS = Path(__file__).parent / "results" / "head_epochs.jsonl"
N_CLASSES = 7  # of which two or three are left out
PLACE = ("data", "backbone", "seed", "n_classes", "shots")  # what distinguishes lines
SHOTS = (2, 5, 15, 40)
EPOCHS = (0, 1, 2, 5, 20)
N_SUPPORTS = 20  # random choices of the pictures that the means of new classes come from
FEATURES = "features"  # as the embedding
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "weight=0": {"weight": 0.0},
    "weight=0.9": {"weight": 0.9},
    "temperature=0.1": {"temperature": 0.1},
    "weight=0.9, temperature=0.1": {"weight": 0.9, "temperature": 0.1},
}
HIGHER = ("accuracy", "recall_at_1", "class_mean", "new_recall_at_1", "new_1_shot", "new_5_shot")
METRICS = ("accuracy", "log_loss", *HIGHER[1:], "novelty", "novelty_neighbour")


def fits() -> Iterator[tuple[str, int]]:
    """Yield settings and epochs of all fits."""
    for setting in SETTINGS:
        for epochs in EPOCHS if setting == "default" else EPOCHS[-1:]:
            yield setting, epochs
    yield FEATURES, 0


def make_head(run: Configuration, surroundings: Surroundings, setting: str, epochs: int) -> Any:
    """Make a head; without epochs it takes a step of no length."""
    schedule = {"max_epochs": epochs} if epochs else {"max_epochs": 1, "learning_rate": 1e-30}
    return CLCEClassifier(
        run.backbone,
        trainable="head",
        pretrained=pretrained(run, surroundings),
        random_state=run.seed,
        **schedule,
        **SETTINGS.get(setting, {"projection_dim": None}),
    )


class Drawn:
    """Pictures of known and of new classes, and their features."""

    def __init__(self, run: Configuration, surroundings: Surroundings) -> None:
        backbone = frozen_backbone(
            run.backbone, pretrained=pretrained(run, surroundings), lower_blocks=True
        )
        parts = draw(
            COLLECTIONS[run.data],
            n_classes=run.n_classes,
            shots=run.shots,
            seed=run.seed,
            folder=surroundings.data,
        )
        self.images, self.y, test, self.y_test = parts
        known, _ = draw_classes(self.y, run.seed)
        self.is_known, self.is_known_test = (
            np.isin(labels, known) for labels in (self.y, self.y_test)
        )
        self.images, test = (
            _colour(resize_once(part, backbone.config)) for part in (self.images, test)
        )
        self.features, self.test = (
            features_of(as_images(part), backbone, store=process_store)
            for part in (self.images, test)
        )


def _colour(images: np.ndarray) -> np.ndarray:
    return images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)


def outputs(clf: CLCEClassifier, features: torch.Tensor) -> tuple[np.ndarray, ...]:
    """Return probabilities, embeddings of length 1 and scores of novelty."""
    head = clf.module_.eval().head
    with torch.inference_mode():
        inputs, embeddings = head.inputs(features)
        logits = head.classifier(inputs)
        novelty = head.novelty_scores(inputs, logits)
    unit = torch.nn.functional.normalize(embeddings)
    return logits.softmax(dim=1).numpy(), unit.numpy(), novelty.numpy()


def metrics_of(clf: CLCEClassifier, drawn: Drawn, train: np.ndarray) -> dict[str, float]:
    """Measure a head that has learned the pictures ``train``."""
    probabilities, embeddings, novelty = outputs(clf, drawn.test)
    _, of_pictures, _ = outputs(clf, drawn.features)
    known, new = drawn.is_known_test, ~drawn.is_known_test
    found = classification_metrics(clf.classes_, drawn.y_test[known], probabilities[known])
    of_known = embedding_metrics(
        of_pictures[train], drawn.y[train], embeddings[known], drawn.y_test[known]
    )
    found |= {
        "recall_at_1": of_known["recall_at_1"],
        "class_mean": of_known["class_mean_accuracy"],
        "novelty": roc_auc_score(known, novelty),
        "novelty_neighbour": roc_auc_score(known, -_distances(of_pictures[train], embeddings)),
    }
    if len(np.unique(drawn.y_test[new])) > 1:
        supports = of_pictures[~drawn.is_known], drawn.y[~drawn.is_known]
        found |= _new_classes(*supports, embeddings[new], drawn.y_test[new])
    return {name: float(found[name]) for name in METRICS if name in found}


def _distances(embeddings: np.ndarray, of: np.ndarray) -> np.ndarray:
    return NearestNeighbors(n_neighbors=1).fit(embeddings).kneighbors(of)[0][:, 0]


def _new_classes(
    supports: np.ndarray, y: np.ndarray, embeddings: np.ndarray, y_test: np.ndarray
) -> dict[str, float]:
    """Measure embeddings of classes that were not learned."""
    nearest = NearestNeighbors(n_neighbors=1).fit(embeddings).kneighbors(return_distance=False)
    found = {"new_recall_at_1": np.mean(y_test[nearest[:, 0]] == y_test)}
    for n_shots in (1, 5):
        rng, right = np.random.default_rng(0), []
        for _ in range(N_SUPPORTS):
            order = rng.permutation(len(y))
            few, _ = first_of_each(y[order], n_shots)
            chosen = order[few]
            of = embedding_metrics(supports[chosen], y[chosen], embeddings, y_test)
            right.append(of["class_mean_accuracy"])
        found[f"new_{n_shots}_shot"] = np.mean(right)
    return found


def measure(run: Configuration, drawn: Drawn, surroundings: Surroundings) -> dict[str, Any]:
    """Do all fits of a number of pictures of each class."""
    few, _ = first_of_each(drawn.y, run.shots)
    train = few[drawn.is_known[few]]
    lines = []
    for setting, epochs in fits():
        clf = make_head(run, surroundings, setting, epochs)
        start = time.process_time()
        clf.fit(drawn.images[train], drawn.y[train])
        seconds = time.process_time() - start
        lines.append(
            {
                "setting": setting,
                "epochs": epochs,
                "fit_processor_seconds": round(seconds, 3),
                "metrics": metrics_of(clf, drawn, train),
            }
        )
    return {
        **place_of(run),
        "images": len(train),
        "fits": lines,
        "machine": machine(surroundings),
        "versions": versions(),
    }


def place_of(run: Configuration) -> dict[str, Any]:
    """Return what distinguishes a line from others."""
    return {name: getattr(run, name) for name in PLACE}


def run_missing(options: argparse.Namespace) -> None:
    """Measure what has no line yet, and add its lines."""
    torch.set_num_threads(1)
    surroundings = Surroundings(data=options.data, weights=options.weights, device="cpu", threads=1)
    done = [{name: line[name] for name in PLACE} for line in read_lines(options.results)]
    for seed, backbone, data in product(range(options.draws), options.backbones, options.sets):
        runs = [
            configure(
                data=data,
                task="head",
                backbone=backbone,
                n_classes=options.classes,
                shots=n,
                seed=seed,
            )
            for n in sorted(options.shots)  # whose most are drawn
        ]
        missing = [run for run in runs if place_of(run) not in done]
        if missing:
            start = time.monotonic()
            process_store.clear()
            drawn = Drawn(missing[-1], surroundings)
            for run in missing:
                append(options.results, measure(run, drawn, surroundings))
            print(f"{data} {backbone} {seed=}: {time.monotonic() - start:.0f} s", flush=True)


def report(options: argparse.Namespace) -> None:
    """Print means over sets and draws, by pictures of a class."""
    lines = read_lines(options.results)
    groups: dict[tuple[str, bool, int], list[dict[str, Any]]] = {}
    for line in lines:
        has_many = line["n_classes"] > N_CLASSES
        groups.setdefault((line["backbone"], has_many, line["shots"]), []).append(line)
    for (backbone, has_many, n), chosen in sorted(groups.items()):
        classes = ", many classes" if has_many else ""
        print(text(table(chosen, f"{backbone}, {n} pictures of a class{classes}")), "\n")


def table(lines: list[dict[str, Any]], title: str) -> Table:
    """Compare all fits with the closed form: means over sets of the differences."""
    rows = []
    for setting, epochs in fits():
        cells = [_cell(lines, name, (setting, epochs)) for name in METRICS]
        rows.append([f"{setting}, {epochs} epochs", *cells, _seconds(lines, (setting, epochs))])
    n_sets = len({line["data"] for line in lines})
    return Table(f"{title}, {n_sets} sets", ["", *METRICS, "seconds"], rows)


def _cell(lines: list[dict[str, Any]], name: str, fit: tuple[str, int]) -> str:
    """Write a mean and, of others than the closed form, the difference to that."""
    values, starts = (_by_set(lines, name, one) for one in (fit, ("default", 0)))
    if fit == ("default", 0):
        return f"{values.mean():.3f}"
    difference = values - starts
    if name == "log_loss":
        return f"{difference.mean():+.3f}"
    return f"{estimate(100 * difference)}"


def _by_set(lines: list[dict[str, Any]], name: str, fit: tuple[str, int]) -> np.ndarray:
    """Return the mean of a metric over the draws of each set that has it."""
    of_sets: dict[str, list[float]] = {}
    for line in lines:
        for one in line["fits"]:
            if (one["setting"], one["epochs"]) == fit and name in one["metrics"]:
                of_sets.setdefault(line["data"], []).append(one["metrics"][name])
    return np.array([np.mean(values) for values in of_sets.values()])


def _seconds(lines: list[dict[str, Any]], fit: tuple[str, int]) -> str:
    seconds = [
        one["fit_processor_seconds"]
        for line in lines
        for one in line["fits"]
        if (one["setting"], one["epochs"]) == fit
    ]
    return f"{np.median(seconds):.2f}"


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    actions = parser.add_subparsers(required=True)
    run = actions.add_parser("run", help="measure what is missing")
    run.set_defaults(action=run_missing)
    run.add_argument("--data", help="folder of the npz files of pictures")
    run.add_argument("--weights", help="folder of weights; default: timm's own sources")
    run.add_argument("--draws", type=int, default=2)
    run.add_argument("--sets", nargs="+", choices=COLLECTIONS, default=SETS)
    run.add_argument("--backbones", nargs="+", default=(LITE0, VIT_TINY))
    run.add_argument("--classes", type=int, default=N_CLASSES, help="a third is left out")
    run.add_argument("--shots", nargs="+", type=int, default=SHOTS)
    actions.add_parser("report", help="print tables").set_defaults(action=report)
    options = parser.parse_args(arguments)
    options.action(options)


if __name__ == "__main__":
    main()
