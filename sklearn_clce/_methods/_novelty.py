"""Novelty: how much an image is like those that the classifier was trained on."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._system import joint, own_torch
from .._training import CLCENet, Passes, Samples, check_class_means, infer


class NoveltyMixin:
    """Lets a classifier recognise images that belong to none of its classes."""

    net_: CLCENet
    _offset: float | None = None

    if TYPE_CHECKING:

        def _read(self, X: Any, *, reset: bool) -> Samples: ...

        def _passes(self) -> Passes: ...

    @joint
    def score_samples(self, X: Any) -> np.ndarray:
        """Compute how much each image is like those that the classifier was trained on.

        ``predict`` returns one of ``classes_`` for any image, also for one of something else.
        This score is usually lower for such images. Its sign is that of scikit-learn's outlier
        detectors; only the order of scores has a meaning.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            The higher, the more like the training images.

        See Also
        --------
        calibrate_offset : Set a threshold.

        Notes
        -----
        The score is the energy of the logits [1]_, ``logsumexp(logits - mean(logits))``, less a
        quarter of the squared distance, in standardised features, to the nearest mean of a class.
        Of several labels an image, the energy is the sum of ``log(1 + exp(logit))``.
        ``benchmarks/NOTES.md`` compares other scores.

        References
        ----------
        .. [1] Liu, W. et al. "Energy-based Out-of-distribution Detection", NeurIPS 2020.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_clce import CLCEClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> known = y > 0
        >>> clf = CLCEClassifier("precomputed", random_state=0).fit(X[known], y[known])
        >>> scores = clf.score_samples(X)
        >>> bool(scores[known].mean() > scores[~known].mean())
        True
        """
        check_is_fitted(self)
        net = self.net_
        check_class_means(net, "score_samples")

        def score(batch: Any) -> tuple[Tensor]:
            return (net.module_.novelty_scores(*net.classifier_inputs(batch)),)

        with own_torch():
            (scores,) = infer(net, self._read(X, reset=False), self._passes(), score)
        return scores.numpy()

    def calibrate_offset(self, X: Any, contamination: float = 0.05) -> Self:
        """Set ``offset_``, the threshold below which a score means "none of these".

        X must hold images of the known classes that the classifier was not trained on: the scores
        of training images are too high. Of further images of the known classes, at most the share
        ``contamination`` scores below the threshold, on average over random choices of X.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.
        contamination : float, default=0.05
            Share of the known images that may be rejected as unknown, in (0, 1).

        Returns
        -------
        CLCEClassifier
            The estimator, with ``offset_``.

        Raises
        ------
        ValueError
            If ``contamination`` is not in (0, 1), or X holds too few images for it.

        See Also
        --------
        score_samples : The scores.

        Notes
        -----
        ``fit`` forgets the threshold. ``partial_fit`` and ``add_classes``, which change the
        classifier a little, keep it: calibrate again if you have images for it.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.model_selection import train_test_split
        >>> from sklearn_clce import CLCEClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> X_train, X_rest, y_train, _ = train_test_split(X[50:], y[50:], random_state=0)
        >>> clf = CLCEClassifier("precomputed", random_state=0).fit(X_train, y_train)
        >>> clf = clf.calibrate_offset(X_rest, contamination=0.1)
        >>> float((clf.score_samples(X[:50]) < clf.offset_).mean())  # of a class it does not know
        1.0
        """
        check_is_fitted(self)
        is_share = isinstance(contamination, Real) and not isinstance(contamination, bool)
        if not is_share or not 0 < contamination < 1:
            raise ValueError(
                f"contamination={contamination!r}: a share in (0, 1) of the known images is "
                "required, such as 0.05"
            )
        scores = np.sort(self.score_samples(X))
        # of n + 1 exchangeable images, each is the lowest equally often
        n_below = int((len(scores) + 1) * contamination + 1e-9)
        if n_below == 0:
            raise ValueError(
                f"contamination={contamination!r}: X holds {len(scores)} images, and at least "
                f"{int(np.ceil(1 / contamination - 1e-9)) - 1} are required for it; take a higher "
                "share, or more images"
            )
        self.offset_ = float(scores[n_below - 1])
        return self

    @property
    def offset_(self) -> float:
        """Threshold of :meth:`score_samples`; only after :meth:`calibrate_offset`."""
        if self._offset is None:
            raise AttributeError(
                "offset_ is not set: calibrate_offset(X) sets it, from images of the known "
                "classes that the classifier was not trained on"
            )
        return self._offset

    @offset_.setter
    def offset_(self, offset: float) -> None:
        if not isinstance(offset, Real) or isinstance(offset, bool) or not math.isfinite(offset):
            raise ValueError(f"offset_={offset!r}: a finite number is required")
        self._offset = float(offset)

    def _forget_offset(self) -> None:
        self.__dict__.pop("_offset", None)
