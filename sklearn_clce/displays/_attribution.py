"""On which parts of a picture a prediction rests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch.nn import functional as F

from ..data import EvaluationTransform, as_float
from ._feature_maps import attribute
from ._plotting import CAPTION_LENGTH, PICTURE_SIDE, gallery, shortened, thumbnail

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIMMED = 0.25  # of a picture's light where nothing speaks for the class


class AttributionDisplay:
    """On which parts of a picture a prediction rests.

    Each picture is shown as the network sees it, after resizing and cropping: bright where its
    parts speak for the class, dim where they do not. It is Grad-CAM [1]_ on the last feature
    map that keeps places apart, counted from their mean, for convolutional networks and
    transformers alike. So it is as fine as that map: 7 by 7 places for EfficientNet at 224 pixels,
    14 by 14 for a ViT.

    Parameters
    ----------
    images : sequence of array of shape (H, W) or (H, W, C)
        Pictures, pixels in 0..1.
    attributions : sequence of array of shape (h, w)
        How much more each place of the feature map speaks for the class than the mean of its
        places does.
    targets : array-like of shape (n_images,)
        The classes.
    probabilities : array-like of shape (n_images,)
        What the classifier gives them.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes that the pictures divide; their title is the title of all.
    axes_ : ndarray of matplotlib Axes of shape (n_images,)
        A panel for each picture.
    figure_ : matplotlib Figure
        Figure containing the axes.

    See Also
    --------
    AttributionDisplay.from_estimator : Compute and draw them.
    TopLossesDisplay : The pictures that a classifier is most wrong about.

    References
    ----------
    .. [1] Selvaraju, R. R. et al. "Grad-CAM: Visual Explanations from Deep Networks via
       Gradient-based Localization", ICCV 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_clce import AttributionDisplay, CLCEClassifier
    >>> digits = load_digits(n_class=3)
    >>> X, y = digits.images / 16, digits.target
    >>> clf = CLCEClassifier(image_size=64, trainable="head", max_epochs=5, random_state=0)
    >>> display = AttributionDisplay.from_estimator(clf.fit(X[:30], y[:30]), X[30:34])
    >>> display.attributions[0].shape
    (2, 2)
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        attributions: Sequence[np.ndarray],
        *,
        targets: np.ndarray,
        probabilities: np.ndarray,
    ) -> None:
        self.images = images
        self.attributions = attributions
        self.targets = targets
        self.probabilities = probabilities

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, target: ArrayLike | None = None, ax: Axes | None = None
    ) -> Self:
        """Attribute predictions to parts of the pictures, and draw them.

        Parameters
        ----------
        estimator : fitted CLCEClassifier
            With a backbone that reads images, frozen or trained.
        X : array-like of images
            Images of any kind listed in the notes of :class:`CLCEClassifier`, all of which
            are drawn.
        target : label, array-like of labels of shape (n_images,) or None, default=None
            The class to ask for: one for all, or one for each image. None asks for the
            predicted one.
        ax : matplotlib Axes, default=None
            Axes to divide into panels; None makes a figure.

        Returns
        -------
        AttributionDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If the estimator is of another class.
        ValueError
            If the estimator reads features, its backbone has no layer that keeps places
            apart, or ``target`` holds an unknown label.
        """
        check_is_fitted(estimator)
        module = getattr(estimator, "module_", None)
        if module is None or not hasattr(estimator, "backbone_config_"):
            raise TypeError(f"estimator={type(estimator).__name__}: a CLCEClassifier is required")
        if module.config is None:
            raise ValueError(
                "estimator has backbone='precomputed': a backbone that reads images is required, "
                "because features do not tell where in a picture they come from"
            )
        images = estimator._read(X, reset=False)
        classes = estimator.classes_
        wanted = [None] * len(images) if target is None else _codes(target, classes, len(images))
        transform = EvaluationTransform(module.config)
        pictures, maps, codes, shares = [], [], [], []
        for index, code in enumerate(wanted):
            picture = as_float(transform(images[index]))
            attributed = attribute(module, picture[None].to(estimator.net_.device), code)
            pictures.append(thumbnail(picture, PICTURE_SIDE))
            maps.append(attributed.map.cpu().numpy())
            codes.append(attributed.target)
            shares.append(attributed.probability)
        display = cls(
            pictures, maps, targets=classes[np.array(codes)], probabilities=np.array(shares)
        )
        return display.plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the pictures, bright where they speak for their class.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to divide into panels; None makes a figure.

        Returns
        -------
        AttributionDisplay
            The same display.
        """
        self.ax_, self.axes_ = gallery(ax, len(self.images), height=2.5, gap=0.2)
        self.figure_ = self.ax_.figure
        for number, axis in enumerate(self.axes_):
            image = np.asarray(self.images[number])
            axis.imshow(_lit(image, self.attributions[number]), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            name = shortened(self.targets[number], CAPTION_LENGTH)
            axis.set_title(
                f"{name}\n({self.probabilities[number]:.2f})", fontsize=8, parse_math=False
            )
        return self


def _lit(image: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Dim a picture where nothing speaks for the class: (H, W) or (H, W, 3), map (h, w)."""
    places = torch.as_tensor(np.asarray(attribution, dtype=np.float32)).clamp(min=0)
    light = F.interpolate(places[None, None], image.shape[:2], mode="bilinear")[0, 0].numpy()
    light = DIMMED + (1 - DIMMED) * light / max(light.max(), np.finfo(np.float32).tiny)
    return image * (light if image.ndim == 2 else light[:, :, None])


def _codes(target: ArrayLike, classes: np.ndarray, n: int) -> list[int]:
    """Turn labels into indices into the classes, one for each of n images."""
    labels = np.asarray(target)
    if labels.shape not in ((), (n,)):
        raise ValueError(
            f"target of shape {labels.shape}: one label is required, or one for each of {n} images"
        )
    labels = np.broadcast_to(labels, n)
    unknown = labels[~np.isin(labels, classes)]
    if len(unknown):
        raise ValueError(
            f"target={unknown[0].item()!r}: a label of the classifier is required, one of "
            f"{classes.tolist()}"
        )
    return np.searchsorted(classes, labels).tolist()
