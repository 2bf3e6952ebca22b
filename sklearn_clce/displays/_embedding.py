"""Embeddings in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from .._labels import as_labels
from .._system import warn
from .._targets import outputs_for
from ._plotting import (
    Display,
    as_estimator_reads,
    check_comes_first,
    class_style,
    name_points,
    new_axes,
    read_images,
    show_thumbnails,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY_CLASSES = 20  # from here on a new figure is larger
FREE_LABELS = "from_predictions draws embeddings with any labels"


class EmbeddingDisplay(Display):
    """Embeddings in the plane, with the name of each class next to its points.

    Classes differ in colour and marker, and each is named where it lies, so that nothing rests on
    colour alone. Rings mark misclassified samples.

    Parameters
    ----------
    points : array-like of shape (n_samples, 2)
        Coordinates of the samples in the plane.
    labels : array-like of shape (n_samples,)
        True labels.
    predictions : array-like of shape (n_samples,), default=None
        Predicted labels; None marks no sample as misclassified.
    images : sequence of Tensor of shape (C, H, W), default=None
        The images behind the points, for thumbnails.
    axis_names : tuple of str, default=("", "")
        What the two coordinates are.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        What the points are drawn on.
    texts_ : list of matplotlib Text
        Names of the classes that fit without overlap.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_clce import CLCEClassifier, EmbeddingDisplay
    >>> digits = load_digits(n_class=3)
    >>> X, y = digits.images[:90] / 16, digits.target[:90]
    >>> clf = CLCEClassifier(image_size=32, trainable="head", max_epochs=5, random_state=0)
    >>> display = EmbeddingDisplay.from_estimator(clf.fit(X, y), X, y)
    >>> display.points.shape
    (90, 2)
    >>> [text.get_text() for text in display.texts_]
    ['0', '1', '2']
    """

    def __init__(
        self,
        points: np.ndarray,
        labels: np.ndarray,
        *,
        predictions: np.ndarray | None = None,
        images: Any = None,
        axis_names: tuple[str, ...] = ("", ""),
    ) -> None:
        self.points = points
        self.labels = labels
        self.predictions = predictions
        self.images = images
        self.axis_names = axis_names

    def __repr__(self) -> str:
        n_classes = len(np.unique(self.labels))
        wrong = "" if self.predictions is None else f", {self._wrong().sum()} misclassified"
        return f"EmbeddingDisplay({len(self.labels)} samples of {n_classes} classes{wrong})"

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        label: Any = None,
        method: Literal["pca", "tsne"] = "pca",
        random_state: int | np.random.RandomState | None = None,
        thumbnails: int = 0,
        ax: Axes | None = None,
    ) -> Self:
        """Embed, predict and draw images.

        Parameters
        ----------
        estimator : fitted estimator with ``transform`` and ``predict``
            Such as :class:`CLCEClassifier`.
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind that the estimator takes.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True labels.
        label : label, default=None
            Of several labels an image, the one that colours the points.
        method, random_state, thumbnails, ax : object
            As in :meth:`from_predictions`.

        Returns
        -------
        EmbeddingDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError, ValueError
            If the estimator is not fitted or does not know a label of y, or as
            :meth:`from_predictions`.
        """
        check_comes_first(estimator)
        embeddings = estimator.transform(X)
        predicted = estimator.predict(X)
        if hasattr(estimator, "classes_"):
            y, predicted = outputs_for(y).named(
                y, predicted, estimator.classes_, label, remedy=FREE_LABELS
            )
        return cls.from_predictions(
            y,
            predicted,
            embeddings=embeddings,
            X=as_estimator_reads(estimator, X) if thumbnails else None,
            image_shape=getattr(estimator, "image_shape", None),
            method=method,
            random_state=random_state,
            thumbnails=thumbnails,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike | None = None,
        *,
        embeddings: ArrayLike,
        X: Any = None,
        image_shape: Sequence[int] | None = None,
        method: Literal["pca", "tsne"] = "pca",
        random_state: int | np.random.RandomState | None = None,
        thumbnails: int = 0,
        ax: Axes | None = None,
    ) -> Self:
        """Draw embeddings.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels.
        y_pred : array-like of shape (n_samples,), default=None
            Predicted labels; None marks no sample as misclassified.
        embeddings : array-like of shape (n_samples, n_embedding)
            What ``transform`` returns; at least three rows and two columns.
        X : array-like of images, default=None
            The images behind the points, as :class:`CLCEClassifier` takes them; required
            for thumbnails.
        image_shape : tuple of int, default=None
            Shape of one image where X has two axes and holds flattened images.
        method : {"pca", "tsne"}, default="pca"
            Projection to the plane. "pca" keeps large distances and is the same for each run;
            "tsne" keeps neighbours together, and distances between its groups mean nothing.
        random_state : int, RandomState instance or None, default=None
            Seed of "tsne".
        thumbnails : int, default=0
            Images to draw at their points, misclassified ones first; all where there are
            fewer. Where points are crowded, a line leads from image to point.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.

        Returns
        -------
        EmbeddingDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the arrays do not fit each other, or an argument is out of its range.
        """
        embeddings = np.asarray(embeddings)
        labels = _column(y_true, embeddings, "y_true")
        predictions = None if y_pred is None else _column(y_pred, embeddings, "y_pred")
        points, axis_names = _in_the_plane(embeddings, method, random_state)
        display = cls(
            points,
            labels,
            predictions=predictions,
            images=None if X is None else read_images(X, image_shape),
            axis_names=axis_names,
        )
        return display.plot(ax, thumbnails=thumbnails)

    def plot(self, ax: Axes | None = None, *, thumbnails: int = 0) -> Self:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        thumbnails : int, default=0
            Images to draw at their points.

        Returns
        -------
        EmbeddingDisplay
            The same display.

        Raises
        ------
        ValueError
            If ``thumbnails`` is below 0, or the display has no images for them. If there is no
            room for all, a warning says how many are drawn.
        """
        if not isinstance(thumbnails, Integral) or thumbnails < 0:
            raise ValueError(f"thumbnails={thumbnails!r}: an integer of at least 0 is required")
        if thumbnails and self.images is None:
            raise ValueError(
                f"thumbnails={thumbnails!r}: the display has no images; pass them as X"
            )
        super().plot(ax)
        if thumbnails:
            self._draw_thumbnails(thumbnails)
        return self

    def _draw(self, ax: Axes | None) -> None:
        points = np.asarray(self.points)
        classes, codes = np.unique(self.labels, return_inverse=True)
        members = [points[codes == code] for code in range(len(classes))]
        self.ax_ = ax = new_axes(ax, (6.4, 5.2) if len(classes) < MANY_CLASSES else (9, 7))
        size = np.clip(6000 / len(points), 6, 45)
        for code, of_class in enumerate(members):
            style: Any = {"s": size, "alpha": 0.55, "linewidth": 0, **class_style(code)}
            ax.scatter(*of_class.T, **style)
        if self.predictions is not None:
            _draw_rings(ax, points, self._wrong(), size)
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel(self.axis_names[0], loc="left", parse_math=False)
        ax.set_ylabel(self.axis_names[1], loc="bottom", parse_math=False)
        ax.margins(0.08)
        ax.autoscale_view()
        self.texts_, self._space = name_points(ax, np.array([*map(_middle, members)]), classes)

    def _wrong(self) -> np.ndarray:
        """Return which samples are misclassified: (n_samples,)."""
        if self.predictions is None:
            return np.zeros(len(self.labels), dtype=bool)
        return np.asarray(self.labels) != np.asarray(self.predictions)

    def _draw_thumbnails(self, thumbnails: int) -> None:
        wrong, codes = self._wrong(), np.unique(self.labels, return_inverse=True)[1]
        indices = _with_thumbnail(wrong, thumbnails)
        frames = [
            {"edgecolor": "black", "linewidth": 2.5}
            if wrong[index]
            else {"edgecolor": class_style(codes[index])["color"], "linewidth": 1}
            for index in indices
        ]
        images = [self.images[int(index)] for index in indices]
        points = np.asarray(self.points)[indices]
        n_drawn = show_thumbnails(self.ax_, points, images, frames, self._space)
        if n_drawn < len(indices):
            warn(f"thumbnails={thumbnails!r}: there is room for {n_drawn}; pass larger axes as ax")


def _draw_rings(ax: Axes, points: np.ndarray, wrong: np.ndarray, size: float) -> None:
    """Draw a ring around each misclassified sample, and say how many there are."""
    label = f"misclassified: {wrong.sum()} of {len(wrong)}"
    rings: Any = {
        "s": 3 * size + 20,
        "facecolors": "none",
        "edgecolors": "black",
        "linewidths": 1.1,
    }
    ax.scatter(*points[wrong].T, label=label, zorder=3, **rings)
    ax.legend(
        loc="upper right", bbox_to_anchor=(1, 0), borderaxespad=0.2, frameon=False, fontsize=9
    )


def _column(labels: Any, embeddings: np.ndarray, name: str) -> np.ndarray:
    """Check that labels are one column, with a row for each embedding."""
    labels = as_labels(labels, name)
    if len(labels) != len(embeddings):
        raise ValueError(
            f"{name} has {len(labels)} rows and embeddings {len(embeddings)}: as many are required"
        )
    return labels


def _in_the_plane(
    embeddings: np.ndarray, method: str, random_state: Any
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reduce embeddings to two coordinates, and name these."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if embeddings.ndim != 2 or embeddings.shape[0] < 3 or embeddings.shape[1] < 2:
        raise ValueError(
            f"embeddings of shape {embeddings.shape}: at least three rows and two columns are "
            "required for a drawing in the plane"
        )
    if method == "pca":
        pca = PCA(n_components=2, svd_solver="full").fit(embeddings)
        shares = pca.explained_variance_ratio_
        names = tuple(f"PCA {axis + 1} ({shares[axis]:.0%} of the variance)" for axis in range(2))
        return pca.transform(embeddings), names
    if method == "tsne":
        perplexity = min(30, (len(embeddings) - 1) / 3)
        seed = check_random_state(random_state)
        tsne = TSNE(metric="cosine", perplexity=perplexity, random_state=seed)
        return tsne.fit_transform(embeddings), ("t-SNE", "")
    raise ValueError(f"method={method!r}: 'pca' or 'tsne' is required")


def _middle(points: np.ndarray) -> np.ndarray:
    """Return the point nearest to the median, so that a class is named where it has a sample."""
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return points[distance.argmin()]


def _with_thumbnail(wrong: np.ndarray, n_images: int) -> np.ndarray:
    """Choose samples to show: misclassified ones, then others from every part of the data."""
    wrong, others = np.flatnonzero(wrong), np.flatnonzero(~wrong)
    n_others = min(max(n_images - len(wrong), 0), len(others))
    chosen = np.linspace(0, len(others) - 1, n_others).round().astype(int)
    return np.concatenate([wrong[:n_images], others[chosen]])
