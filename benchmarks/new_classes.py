"""What ``add_classes`` loses of the old classes, and gains of the new, against training again.

For each set of photographs a third of the classes comes later, with a few pictures of each; the
others are trained on 50. Printed are accuracies on test pictures of the old classes, of the new
ones, and the mean over all classes, in percent. Training again has the old pictures, too.

Run ``python -m benchmarks.new_classes --data FOLDER --features FOLDER``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sklearn_clce import CLCEClassifier

from .photographs import draw_classes, draw_pictures, parser, photographs
from .tables import Table, text

OLD_PICTURES = 50
NEW_PICTURES = (1, 5, 15)
WAYS = ("before", "add_classes", "again", "again, balanced")


def accuracies(clf: CLCEClassifier, X: np.ndarray, y: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Return accuracy on old classes, on new ones, and its mean over classes."""
    right = clf.predict(X) == y
    is_old = np.isin(y, old)
    new = right[~is_old].mean() if not is_old.all() else np.nan
    return np.array([right[is_old].mean(), new, np.mean([right[y == c].mean() for c in set(y)])])


def measure(
    X: np.ndarray, y: np.ndarray, train: np.ndarray, seed: int, n_new: int, memory: Path
) -> dict[str, np.ndarray]:
    """Fit on old classes, and let new ones come in each way."""
    old, new = draw_classes(y, seed)
    first = draw_pictures(y, train, old, OLD_PICTURES, seed)
    later = draw_pictures(y, train, new, n_new, seed)
    both = np.concatenate([first, later])
    test = np.flatnonzero(~train)
    old_test = test[np.isin(y[test], old)]
    head = {"trainable": "head", "memory": memory, "random_state": seed}
    clf = CLCEClassifier(**head).fit(X[first], y[first])
    found = {"before": accuracies(clf, X[old_test], y[old_test], old)}
    clf.add_classes(X[later], y[later])
    found["add_classes"] = accuracies(clf, X[test], y[test], old)
    for way, weights in (("again", None), ("again, balanced", "balanced")):
        clf = CLCEClassifier(**head, class_weight=weights)
        found[way] = accuracies(clf.fit(X[both], y[both]), X[test], y[test], old)
    return found


def main() -> None:
    """Measure and print."""
    options = parser(__doc__).parse_args()
    for n_new in NEW_PICTURES:
        rows, of_sets = [], []
        for name in options.sets:
            data = photographs(name, options.data)
            draws = [measure(*data, seed, n_new, options.features) for seed in range(options.draws)]
            of_sets.append({way: np.mean([draw[way] for draw in draws], axis=0) for way in WAYS})
            rows.append(_row(name, of_sets[-1]))
        mean = {way: np.mean([found[way] for found in of_sets], axis=0) for way in WAYS}
        header = ["set", "before", *(f"{way}: old / new / mean" for way in WAYS[1:])]
        title = f"{n_new} pictures of a new class, {OLD_PICTURES} of an old one"
        print(text(Table(title, header, [*rows, _row("mean", mean)])), flush=True)


def _row(name: str, found: dict[str, np.ndarray]) -> list[str]:
    cells = [" / ".join(f"{100 * value:.1f}" for value in found[way]) for way in WAYS[1:]]
    return [name, f"{100 * found['before'][0]:.1f}", *cells]


if __name__ == "__main__":
    main()
