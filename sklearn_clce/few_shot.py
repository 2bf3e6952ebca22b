"""N-way K-shot episodes: how well a classifier learns new classes from few images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from sklearn.base import clone
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, validate_params
from sklearn.utils.parallel import Parallel, delayed

from ._checks import to_numpy
from ._targets import encode_labels
from .classifier import CLCEClassifier
from .data import is_on_disk
from .features import BackboneFeatures, FeatureStore

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False, repr=False)
class FewShotScore:
    """Accuracies of episodes.

    Parameters
    ----------
    scores : ndarray of shape (n_episodes,)
        Accuracy on the query images of each episode.
    n_way : int
        Classes in an episode.
    k_shot : int
        Support images of each class.
    """

    scores: np.ndarray
    n_way: int
    k_shot: int

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(self.scores.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Low and high end of the 95 % interval of the mean, after Student's t."""
        n = len(self.scores)
        error = self.scores.std(ddof=1) / np.sqrt(n)
        half = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * error
        return float(self.mean - half), float(self.mean + half)

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"FewShotScore(mean={self.mean:.4f}, interval=({low:.4f}, {high:.4f}), "
            f"{self.n_way}-way {self.k_shot}-shot, {len(self.scores)} episodes)"
        )


@validate_params(
    {
        "estimator": [HasMethods(["fit", "predict", "get_params"])],
        "n_way": [Interval(Integral, 2, None, closed="left")],
        "k_shot": [Interval(Integral, 1, None, closed="left")],
        "n_queries": [Interval(Integral, 1, None, closed="left")],
        "n_episodes": [Interval(Integral, 2, None, closed="left")],
        "classes": ["array-like", None],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    },
    prefer_skip_nested_validation=True,
)
def few_shot_score(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    *,
    n_way: int = 5,
    k_shot: int = 1,
    n_queries: int = 15,
    n_episodes: int = 100,
    classes: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
) -> FewShotScore:
    """Score a classifier on N-way K-shot episodes.

    For each episode ``n_way`` classes are drawn, and ``k_shot`` support and
    ``n_queries`` query images of each. A clone of the classifier is fitted on the
    support images, and its accuracy on the query images is the score. The episodes
    depend on ``random_state`` alone, so that several classifiers meet the same ones and
    the differences of their scores are paired.

    Parameters
    ----------
    estimator : classifier
        Any classifier of scikit-learn's kind, such as :class:`CLCEClassifier` or a
        pipeline that begins with :class:`BackboneFeatures`. It is not changed.
    X : array-like of images, or of shape (n_samples, n_features)
        Whatever the estimator takes.
    y : array-like of shape (n_samples,)
        Labels.
    n_way : int, default=5
        Classes in an episode, at least 2.
    k_shot : int, default=1
        Support images of each class.
    n_queries : int, default=15
        Query images of each class.
    n_episodes : int, default=100
        Number of episodes, at least 2.
    classes : array-like of shape (n_classes,), default=None
        Labels that episodes are drawn from, such as the test classes of a split of
        classes; None takes all in y.
    random_state : int, RandomState instance or None, default=None
        Seed of the episodes. What the estimator draws depends on its own.
    n_jobs : int, default=None
        Processes that share the episodes, as in scikit-learn.

    Returns
    -------
    FewShotScore
        With ``scores``, the accuracy of each episode, their ``mean``, and ``interval``,
        the low and high end of its 95 % interval.

    Raises
    ------
    ValueError
        If a parameter is out of its range, ``classes`` holds a label that is not in y,
        or there are too few classes, or images of one.

    See Also
    --------
    CLCEClassifier : The classifier of this package.
    BackboneFeatures : Features of a frozen backbone, for any other classifier.

    Notes
    -----
    A frozen backbone runs once for each image, whatever the number of episodes: a
    :class:`BackboneFeatures` or :class:`CLCEClassifier` in the estimator whose
    ``memory`` is None keeps features in a temporary folder until the score is there.
    With ``n_jobs`` above 1 an image that two processes meet at the same moment may be
    embedded by both.

    With ``k_shot=1`` no image has a positive, so the contrastive term does nothing
    unless ``CLCEClassifier(n_views=2)`` makes two of it.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_clce import few_shot_score
    >>> X, y = load_digits(return_X_y=True)
    >>> score = few_shot_score(KNeighborsClassifier(1), X, y, k_shot=5, random_state=0)
    >>> score.scores.shape
    (100,)
    >>> low, high = score.interval
    >>> print(f"{score.mean:.2f}, between {low:.2f} and {high:.2f}")
    0.92, between 0.91 and 0.93
    """
    indices_by_class = _indices_by_class(X, y, classes)
    if len(indices_by_class) < n_way:
        raise ValueError(
            f"n_way={n_way!r}: there are {len(indices_by_class)} classes to draw from; a smaller "
            "n_way, or more classes, are required"
        )
    for label, indices in indices_by_class.items():
        if len(indices) < k_shot + n_queries:
            raise ValueError(
                f"class {label!r} has {len(indices)} images, but k_shot={k_shot!r} and "
                f"n_queries={n_queries!r} take {k_shot + n_queries}; lower n_queries, or leave it "
                "out of classes"
            )
    seeds = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=n_episodes)
    y = np.asarray(to_numpy(y)).ravel()
    with _keeping_features(estimator) as keeper:
        scores = Parallel(n_jobs=n_jobs)(
            delayed(_episode_score)(
                keeper,
                X,
                y,
                *draw_episode(list(indices_by_class.values()), n_way, k_shot, n_queries, seed),
            )
            for seed in seeds
        )
    return FewShotScore(np.array(scores), n_way, k_shot)


def draw_episode(
    indices_by_class: list[np.ndarray], n_way: int, k_shot: int, n_queries: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw indices of ``k_shot`` support and ``n_queries`` other samples of ``n_way`` classes."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(indices_by_class), n_way, replace=False)
    indices = np.stack(
        [rng.choice(indices_by_class[i], k_shot + n_queries, replace=False) for i in chosen]
    )  # (n_way, k_shot + n_queries)
    return indices[:, :k_shot].ravel(), indices[:, k_shot:].ravel()


def _indices_by_class(X: Any, y: Any, classes: Any) -> dict[Any, np.ndarray]:
    """Return the indices of each label that episodes are drawn from."""
    known, codes = encode_labels(X, y)
    wanted = known if classes is None else np.unique(classes)
    unknown = np.setdiff1d(wanted, known)
    if len(unknown):
        raise ValueError(f"classes holds labels that are not in y: {unknown.tolist()[:5]!r}")
    position = {label: code for code, label in enumerate(known.tolist())}
    return {label: np.flatnonzero(codes == position[label]) for label in wanted.tolist()}


def _episode_score(
    estimator: Any, X: Any, y: np.ndarray, support: np.ndarray, queries: np.ndarray
) -> float:
    fitted = clone(estimator).fit(_rows(X, support), y[support])
    return float(np.mean(fitted.predict(_rows(X, queries)) == y[queries]))


def _rows(X: Any, indices: np.ndarray) -> Any:
    """Take rows; an array on disk gives them in their own order alone."""
    if not is_on_disk(X):
        return _safe_indexing(X, indices)
    order = np.argsort(indices)
    return X[indices[order]][np.argsort(order)]


@contextmanager
def _keeping_features(estimator: Any) -> Iterator[Any]:
    """Give what embeds images in an estimator a store, where it has none."""
    parts = {"": estimator, **estimator.get_params(deep=True)}
    names = [
        f"{name}__memory".removeprefix("__")
        for name, part in parts.items()
        if isinstance(part, (BackboneFeatures, CLCEClassifier)) and part.memory is None
    ]
    with tempfile.TemporaryDirectory() if names else nullcontext() as folder:
        store = FeatureStore(folder) if folder is not None else None
        yield clone(estimator).set_params(**dict.fromkeys(names, store)) if names else estimator
