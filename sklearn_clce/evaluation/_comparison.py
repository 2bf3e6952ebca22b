"""What fine-tuning is worth on one's own images, against a head and a logistic regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from .._labels import encode_labels
from .._system import bar, duration, is_main, own_search, write_line
from .._targets import check_single_label
from .._training import passes_of_fit
from ..backbones import are_several
from ..classifier import CLCEClassifier
from ..features import BackboneFeatures

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "LogisticRegression"
N_TIMED = 16  # images
N_LEAST = 5  # images of a class, or as many as there are folds
NORMAL_95 = 1.96
HEADER = ("", "accuracy", f"minus {REFERENCE}", "log-loss", "fit")


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Accuracy, log-loss and time of several classifiers on the same folds of the same images.

    ``correct`` says by classifier whether each image was predicted right (n_images,),
    ``log_loss`` is the mean over these images, and ``seconds`` holds the time of each fit.
    """

    correct: Mapping[str, np.ndarray]
    log_loss: Mapping[str, float]
    seconds: Mapping[str, list[float]]
    reference: str
    n_given: int

    def lead(self, name: str) -> tuple[float, float]:
        """Return how much more accurate a classifier is than the reference, in points.

        Parameters
        ----------
        name : str
            Name of the classifier.

        Returns
        -------
        tuple of float
            The mean, and half the width of its 95 % interval over the images, which are paired.
        """
        differences = 100 * (self.correct[name].astype(float) - self.correct[self.reference])
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        return float(differences.mean()), float(NORMAL_95 * error)

    def to_frame(self) -> pd.DataFrame:
        """Return the table as a data frame, which needs pandas.

        Returns
        -------
        pandas.DataFrame of n_classifiers rows
            Columns "accuracy", "lead" and "interval" in points, "log_loss" and "seconds" of a fit.
        """
        import pandas

        rows = [self._figures(name) for name in self.correct]
        columns = ("accuracy", "lead", "interval", "log_loss", "seconds")
        return pandas.DataFrame(rows, index=list(self.correct), columns=list(columns))

    def _figures(self, name: str) -> tuple[float, float, float, float, float]:
        seconds = float(np.mean(self.seconds[name]))
        return float(self.correct[name].mean()), *self.lead(name), self.log_loss[name], seconds

    def __repr__(self) -> str:
        rows = [HEADER]
        for name in self.correct:
            accuracy, lead, interval, loss, seconds = self._figures(name)
            points = "" if name == self.reference else f"{lead:+.1f} ± {interval:.1f} points"
            rows.append((name, f"{accuracy:.3f}", points, f"{loss:.2f}", duration(seconds)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        )
        n_images = len(self.correct[self.reference])
        return "\n".join([f"{n_images:,} of {self.n_given:,} images", *lines])


@validate_params(
    {
        "estimator": [CLCEClassifier, None],
        "others": [Mapping, None],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "n_splits": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=False,
)
def compare(
    X: Any,
    y: ArrayLike,
    estimator: CLCEClassifier | None = None,
    *,
    others: Mapping[str, Any] | None = None,
    max_time: float | None = 300.0,
    n_splits: int = 3,
    random_state: int | np.random.RandomState | None = 0,
    verbose: int | bool = 1,
) -> Comparison:
    """Compare fine-tuning, a head and a logistic regression on your own images.

    All are scored on the same folds, so that the differences of their accuracies are paired. The
    comparison takes as many images as fit into ``max_time``: a first run says in some minutes
    whether a long one is worth it.

    Parameters
    ----------
    X : array-like of images
        Images of any kind that :class:`CLCEClassifier` takes.
    y : array-like of shape (n_samples,)
        Labels, one for each image.
    estimator : CLCEClassifier, default=None
        What to fine-tune; None: ``CLCEClassifier()``. The head is the same with
        ``trainable="head"``, and the logistic regression reads features of its backbone.
    others : dict of str to classifier, default=None
        Further classifiers of images, by the names that the table shows.
    max_time : float or None, default=300.0
        Seconds that the comparison may take, by an estimate from a few images. It is longer if the
        fewest images that make sense, five of each class, take longer. None: all images.
    n_splits : int, default=3
        Number of folds.
    random_state : int, RandomState instance or None, default=0
        Seed of the chosen images and of the folds. The estimators have their own.
    verbose : int, default=1
        1 says how many images are compared and how long that takes, and shows the progress. 0
        prints nothing.

    Returns
    -------
    Comparison
        Prints itself as a table; ``to_frame()`` is that table as a data frame.

    Raises
    ------
    ValueError
        If a parameter is out of its range, the estimator reads features, or a class has fewer
        images than there are folds.

    See Also
    --------
    few_shot_score : Accuracy on new classes of which few images are known.

    Notes
    -----
    The interval after ± covers which images were tested, at 95 %, and not which ones were trained
    on: repeat with another ``random_state`` where the difference matters. scikit-learn's
    :func:`~sklearn.model_selection.cross_val_score` scores one classifier in any other way.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_clce import CLCEClassifier, compare
    >>> digits = load_digits(n_class=3)
    >>> clf = CLCEClassifier(image_size=32, max_epochs=1, random_state=0)
    >>> result = compare(digits.images[:45] / 16, digits.target[:45], clf, verbose=0)
    >>> list(result.to_frame().index)
    ['LogisticRegression', 'head', 'fine-tuned']
    """
    check_single_label(y, "the comparison is")
    estimator = CLCEClassifier() if estimator is None else estimator
    classifiers = {**usual_classifiers(estimator), **(others or {})}
    rng = check_random_state(random_state)
    classes, labels = encode_labels(X, y)
    _check_classes(classes, labels, n_splits)
    _check_probabilities(classifiers)
    with bar(what="comparing", shown=bool(verbose) and is_main()):
        chosen = np.arange(len(labels))
        if max_time is not None:
            each = _seconds_of_an_image(X, estimator, classifiers, n_splits)
            chosen = _choose(labels, int(max_time / each), max(n_splits, N_LEAST), rng)
            if verbose and is_main():
                n_images = f"{len(chosen):,} of {len(labels):,} images"
                write_line(f"comparing on {n_images}: about {duration(each * len(chosen))}")
        folds = StratifiedKFold(n_splits, shuffle=True, random_state=rng)
        splits = [
            (chosen[train], chosen[test]) for train, test in folds.split(chosen, labels[chosen])
        ]
        scored = _score_all(classifiers, X, classes[labels], splits)
    return Comparison(
        correct={name: np.concatenate([fold[0] for fold in of]) for name, of in scored.items()},
        log_loss={
            name: float(np.average([fold[1] for fold in of], weights=[len(f[0]) for f in of]))
            for name, of in scored.items()
        },
        seconds={name: [fold[2] for fold in of] for name, of in scored.items()},
        reference=REFERENCE,
        n_given=len(labels),
    )


def _score_all(
    classifiers: Mapping[str, Any], X: Any, y: np.ndarray, splits: list[Any]
) -> dict[str, list[Any]]:
    """Return by classifier what :func:`_score` gives of each split."""
    scored: dict[str, list[Any]] = {name: [] for name in classifiers}
    costs = [passes_of_fit(each) for each in classifiers.values() for _ in splits]
    with own_search(costs) as search:
        for name, classifier in classifiers.items():
            for train, test in splits:
                scored[name].append(_score(classifier, X, y, train, test))
                search.advance()
    return scored


def usual_classifiers(estimator: CLCEClassifier) -> dict[str, Any]:
    """Return a logistic regression on features, a head and the estimator itself, by name."""
    if isinstance(estimator.backbone, str) and estimator.backbone == "precomputed":
        raise ValueError(
            "estimator has backbone='precomputed', which leaves nothing to fine-tune: name a "
            "backbone, and pass images"
        )
    regression = LogisticRegression(max_iter=1000)
    classifiers = {
        REFERENCE: make_pipeline(_features(estimator), regression),
        "head": clone(estimator).set_params(trainable="head"),
    }
    if not are_several(estimator.backbone):  # on which a head alone is trained
        classifiers["fine-tuned"] = estimator
    return classifiers


def _features(estimator: CLCEClassifier) -> BackboneFeatures:
    shared = BackboneFeatures().get_params().keys() & estimator.get_params().keys()
    return BackboneFeatures(**{name: getattr(estimator, name) for name in shared})


def _seconds_of_an_image(
    X: Any, estimator: CLCEClassifier, classifiers: Mapping[str, Any], n_splits: int
) -> float:
    """Estimate what each image adds to a comparison."""
    n_passes = sum((n_splits - 1) * passes_of_fit(each) + 1 for each in classifiers.values())
    n = min(N_TIMED, len(X))
    first = _safe_indexing(X, np.linspace(0, len(X) - 1, n).astype(int))
    return n_passes * _features(estimator)._seconds_per_image(first)


def _choose(labels: np.ndarray, n: int, n_least: int, rng: np.random.RandomState) -> np.ndarray:
    """Choose about n samples, the same share of each class, n_least of each or all: indices."""
    counts = np.bincount(labels)
    wanted = np.maximum(n_least, n * counts // len(labels))
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:n_of_class]
        for label, n_of_class in enumerate(wanted)
    ]
    return np.sort(np.concatenate(chosen))


def _check_classes(classes: np.ndarray, labels: np.ndarray, n_splits: int) -> None:
    """Raise an error unless each fold can hold an image of each class."""
    counts = np.bincount(labels)
    rarest = counts.argmin()
    if counts[rarest] < n_splits:
        raise ValueError(
            f"class {classes[rarest].item()!r} has {counts[rarest]} images, and "
            f"n_splits={n_splits!r} needs one for each fold: add images, or lower n_splits"
        )


def _check_probabilities(classifiers: Mapping[str, Any]) -> None:
    """Raise an error for a classifier without the probabilities that the log-loss needs."""
    for name, classifier in classifiers.items():
        if not hasattr(classifier, "predict_proba"):
            raise TypeError(
                f"others[{name!r}] has no predict_proba, which the log-loss needs; "
                "CalibratedClassifierCV adds it"
            )


def _score(
    classifier: Any, X: Any, y: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Return which samples of a fold are predicted right, their log-loss, and the fit's time."""
    start = monotonic()
    fitted = clone(classifier).fit(_safe_indexing(X, train), y[train])
    seconds = monotonic() - start
    probabilities = fitted.predict_proba(_safe_indexing(X, test))
    correct = fitted.classes_[probabilities.argmax(axis=1)] == y[test]
    return correct, log_loss(y[test], probabilities, labels=fitted.classes_), seconds
