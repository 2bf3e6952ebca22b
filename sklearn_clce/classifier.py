"""The estimator: fine-tune an image backbone with CLCE, the scikit-learn way."""

from __future__ import annotations

import os
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from ._net import CLCENet, net_options, seeded_torch
from ._validation import encode_labels, resolve_device, row_weights, unchanged_on_error
from .backbones import count_features, load_backbone
from .data import LabelledFeatures, LabelledImages, as_images
from .losses import CLCELoss, l2_normalise
from .modules import CLCEModule
from .transforms import EvaluationTransform

FROZEN_PROJECTION_DIM = 256


class CLCEClassifier(
    ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, BaseEstimator
):
    """Image classifier: a pretrained backbone, fine-tuned with the CLCE criterion.

    Cross-entropy and a label-aware contrastive term with hard-negative weighting are
    trained jointly, from one forward pass [1]_. Images are resized and normalised as
    the backbone's own configuration says.

    Parameters
    ----------
    backbone : str or nn.Module, default="efficientnet_lite0"
        A name of :func:`list_backbones`, any timm name, ``"hf-hub:owner/name"``, a
        module that maps images of shape (n, C, H, W) to features of shape (n, d), or
        ``"precomputed"``: X already holds feature vectors. A module is copied, never
        changed; see :ref:`Notes <backbone-module>` for its preprocessing.
    pretrained : bool or path, default=True
        True: the weights bundled with ``"efficientnet_lite0"``, else timm's cache or
        hub. False: random weights. A path: a ``.safetensors`` or ``.pth`` file.
    trainable : {"all", "head"}, default="all"
        What trains: everything, or a head on the features of the frozen backbone,
        which then runs once for each image.
    weight : float, default=0.5
        Share of the contrastive term, in [0, 1]. 0 is plain cross-entropy.
    temperature : float, default=0.1
        Divisor of the cosine similarities, above 0.
    hardness : float, default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the supervised
        contrastive loss.
    label_smoothing : float, default=0.0
        Share of the target spread over all classes in the cross-entropy.
    projection_dim : int, None or "auto", default="auto"
        Width of the projection head between features and embedding. None: the
        features are the embedding. "auto": None where the backbone trains, 256 where
        it is frozen.
    image_size : int, default=None
        Side of the backbone's input in pixels; None takes its own. A smaller one is
        faster.
    image_shape : tuple of int, default=None
        Shape of one image where X has two axes and holds flattened images, such as
        (8, 8) or (32, 32, 3).
    batch_size : int, default=32
        Rows in a batch. The contrastive term compares the rows of one batch.
    max_epochs : int, default=20
        Passes over the training data.
    learning_rate : float, default=1e-3
        Learning rate of AdamW.
    weight_decay : float, default=0.05
        Weight decay of AdamW.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn.
    device : str or torch.device, default="auto"
        Where to compute. "auto": CUDA where there is one, else the CPU.
    num_workers : int, default=0
        Processes that read and resize images; 0 does it in this one.
    random_state : int, RandomState instance or None, default=None
        Seed of the new weights, of the order of rows and of dropout. torch's global
        generators are left as they were found.
    verbose : int, default=0
        0 prints nothing, 1 a line for each epoch.
    callbacks : list of skorch callbacks, default=None
        Handed to skorch.
    skorch_params : dict, default=None
        Further arguments of :class:`skorch.NeuralNet`, such as
        ``{"optimizer": torch.optim.SGD}``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; the order of the columns of every output.
    net_ : skorch.NeuralNet
        The net that trained.
    module_ : nn.Module
        The trained network; maps images in 0..1 to logits and embeddings.
    history_ : skorch.history.History
        Losses and durations of the epochs.
    n_iter_ : int
        Number of epochs run.
    backbone_config_ : BackboneConfig or None
        How the backbone wants its images; None for "precomputed".
    n_features_in_ : int
        Number of columns of X; only where X has two axes.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names of X; only where X is a data frame of two axes.

    See Also
    --------
    CLCELoss : The criterion for use in your own training loop.
    list_backbones : Short names of backbones.
    load_image_folder : Paths and labels from a folder for each class.

    Notes
    -----
    X may be an array or tensor of images, (n, H, W), (n, H, W, C) or (n, C, H, W) with
    C in 1, 3, 4 (where both fit, the last axis holds the channels); flattened images
    with ``image_shape``; a list, Series or one-column frame of paths, which are read
    when they are needed; a list of PIL images or of arrays of different sizes; a
    map-style torch Dataset of such images, or of tuples that begin with one. Pixels
    are integers in 0..255 or floats in 0..1.

    .. _backbone-module:

    A module as backbone gets RGB images in 0..1, of their own size unless
    ``image_size`` is set. If it has an attribute ``pretrained_cfg`` in timm's form,
    images are preprocessed as that says.

    References
    ----------
    .. [1] Long, Z. et al. "CLCE: An Approach to Refining Cross-Entropy and
       Contrastive Learning for Optimized Learning Fusion", arXiv:2402.14551, 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_clce import CLCEClassifier
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images / 16, digits.target_names[digits.target]
    >>> clf = CLCEClassifier(image_size=32, trainable="head", random_state=0)
    >>> clf.fit(X[:40], y[:40]).score(X[40:100], y[40:100]) > 0.9
    True
    >>> clf.transform(X[:2]).shape
    (2, 256)
    """

    _parameter_constraints: dict = {
        "backbone": [str, nn.Module],
        "pretrained": ["boolean", str, os.PathLike],
        "trainable": [StrOptions({"all", "head"})],
        "weight": [Interval(Real, 0, 1, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "hardness": [Interval(Real, 0, None, closed="left")],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
        "projection_dim": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": [tuple, list, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "device": [str, torch.device],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "callbacks": [list, None],
        "skorch_params": [dict, None],
    }

    def __init__(
        self,
        backbone="efficientnet_lite0",
        *,
        pretrained=True,
        trainable="all",
        weight=0.5,
        temperature=0.1,
        hardness=1.0,
        label_smoothing=0.0,
        projection_dim="auto",
        image_size=None,
        image_shape=None,
        batch_size=32,
        max_epochs=20,
        learning_rate=1e-3,
        weight_decay=0.05,
        class_weight=None,
        device="auto",
        num_workers=0,
        random_state=None,
        verbose=0,
        callbacks=None,
        skorch_params=None,
    ):
        self.backbone = backbone
        self.pretrained = pretrained
        self.trainable = trainable
        self.weight = weight
        self.temperature = temperature
        self.hardness = hardness
        self.label_smoothing = label_smoothing
        self.projection_dim = projection_dim
        self.image_size = image_size
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.class_weight = class_weight
        self.device = device
        self.num_workers = num_workers
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks
        self.skorch_params = skorch_params

    def fit(self, X, y, sample_weight=None):
        """Fine-tune on labelled images.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind listed in the notes of the class; feature vectors for
            ``backbone="precomputed"``.
        y : array-like of shape (n_samples,)
            Labels: strings, integers or bools.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weight of each row in both terms of the criterion.

        Returns
        -------
        CLCEClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, X, y or a weight is out of its range; the estimator is
            then as it was before.
        TypeError
            If X is nothing that holds images.
        FileNotFoundError
            If there is no file at a path in X.
        OSError
            If pretrained weights can't be reached.
        """
        self._validate_params()
        with unchanged_on_error(self):
            vars(self).pop("n_features_in_", None)
            vars(self).pop("feature_names_in_", None)
            rows = self._read(X, reset=True)
            self.classes_, labels = encode_labels(rows, y)
            weights = row_weights(labels, self.classes_, sample_weight, self.class_weight)
            seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            device = resolve_device(self.device)
            with seeded_torch(seed, device):
                self.net_ = self._build_net(rows, seed, device)
                self.net_.partial_fit(self._training_data(rows, labels, weights))
            self.n_iter_ = len(self.history_)
        return self

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels, of the dtype of ``classes_``.
        """
        logits, _ = self._infer(X)
        return self.classes_[logits.argmax(dim=1).numpy()]

    def predict_proba(self, X):
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float32
            Probabilities in the order of ``classes_``.
        """
        logits, _ = self._infer(X)
        return logits.softmax(dim=1).numpy()

    def decision_function(self, X):
        """Compute class scores.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (n_samples,), float32
            Logits in the order of ``classes_``; for two classes the logit of the
            second less that of the first.
        """
        logits, _ = self._infer(X)
        scores = logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits
        return scores.numpy()

    def transform(self, X):
        """Compute embeddings.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_embedding), float32
            L2-normalised embeddings: what the contrastive term compares.
        """
        _, embeddings = self._infer(X)
        return l2_normalise(embeddings).numpy()

    @property
    def module_(self):
        """The trained network."""
        return self.net_.module_

    @property
    def history_(self):
        """Losses and durations of the epochs."""
        return self.net_.history_

    @property
    def _n_features_out(self):
        return self.module_.n_embedding

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = not self._precomputed
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _precomputed(self):
        return isinstance(self.backbone, str) and self.backbone == "precomputed"

    def _read(self, X, *, reset):
        """Return X as a tensor of features, or as a sequence of images."""
        if self._precomputed:
            return torch.from_numpy(validate_data(self, X, dtype=np.float32, reset=reset))
        images = as_images(X, image_shape=self.image_shape)
        if getattr(images, "flattened", False):
            validate_data(self, X, skip_check_array=True, reset=reset)
        return images

    def _dataset(self, rows, labels=None, weights=None):
        if self._precomputed:
            return LabelledFeatures(rows, labels, weights)
        transform = EvaluationTransform(self.backbone_config_)
        return LabelledImages(rows, transform, labels, weights)

    def _build_net(self, rows, seed, device):
        """Build the module and the net around it; new weights come from torch's RNG."""
        module = self._build_module(rows)
        criterion = CLCELoss(
            weight=self.weight,
            temperature=self.temperature,
            hardness=self.hardness,
            label_smoothing=self.label_smoothing,
        )
        options = net_options(self, module, criterion, seed=seed, device=device)
        return CLCENet(**options).initialize()

    def _build_module(self, rows):
        frozen = self._precomputed or self.trainable == "head"
        projection_dim = self.projection_dim
        if projection_dim == "auto":
            projection_dim = FROZEN_PROJECTION_DIM if frozen else None
        if self._precomputed:
            backbone, self.backbone_config_ = None, None
            n_features = rows.shape[1]
        else:
            backbone, self.backbone_config_ = load_backbone(
                self.backbone, pretrained=self.pretrained, image_size=self.image_size
            )
            first = EvaluationTransform(self.backbone_config_)(rows[0])
            n_features = count_features(backbone, first)
        return CLCEModule(
            backbone,
            self.backbone_config_,
            n_features=n_features,
            n_classes=len(self.classes_),
            projection_dim=projection_dim,
            frozen=frozen,
        )

    def _training_data(self, rows, labels, weights):
        """Return what an epoch runs over; a frozen backbone runs here, once an image."""
        if not self.module_.frozen:
            return self._dataset(rows, labels, weights)
        if not self._precomputed:
            rows = self.net_.compute_features(self._dataset(rows))
        self.module_.standardize.adapt(rows, torch.from_numpy(weights))
        return LabelledFeatures(rows, labels, weights)

    def _infer(self, X):
        """Return logits and embeddings of X, on the CPU."""
        check_is_fitted(self)
        return self.net_.infer_batches(self._dataset(self._read(X, reset=False)))
