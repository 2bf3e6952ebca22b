"""N-way K-shot episodes: how well a classifier learns new classes from few images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from sklearn.base import clone
from sklearn.model_selection import BaseShuffleSplit
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, validate_params
from sklearn.utils.parallel import Parallel, delayed

from .._labels import N_SHOWN, as_labels, encode_labels, find_labels
from .._targets import check_single_label
from ..classifier import CLCEClassifier
from ..data import is_on_disk
from ..features import BackboneFeatures, FeatureStore

CONFIDENCE = 0.95


class EpisodeSplit(BaseShuffleSplit):
    """Splitter for N-way K-shot episodes, the ``cv`` of scikit-learn's model selection.

    Each split is an episode with ``n_way`` classes, chosen at random: ``k_shot`` support images of
    each to train on, and ``n_queries`` other images to test on.

    Parameters
    ----------
    n_way : int, default=5
        Classes in an episode, at least 2.
    k_shot : int, default=1
        Support images of each class.
    n_queries : int, default=15
        Query images of each class.
    n_episodes : int, default=100
        Number of episodes, at least 2.
    classes : array-like of shape (n_classes,), default=None
        Labels to draw from, such as the test classes of a split of classes; None takes all in y.
    random_state : int, RandomState instance or None, default=None
        Seed of the episodes.

    See Also
    --------
    few_shot_score : Mean accuracy with its interval; a frozen backbone runs once for each image.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_clce import EpisodeSplit
    >>> X, y = load_digits(return_X_y=True)
    >>> cross_val_score(KNeighborsClassifier(1), X, y, cv=EpisodeSplit(random_state=0)).shape
    (100,)
    """

    @validate_params(
        {
            "n_way": [Interval(Integral, 2, None, closed="left")],
            "k_shot": [Interval(Integral, 1, None, closed="left")],
            "n_queries": [Interval(Integral, 1, None, closed="left")],
            "n_episodes": [Interval(Integral, 2, None, closed="left")],
            "classes": [HasMethods(["__iter__"]), None],
            "random_state": ["random_state"],
        },
        prefer_skip_nested_validation=True,
    )
    def __init__(
        self,
        n_way: int = 5,
        k_shot: int = 1,
        n_queries: int = 15,
        n_episodes: int = 100,
        classes: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(n_episodes, random_state=random_state)
        self.n_way = n_way
        self.k_shot = k_shot
        self.n_queries = n_queries
        self.n_episodes = n_episodes
        self.classes = classes

    def _iter_indices(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Draw the support and the query indices of each episode, class by class."""
        indices_by_class = self._indices_by_class(X, y)
        random_state = check_random_state(self.random_state)
        n_samples = self.k_shot + self.n_queries
        for seed in random_state.randint(np.iinfo(np.int32).max, size=self.n_episodes):
            rng = np.random.default_rng(seed)
            chosen = rng.choice(len(indices_by_class), self.n_way, replace=False)
            indices = np.stack(
                [rng.choice(indices_by_class[i], n_samples, replace=False) for i in chosen]
            )  # (n_way, k_shot + n_queries)
            yield indices[:, : self.k_shot].ravel(), indices[:, self.k_shot :].ravel()

    def _indices_by_class(self, X: Any, y: Any) -> list[np.ndarray]:
        """Return the indices of each label that episodes are drawn from."""
        check_single_label(y, "episodes are")
        known, codes = encode_labels(X, y)
        classes = known
        if self.classes is not None:
            classes = np.unique(as_labels(self.classes, "classes", in_order=False))
        wanted, is_known = find_labels(classes, known, "classes")
        if not is_known.all():
            unknown = classes[~is_known].tolist()
            raise ValueError(f"classes holds labels that are not in y: {unknown[:N_SHOWN]!r}")
        if len(classes) < self.n_way:
            raise ValueError(
                f"n_way={self.n_way!r}: there are {len(classes)} classes to draw from; a smaller "
                "n_way or more classes are required"
            )
        indices = [np.flatnonzero(codes == code) for code in wanted]
        n_required = self.k_shot + self.n_queries
        for label, of_class in zip(classes.tolist(), indices, strict=True):
            if len(of_class) < n_required:
                raise ValueError(
                    f"class {label!r} has {len(of_class)} images, but k_shot={self.k_shot!r} and "
                    f"n_queries={self.n_queries!r} take {n_required}; lower n_queries, or leave "
                    "it out of classes"
                )
        return indices


@dataclass(frozen=True, eq=False, repr=False)
class FewShotScore:
    """Accuracy on the query images of each N-way K-shot episode: scores (n_episodes,)."""

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
    {"estimator": [HasMethods(["fit", "predict", "get_params"])], "n_jobs": [Integral, None]},
    prefer_skip_nested_validation=False,
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

    For each episode of :class:`EpisodeSplit`, a clone of the classifier is fitted on the support
    images, and its accuracy on the query images is the score. The episodes depend on
    ``random_state`` alone, so several classifiers meet the same ones and the differences of their
    scores are paired.

    Parameters
    ----------
    estimator : classifier
        Any classifier of scikit-learn's kind, such as :class:`CLCEClassifier` or a
        pipeline that begins with :class:`BackboneFeatures`. It is not changed.
    X : array-like of images, or of shape (n_samples, n_features)
        Images or features of any kind that the estimator takes.
    y : array-like of shape (n_samples,)
        Labels, one for each image.
    n_way, k_shot, n_queries, n_episodes, classes, random_state : object
        The episodes: see :class:`EpisodeSplit`. ``random_state`` is not the estimator's.
    n_jobs : int, default=None
        Processes that share the episodes, as in scikit-learn.

    Returns
    -------
    FewShotScore
        ``scores``, the accuracy of each episode, their ``mean``, and its 95 % ``interval``.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or there are too few classes, or images of one.

    See Also
    --------
    EpisodeSplit : The episodes alone, for :func:`~sklearn.model_selection.cross_val_score`.
    BackboneFeatures : Features of a frozen backbone, for any other classifier.

    Notes
    -----
    A frozen backbone runs once for each image, regardless of the number of episodes: a
    :class:`BackboneFeatures` or :class:`CLCEClassifier` in the estimator whose ``memory`` is None
    keeps features in a temporary folder during the call. With ``n_jobs`` above 1, two processes
    may embed the same image at the same moment.

    With ``k_shot=1`` no image has a positive, so the contrastive term has no effect without
    ``CLCEClassifier(n_views=2)``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_clce import few_shot_score
    >>> X, y = load_digits(return_X_y=True)
    >>> score = few_shot_score(KNeighborsClassifier(1), X, y, k_shot=5, random_state=0)
    >>> print(f"{score.mean:.2f} in {len(score.scores)} episodes")
    0.92 in 100 episodes
    """
    check_single_label(y, "episodes are")
    episodes = EpisodeSplit(n_way, k_shot, n_queries, n_episodes, classes, random_state)
    y = as_labels(y)
    splits = list(episodes.split(X, y))
    with _keeping_features(estimator) as estimator:
        scores = Parallel(n_jobs=n_jobs)(
            delayed(_episode_score)(estimator, X, y, *split) for split in splits
        )
    return FewShotScore(np.array(scores), n_way, k_shot)


def _episode_score(
    estimator: Any, X: Any, y: np.ndarray, support: np.ndarray, queries: np.ndarray
) -> float:
    fitted = clone(estimator).fit(_take(X, support), y[support])
    return float(np.mean(fitted.predict(_take(X, queries)) == y[queries]))


def _take(X: Any, indices: np.ndarray) -> Any:
    """Take samples; an array on disk gives them in ascending order only."""
    if not is_on_disk(X):
        return _safe_indexing(X, indices)
    order = np.argsort(indices)
    return X[indices[order]][np.argsort(order)]


@contextmanager
def _keeping_features(estimator: Any) -> Iterator[Any]:
    """Give each part of an estimator that embeds images a temporary store, if it has none."""
    parts = {"": estimator, **estimator.get_params(deep=True)}
    names = [
        f"{name}__memory".removeprefix("__")
        for name, part in parts.items()
        if isinstance(part, (BackboneFeatures, CLCEClassifier))
        and part.memory is None
        and part.backbone != "precomputed"
    ]
    if not names:
        yield estimator
        return
    with tempfile.TemporaryDirectory() as folder:
        yield clone(estimator).set_params(**dict.fromkeys(names, FeatureStore(folder)))
