"""Features of a frozen backbone as a scikit-learn transformer."""

from __future__ import annotations

import os
from numbers import Integral, Real
from time import monotonic
from typing import Any, Literal, Self

import joblib
import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import validate_data
from torch import nn

from .._checks import SuggestingEstimator, suggests_parameters
from .._system import gpu_lock, joint, own_torch, resolve_device, resolve_precision, seeded_torch
from ..backbones import (
    Backbones,
    FrozenBackbone,
    check_several,
    count_features,
    frozen_backbone,
)
from ..data import Images, as_images, evaluation_transform
from ._computing import Store, features_of
from ._store import FeatureStore, open_store

PROBE_SIZE = 64  # of the image that finds the width of a backbone without a size


class BackboneFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, SuggestingEstimator):
    """Images to features: a frozen, pretrained backbone as a transformer.

    Use it in a pipeline before any classifier, or before
    ``CLCEClassifier(backbone="precomputed")``. It is stateless: :meth:`transform` works
    without :meth:`fit`. The backbone runs once for each image, regardless of the number of fits
    and folds that follow; with ``memory`` also of processes.

    Start with ``backbone``, ``image_size`` and ``memory``. The parameters choose the backbone
    (up to ``image_size``), say what X holds (up to ``n_channels``), how to compute (up to
    ``num_workers``, which changes speed and rounding only), and what to keep and to print.

    Parameters
    ----------
    backbone : str, nn.Module or sequence of these, default="efficientnet_lite0"
        A name of :func:`backbone_aliases`, any timm name, ``"hf-hub:owner/name"``, or a
        module that maps images of shape (n, C, H, W) to features of shape (n, d). Of several
        in a tuple or list each runs on every image, and their features follow one another.
    pretrained : bool or path, default=True
        True: the weights bundled with ``"efficientnet_lite0"``, else timm's cache or
        hub. False: random weights, always the same. A path: a ``.safetensors`` or
        ``.pth`` file.
    image_size : int, default=None
        Side of the backbone's input in pixels; None takes its own. A smaller one is
        faster. It is that of each of several.
    image_shape : tuple of int, default=None
        Shape of one image where X has two axes and holds flattened images, such as
        (8, 8) or (32, 32, 3).
    max_pixel_value : float, default=None
        Value of white in images of integers, at most 255 in those of 8 bits. None: 255, or
        the highest value of a 16-bit dtype.
    n_channels : int, default=None
        Channels of each image, such as bands of a satellite, all of which are used. None
        finds it: 1 is grey, 3 RGB, 4 RGB and alpha; other arrays have their channels in the
        shorter of the first and the last axis. Each channel takes the average of RGB's means
        and deviations, and timm adapts the first layer of pretrained weights.
    batch_size : int, default=32
        Images in a batch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": CUDA where there is one, else Apple's ``mps``, else the CPU.
    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        What to compute in; features are float32. "auto": on a CUDA device bfloat16, or
        float16 where it has none, else float32.
    num_workers : int or "auto", default="auto"
        Threads that read images while the backbone runs; see :class:`CLCEClassifier`.
    memory : path, joblib.Memory, FeatureStore or None, default=None
        Folder in which features are kept, up to 2 GiB. None keeps up to 256 MiB of them in the
        process; ``joblib.Memory(None)`` keeps none. See Notes.
    verbose : int, default=0
        0 prints nothing; 1 prints on how many images the backbone runs, and how long it took.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of X; only where X has two axes.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names of X; only where X is a data frame of two axes.

    See Also
    --------
    CLCEClassifier : Fine-tunes the backbone, or a head on its features.

    Notes
    -----
    X may hold images of any kind that :class:`CLCEClassifier` takes.

    Kept features are found by the content of the image, a fingerprint of the backbone
    (its layers, code, weights, hooks and preprocessing), the kind of device, the precision,
    and the releases of torch, torchvision, timm, Pillow, NumPy and this package. Features of
    a backbone that can't be described are not kept, with a warning. A process reads a file
    again if its path, size, inode or times of change differ. Many processes may share the
    folder, also on a network file system whose locks work. A feature that can't be read or
    kept is computed again, with a warning. ``FeatureStore(folder, size_limit=...)`` as
    ``memory`` sets another limit, and its ``clear()`` empties the folder.

    Without ``memory`` features are not kept of a Dataset or an array on disk, of more than 50,000
    images at a time, and of fewer than 8 images (1,024 on a GPU) if the backbone was not described
    before.

    Rounding may depend on the number of images in a batch, so that a feature computed in a
    last, smaller batch may differ in its last bits. A kept feature is returned bit for bit.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_clce import BackboneFeatures
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images / 16, digits.target
    >>> BackboneFeatures(image_size=32).transform(X[:2]).shape
    (2, 1280)
    >>> clf = make_pipeline(BackboneFeatures(image_size=32), LogisticRegression())
    >>> clf.fit(X[:40], y[:40]).score(X[40:100], y[40:100])
    1.0
    """

    _parameter_constraints: dict = {
        "backbone": [str, nn.Module, tuple, list],
        "pretrained": ["boolean", str, os.PathLike],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": [tuple, list, None],
        "max_pixel_value": [Interval(Real, 0, None, closed="neither"), None],
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "num_workers": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "memory": [str, os.PathLike, HasMethods(["cache"]), FeatureStore, None],
        "verbose": ["verbose"],
    }

    @suggests_parameters
    def __init__(
        self,
        backbone: Backbones = "efficientnet_lite0",
        *,
        pretrained: bool | str | os.PathLike[str] = True,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | list[int] | None = None,
        max_pixel_value: float | None = None,
        n_channels: int | None = None,
        batch_size: int = 32,
        device: str | torch.device = "auto",
        precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        num_workers: int | Literal["auto"] = "auto",
        memory: str | os.PathLike[str] | joblib.Memory | FeatureStore | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.image_size = image_size
        self.image_shape = image_shape
        self.max_pixel_value = max_pixel_value
        self.n_channels = n_channels
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.num_workers = num_workers
        self.memory = memory
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check parameters and images; nothing is learned.

        Parameters
        ----------
        X : array-like of images
            Images of any kind listed in the notes of :class:`CLCEClassifier`.
        y : None
            Ignored.

        Returns
        -------
        BackboneFeatures
            The same transformer.

        Raises
        ------
        ValueError
            If a parameter or X is out of its range.
        TypeError
            If X does not hold images.
        FileNotFoundError
            If a path in X leads to no file.
        """
        self._read(X, reset=True)
        return self

    @joint
    def transform(self, X: Any) -> np.ndarray:
        """Compute features, or take those that are kept.

        Parameters
        ----------
        X : array-like of images
            Images of any kind, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            One row for each image.

        Raises
        ------
        ValueError
            If a parameter or X is out of its range, or the backbone gives no features.
        TypeError
            If X does not hold images.
        FileNotFoundError
            If a path in X leads to no file.
        OSError
            If pretrained weights can't be reached.
        """
        images = self._read(X, reset=False)
        with own_torch():
            backbone = self._load(images.n_channels)
            return self._run(images, backbone, open_store(self.memory)).numpy()

    def _run(self, images: Images, backbone: FrozenBackbone, store: Store | None) -> torch.Tensor:
        device = resolve_device(self.device)
        with gpu_lock(device):
            return features_of(
                images,
                backbone,
                store=store,
                batch_size=self.batch_size,
                device=device,
                precision=resolve_precision(self.precision, device),
                num_workers=None if self.num_workers == "auto" else self.num_workers,
                verbose=self.verbose,
            )

    def _seconds_per_image(self, X: Any) -> float:
        """Measure the second of two passes over some images, of which nothing is kept."""
        images = self._read(X, reset=True)
        with own_torch():
            backbone = self._load(images.n_channels)
            self._run(images, backbone, None)
            start = monotonic()
            self._run(images, backbone, None)
        return (monotonic() - start) / len(images)

    @property
    def _n_features_out(self) -> int:
        backbone = self._load(self.n_channels)
        image = torch.zeros(backbone.config.n_channels, PROBE_SIZE, PROBE_SIZE)
        return count_features(backbone.module, evaluation_transform(backbone.config)(image))

    def _read(self, X: Any, *, reset: bool) -> Images:
        self._validate_params()
        check_several(self.backbone, self.pretrained)
        if isinstance(self.backbone, str) and self.backbone == "precomputed":
            raise ValueError(
                "backbone='precomputed': X would hold features already; leave BackboneFeatures out "
                "of the pipeline, or name a backbone"
            )
        images = as_images(
            X,
            image_shape=self.image_shape,
            max_pixel_value=self.max_pixel_value,
            n_channels=self.n_channels,
            colour=None if reset else getattr(self, "_saw_colour", None),
        )
        if reset:
            self._saw_colour = not images.has_one_channel
        if getattr(images, "flattened", False):
            validate_data(self, X, skip_check_array=True, reset=reset)
        return images

    def _load(self, n_channels: int | None) -> FrozenBackbone:
        """Load the backbone; random weights must be the same at each call."""
        with seeded_torch(0):
            return frozen_backbone(
                self.backbone,
                pretrained=self.pretrained,
                image_size=self.image_size,
                n_channels=n_channels,
            )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
