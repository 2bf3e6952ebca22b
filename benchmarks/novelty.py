"""How well scores tell pictures of unknown classes from those of known ones.

For each set of photographs a third of the classes is left out of training. Printed is the area
under the ROC curve (0.5 is chance, 1 perfect) on test pictures, trained with cross-entropy alone
and with CLCE, for ``score_samples`` and what might stand in its place; then what a threshold that
is to keep 95 % of the known pictures does, set from training pictures and from others.

Run ``python -m benchmarks.novelty --data FOLDER --features FOLDER`` for a frozen backbone, and
``--data FOLDER --trained --pictures 15 --draws 1`` for one that trains, which takes a minute or two
for each set, draw, number of pictures and criterion.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from sklearn.covariance import shrunk_covariance
from sklearn.metrics import roc_auc_score

from sklearn_clce import BackboneFeatures, CLCEClassifier

from .photographs import draw_classes, draw_pictures, parser, photographs
from .tables import Table, text

PICTURES = (15, 50)
WEIGHTS = {"CE": 0.0, "CLCE": 0.5}
SHRINKAGE = 0.1  # of the covariance; 0.5 and 0.9 are alike or behind


def scores_of(clf: CLCEClassifier, X: np.ndarray, y: np.ndarray, of: np.ndarray) -> dict:
    """Return scores of pictures by name; X, y are what the classifier was trained on."""
    logits = clf.decision_function(of).astype(float)  # of three classes at least
    found = {
        "score_samples": clf.score_samples(of),
        "energy": logsumexp(logits, axis=1),
        "maximum logit": logits.max(axis=1),
        "maximum softmax": softmax(logits, axis=1).max(axis=1),
    }
    if clf.trainable == "head":
        backbone = BackboneFeatures(clf.module_.backbone, memory=clf.memory)
        standardize = clf.module_.head.standardize
        train, other = (
            _unit(standardize(torch.from_numpy(backbone.fit_transform(part))).numpy())
            for part in (X, of)
        )
        found |= _distances("features", train, y, other)
    return found | _distances("embedding", clf.transform(X), y, clf.transform(of))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _distances(what: str, train: np.ndarray, y: np.ndarray, other: np.ndarray) -> dict:
    """Return minus distances to class means, to them by the covariance, and to neighbours."""
    train, other = train.astype(float), other.astype(float)
    classes, codes = np.unique(y, return_inverse=True)
    means = np.stack([train[y == label].mean(axis=0) for label in classes])
    deviations = train - means[codes]
    covariance = shrunk_covariance(deviations.T @ deviations / len(train), SHRINKAGE)
    root = np.linalg.cholesky(covariance)
    whitened = [np.linalg.solve(root, rows.T).T for rows in (other, means)]
    return {
        f"class means, {what}": -_squares(other, means).min(axis=1),
        f"Mahalanobis, {what}": -_squares(*whitened).min(axis=1),
        f"neighbour, {what}": -_squares(other, train).min(axis=1),
    }


def _squares(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * rows @ others.T


def measure(
    clf: CLCEClassifier, X: np.ndarray, y: np.ndarray, train: np.ndarray, n_pictures: int
) -> tuple[dict[str, float], np.ndarray]:
    """Return the area of each score, and what thresholds keep of known and unknown pictures."""
    seed = clf.random_state
    known, _ = draw_classes(y, seed)
    rows = draw_pictures(y, train, known, n_pictures, seed)
    clf.fit(X[rows], y[rows])
    test = np.random.default_rng(seed).permutation(np.flatnonzero(~train))
    is_known = np.isin(y[test], known)
    scores = scores_of(clf, X[rows], y[rows], X[test])
    areas = {name: roc_auc_score(is_known, score) for name, score in scores.items()}
    others, half = test[is_known], is_known.sum() // 2
    likeness = scores["score_samples"]
    parts = (likeness[is_known][half:], likeness[~is_known])
    kept = []
    for calibration in (rows, others[:half]):
        clf.calibrate_offset(X[calibration])
        kept += [(part > clf.offset_).mean() for part in parts]
    return areas, np.array(kept)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__, may_train=True)
    arguments.add_argument("--pictures", nargs="+", type=int, default=PICTURES, help="of a class")
    options = arguments.parse_args()
    data = {name: photographs(name, options.data) for name in options.sets}
    frozen = {} if options.trained else {"trainable": "head", "memory": options.features}
    for n_pictures in options.pictures:
        for criterion, weight in WEIGHTS.items():
            areas, kept = {}, {}
            for name, arrays in data.items():
                draws = [
                    measure(
                        CLCEClassifier(**frozen, weight=weight, random_state=seed),
                        *arrays,
                        n_pictures,
                    )
                    for seed in range(options.draws)
                ]
                kept[name] = np.mean([draw[1] for draw in draws], axis=0)
                for score in draws[0][0]:
                    area = np.mean([draw[0][score] for draw in draws])
                    areas.setdefault(score, []).append(area)
            title = f"{criterion}, {n_pictures} pictures of a class: area under the ROC curve"
            best = sorted(areas, key=lambda score: -np.mean(areas[score]))
            rows = [[s, *(f"{a:.3f}" for a in [*areas[s], np.mean(areas[s])])] for s in best]
            print(text(Table(title, ["score", *data, "mean"], rows)))
            title = "kept, of known and unknown, in percent; by training pictures, and by others"
            mean = np.mean(list(kept.values()), axis=0)
            rows = [[n, *(f"{100 * k:.0f}" for k in v)] for n, v in [*kept.items(), ("mean", mean)]]
            print(text(Table(title, ["set", "known", "unknown", "known", "unknown"], rows)))
            print(flush=True)


if __name__ == "__main__":
    main()
