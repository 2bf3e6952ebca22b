"""The images that a classifier is most wrong about."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length

from .._labels import as_labels
from .._targets import outputs_for
from ..data import ListImages
from ._plotting import (
    CAPTION_LENGTH,
    IMAGE_SIDE,
    Display,
    as_estimator_reads,
    check_comes_first,
    read_images,
    shortened,
    show_gallery,
    thumbnail,
    with_percent,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAME = {"edgecolor": "0.6", "linewidth": 0.8}
MISCLASSIFIED_FRAME = {"edgecolor": "#D55E00", "linewidth": 2.5}


class TopLossesDisplay(Display):
    """The images that a classifier is most wrong about, and where to find them.

    Each image is named by its place in X and the end of its path, so that a wrong label can be
    corrected. Misclassified images have a frame, and the caption gives label and prediction; an
    image that is classified correctly, with little probability, is called correct.

    Parameters
    ----------
    images : sequence of array of shape (H, W) or (H, W, C)
        Images, pixels in 0..1, the greatest loss first.
    labels : array-like of shape (n_images,)
        Their true labels.
    predictions : array-like of shape (n_images,)
        Their predicted labels.
    label_probability : array-like of shape (n_images,)
        Probability that the classifier gives the true label.
    prediction_probability : array-like of shape (n_images,)
        Probability that it gives the predicted one.
    indices : array-like of shape (n_images,), default=None
        Their places in X; None leaves them out of the captions.
    paths : sequence of str or None, default=None
        Their files; None for an image that did not come from a file.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        What the images divide; the title of ``ax_`` is the title of all.
    axes_ : ndarray of matplotlib Axes of shape (n_images,)
        A panel for each image.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_clce import CLCEClassifier, TopLossesDisplay
    >>> digits = load_digits(n_class=3)
    >>> X, y = digits.images / 16, digits.target
    >>> clf = CLCEClassifier(image_size=32, trainable="head", max_epochs=5, random_state=0)
    >>> display = TopLossesDisplay.from_estimator(clf.fit(X[:30], y[:30]), X[30:90], y[30:90])
    >>> len(display.axes_)
    9
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        labels: np.ndarray,
        *,
        predictions: np.ndarray,
        label_probability: np.ndarray,
        prediction_probability: np.ndarray,
        indices: np.ndarray | None = None,
        paths: Sequence[str | None] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.predictions = predictions
        self.label_probability = label_probability
        self.prediction_probability = prediction_probability
        self.indices = indices
        self.paths = paths

    def __repr__(self) -> str:
        n_wrong = self._misclassified().sum()
        return f"TopLossesDisplay({len(self.images)} images, {n_wrong} misclassified)"

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        label: Any = None,
        n_images: int = 9,
        ax: Axes | None = None,
    ) -> Self:
        """Predict, and draw what the estimator is most wrong about.

        Parameters
        ----------
        estimator : fitted classifier of images with ``predict_proba``
            Such as :class:`CLCEClassifier`.
        X : array-like of images
            Images of any kind listed in the notes of :class:`CLCEClassifier`.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True labels.
        label, n_images, ax : object
            As in :meth:`from_predictions`.

        Returns
        -------
        TopLossesDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError, ValueError
            If the estimator is not fitted, or as :meth:`from_predictions`.
        """
        check_comes_first(estimator)
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            X=as_estimator_reads(estimator, X),
            classes=estimator.classes_,
            image_shape=getattr(estimator, "image_shape", None),
            label=label,
            n_images=n_images,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_proba: ArrayLike,
        *,
        X: Any,
        classes: ArrayLike,
        image_shape: Sequence[int] | None = None,
        label: Any = None,
        n_images: int = 9,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the images whose true label has the lowest probability.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_classes)
            True labels, or an indicator of several for each image.
        y_proba : array-like of shape (n_samples, n_classes)
            Predicted probabilities.
        X : array-like of images
            Images of any kind listed in the notes of :class:`CLCEClassifier`.
        classes : array-like of shape (n_classes,)
            The labels of the columns; sorted where each image has one.
        image_shape : tuple of int, default=None
            Shape of one image where X has two axes and holds flattened images.
        label : label, default=None
            Of several labels an image, the one to look at. None takes for each image the one with
            the greatest loss.
        n_images : int, default=9
            How many to draw; all where there are fewer.
        ax : matplotlib Axes, default=None
            Axes to divide into panels; None makes a figure.

        Returns
        -------
        TopLossesDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the arrays do not fit each other, y holds an unknown label, classes are unsorted, or
            ``n_images`` is below 1.
        """
        if not isinstance(n_images, Integral) or n_images < 1:
            raise ValueError(f"n_images={n_images!r}: an integer of at least 1 is required")
        y_proba, classes = np.asarray(y_proba), as_labels(classes, "classes")
        outputs = outputs_for(y_true)
        outputs.check_classes(classes)
        n_samples = len(outputs.truth(y_true, classes))
        if y_proba.shape != (n_samples, len(classes)):
            raise ValueError(
                f"y_proba of shape {y_proba.shape}: a row for each of {n_samples} labels and a "
                f"column for each of {len(classes)} classes is required"
            )
        images = read_images(X, image_shape)
        check_consistent_length(images, y_proba)
        judged = outputs.judged(y_true, y_proba, classes, label)
        indices = np.argsort(judged.label_probability, kind="stable")[:n_images]
        indices = indices[~np.isnan(judged.label_probability[indices])]
        display = cls(
            [thumbnail(images[int(index)], IMAGE_SIDE) for index in indices],
            judged.labels[indices],
            predictions=judged.predictions[indices],
            label_probability=judged.label_probability[indices],
            prediction_probability=judged.prediction_probability[indices],
            indices=indices,
            paths=[_path(images, int(index)) for index in indices],
        )
        return display.plot(ax)

    def _draw(self, ax: Axes | None) -> None:
        captions = [self._caption(number) for number in range(len(self.images))]
        self.ax_, self.axes_ = show_gallery(ax, self.images, captions, height=2.7, gap=0.28)
        for axis, wrong in zip(self.axes_, self._misclassified(), strict=True):
            axis.spines[:].set(**MISCLASSIFIED_FRAME if wrong else FRAME)

    def _misclassified(self) -> np.ndarray:
        return np.asarray(self.labels) != np.asarray(self.predictions)

    def _caption(self, number: int) -> str:
        """Say where an image is, what it is labelled and what it is predicted as."""
        place = "" if self.indices is None else f"X[{self.indices[number]}] "
        path = None if self.paths is None else self.paths[number]
        if path is not None:
            place += _end_of(path, CAPTION_LENGTH - len(place))
        label, prediction = self.labels[number], self.predictions[number]
        lines = [place.strip()]
        if label != prediction:
            lines.append(f"label: {shortened(label, CAPTION_LENGTH - len('label: '))},")
        share = self.prediction_probability[number]
        prefix = "correct: " if label == prediction else "predicted: "
        lines.append(with_percent(prediction, share, prefix=prefix))
        return "\n".join(lines).strip()


def _path(images: Any, index: int) -> str | None:
    """Return the path of an image that is read from a file, else None."""
    item = images.items[index] if isinstance(images, ListImages) else None
    item = item[0] if isinstance(item, tuple) and item else item
    return os.fspath(item) if isinstance(item, (str, os.PathLike)) else None


def _end_of(path: str, n_characters: int) -> str:
    """Name a file with its folder, which is usually its class, where there is room for both."""
    name = "/".join(Path(path).parts[-2:])
    return shortened(name if len(name) <= n_characters else Path(path).name, n_characters)
