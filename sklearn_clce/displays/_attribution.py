"""On which parts of an image a prediction rests: Grad-CAM on the last map that keeps places apart.

The mean gradient of the score weighs the channels of the map. Activations are counted from their
mean over all places: what all places share says nothing about any of them, and it is most of what
a transformer holds, so that raw activations point anywhere. Convolutional networks keep their
places to the end. In a transformer the map is the input of the last block, because behind that
the class token may be all that is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from .._labels import as_labels, find_labels
from .._network import Network
from ..backbones import BackboneConfig, run_backbone
from ..data import EvaluationTransform, as_float
from ._plotting import IMAGE_SIDE, Display, show_gallery, thumbnail, with_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR_MAP = "YlOrRd"
OPACITY = 0.75  # of the colour on the place that speaks most for the class
PALENESS = 0.4  # of the grey image under the colours
Arrange = Callable[[Tensor], Tensor]  # activations that keep places apart -> (n, C, h, w)
ATTENTION = re.compile("attn|attention", re.IGNORECASE)  # in the name of a layer or its class
ROUNDING = 2  # places by which a map may be off the aspect of an image that is not square


class AttributionDisplay(Display):
    """On which parts of an image a prediction rests.

    Each image is shown in grey as the network sees it, after resizing and cropping, and coloured
    from yellow to red where its parts speak for the class. It is Grad-CAM [1]_ on the last
    feature map that keeps places apart, counted from their mean, for convolutional networks and
    transformers alike. So it is as fine as that map: 7 by 7 places for EfficientNet at 224 pixels,
    14 by 14 for a ViT.

    Parameters
    ----------
    images : sequence of array of shape (H, W) or (H, W, C)
        Images, pixels in 0..1.
    attributions : sequence of array of shape (h, w)
        How much more each place of the feature map speaks for the class than the mean of its
        places does.
    targets : array-like of shape (n_images,)
        The classes.
    probabilities : array-like of shape (n_images,)
        What the classifier gives them.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        What the images divide; the title of ``ax_`` is the title of all.
    axes_ : ndarray of matplotlib Axes of shape (n_images,)
        A panel for each image.

    See Also
    --------
    TopLossesDisplay : The images that a classifier is most wrong about.

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

    def __repr__(self) -> str:
        n_images = f"{len(self.images)} image{'s' if len(self.images) > 1 else ''}"
        return f"AttributionDisplay({n_images}: {', '.join(self._captions())})"

    def _captions(self) -> list[str]:
        pairs = zip(self.targets, self.probabilities, strict=True)
        return [with_percent(target, probability) for target, probability in pairs]

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, target: ArrayLike | None = None, ax: Axes | None = None
    ) -> Self:
        """Attribute predictions to parts of the images, and draw them.

        Parameters
        ----------
        estimator : fitted CLCEClassifier
            With a backbone that reads images, frozen or trained.
        X : array-like of images
            Images of any kind listed in the notes of :class:`CLCEClassifier`; all are drawn.
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
            If the estimator reads features or several backbones, its backbone has no layer that
            keeps places apart, or ``target`` holds an unknown label.
        """
        check_is_fitted(estimator)
        module = getattr(estimator, "module_", None)
        if module is None or not hasattr(estimator, "backbone_config_"):
            raise TypeError(f"estimator={type(estimator).__name__}: a CLCEClassifier is required")
        if module.config is None:
            raise ValueError(
                "estimator has backbone='precomputed': a backbone that reads images is required, "
                "because features do not say where in an image they come from"
            )
        if not isinstance(module.config, BackboneConfig):
            raise ValueError(
                "estimator reads several backbones, and each has places of its own: a classifier "
                "on one of them is required"
            )
        images = estimator._read(X, reset=False)
        classes = estimator.classes_
        wanted = [None] * len(images) if target is None else _codes(target, classes, len(images))
        transform = EvaluationTransform(module.config)
        shown, maps, codes, probabilities = [], [], [], []
        for index, code in enumerate(wanted):
            image = as_float(transform(images[index]))
            map_, code, probability = attribute(module, image[None].to(estimator.net_.device), code)
            shown.append(thumbnail(image, IMAGE_SIDE))
            maps.append(map_.cpu().numpy())
            codes.append(code)
            probabilities.append(probability)
        display = cls(shown, maps, targets=classes[codes], probabilities=np.array(probabilities))
        return display.plot(ax)

    def _draw(self, ax: Axes | None) -> None:
        pairs = zip(self.images, self.attributions, strict=True)
        overlays = (_overlay(np.asarray(image), map_) for image, map_ in pairs)
        self.ax_, self.axes_ = show_gallery(ax, overlays, self._captions(), height=2.4, gap=0.16)


def _overlay(image: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Colour a pale grey copy of an image: (H, W) or (H, W, 3), map (h, w) -> (H, W, 3)."""
    from matplotlib import colormaps

    places = torch.as_tensor(np.asarray(attribution, dtype=np.float32)).clamp(min=0)
    light = F.interpolate(places[None, None], image.shape[:2], mode="bilinear")[0, 0].numpy()
    light = light[:, :, None] / max(light.max(), np.finfo(np.float32).tiny)
    grey = image.reshape(*image.shape[:2], -1).mean(axis=2, keepdims=True)
    grey = PALENESS + (1 - PALENESS) * grey
    colour = colormaps[COLOUR_MAP](light[:, :, 0])[:, :, :3]
    return grey + OPACITY * light * (colour - grey)


def _codes(target: ArrayLike, classes: np.ndarray, n: int) -> list[int]:
    """Turn labels into indices into the classes, one for each of n images."""
    is_one = np.ndim(target) == 0
    labels = as_labels([target] if is_one else target, "target")
    if not is_one and len(labels) != n:
        raise ValueError(
            f"target of shape {labels.shape}: one label is required, or one for each of {n} images"
        )
    codes, is_known = find_labels(labels, classes, "target")
    if not is_known.all():
        raise ValueError(
            f"target={labels[~is_known].tolist()[0]!r}: a label of the classifier is required, one "
            f"of {classes.tolist()}"
        )
    return np.broadcast_to(codes, n).tolist()


def attribute(module: Network, image: Tensor, target: int | None) -> tuple[Tensor, int, float]:
    """Attribute the score of a class, against the mean of all, to the places of an image.

    ``target`` is the index of the class; None: the one with the highest score. Returns the map,
    the target and its probability. Shapes: image (1, C, H, W) in 0..1 -> map (h, w).
    """
    backbone, normalize = module.backbone, module.normalize
    assert backbone is not None  # it has read images
    module.eval()
    with torch.inference_mode(False), torch.enable_grad():
        features, activation, arrange = run_to_map(backbone, normalize(image.clone()))
        logits = module.forward(features)[0][0]  # (n_classes,)
        target = int(logits.argmax()) if target is None else target
        score = module.outputs.score_of(logits, target)
        (gradient,) = torch.autograd.grad(score, activation)
    map_ = arrange(activation.detach())[0]  # (C, h, w)
    weights = arrange(gradient)[0].mean(dim=(1, 2))  # (C,)
    centred = map_ - map_.mean(dim=(1, 2), keepdim=True)
    places = torch.einsum("c,chw->hw", weights, centred).float()
    return places, target, float(module.outputs.probabilities(logits.detach())[target])


def run_to_map(backbone: nn.Module, image: Tensor) -> tuple[Tensor, Tensor, Arrange]:
    """Run a backbone, and keep its last map of places, of which a gradient can be asked.

    Raises a ValueError where there is none. Shapes: image (1, C, H, W) -> (1, n_features).
    """
    with kept_maps(backbone, image.shape) as kept:
        features = run_backbone(backbone, image)
    if not kept:
        raise ValueError(
            f"backbone={type(backbone).__name__} has no layer that gives a map of places "
            "(n, C, height, width), so its scores can't be attributed to any"
        )
    return features, *kept["tokens" if "tokens" in kept else "layer"]


@contextmanager
def kept_maps(backbone: Any, shape: Sequence[int]) -> Iterator[dict[str, tuple[Tensor, Arrange]]]:
    """Keep the input of the last block, if it holds tokens, and the last map before it.

    Shape: (1, C, H, W) of the image.
    """
    kept: dict[str, tuple[Tensor, Arrange]] = {}

    def keep(kind: str, activation: Tensor, arrange: Arrange) -> Tensor:
        leaf = activation.detach().requires_grad_()
        kept[kind] = leaf, arrange
        return leaf.clone()  # what follows may work in place

    def before_last_block(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        arrange = _of_tokens(inputs[0], backbone, shape)
        return arrange and (keep("tokens", inputs[0], arrange), *inputs[1:])

    def after_layer(_: nn.Module, __: Any, output: Any) -> Tensor | None:
        arrange = None if "tokens" in kept else _of_layer(output, shape)
        return arrange and keep("layer", output, arrange)

    with ExitStack() as hooks:
        for layer in set(backbone.modules()) - _inside_attention(backbone):
            hooks.enter_context(layer.register_forward_hook(after_layer))
        for block in [*getattr(backbone, "blocks", ())][-1:]:
            hooks.enter_context(block.register_forward_pre_hook(before_last_block))
        yield kept


def _of_tokens(tokens: Any, backbone: Any, shape: Sequence[int]) -> Arrange | None:
    """Return what arranges tokens (n, n_tokens, C) as a map, if they are those of a square grid."""
    n, _, height, width = shape
    if not isinstance(tokens, Tensor) or tokens.ndim != 3 or len(tokens) != n or height != width:
        return None
    # the class token and registers come first, or only behind the last block
    for n_others in (getattr(backbone, "num_prefix_tokens", 0), 0):
        side = math.isqrt(max(tokens.shape[1] - n_others, 0))
        if side > 1 and n_others + side**2 == tokens.shape[1]:
            return lambda tokens: tokens[:, n_others:].mT.unflatten(2, (side, side))
    return None


def _inside_attention(backbone: nn.Module) -> set[nn.Module]:
    """Return the layers in attention, which give other things, such as a weight for each pair."""
    return {
        layer
        for path, module in backbone.named_modules()
        if path and ATTENTION.search(f"{path.rpartition('.')[2]} {type(module).__name__}")
        for layer in module.modules()
        if layer is not module
    }


def _of_layer(output: Any, shape: Sequence[int]) -> Arrange | None:
    """Return what arranges an output as a map, if two of its axes have the aspect of the image.

    Which two distinguishes channels first from channels last.
    """
    if not isinstance(output, Tensor) or output.ndim != 4 or not output.is_floating_point():
        return None
    if _has_aspect(output.shape[2:], shape[2:]):
        return lambda map_: map_
    return (
        (lambda map_: map_.permute(0, 3, 1, 2))
        if _has_aspect(output.shape[1:3], shape[2:])
        else None
    )


def _has_aspect(places: Sequence[int], size: Sequence[int]) -> bool:
    (h, w), (height, width) = places, size
    if min(h, w) < 2 or height == width:
        return h == w > 1
    return abs(h * width - w * height) <= ROUNDING * max(height, width)
