"""The estimator: fine-tune an image backbone with CLCE, the scikit-learn way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch.history import History

from ._checks import check_not_images, check_not_swapped, to_numpy, unchanged_on_error
from ._targets import encode_known_labels, encode_labels, known_classes, sample_weights
from ._training import (
    CallbackSupportMixin,
    CLCEModule,
    CLCENet,
    CLCEParameters,
    FitTask,
    Samples,
    ValidationSet,
    chosen_validation_set,
    fit_net,
    infer,
    trained_blocks,
    with_callbacks,
)
from .backbones import BackboneConfig
from .data import as_images
from .export import OnnxMixin
from .losses import l2_normalise
from .new_classes import NewClassesMixin
from .novelty import NoveltyMixin
from .persistence import ModelFileMixin


class CLCEClassifier(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    ClassifierMixin,
    TransformerMixin,
    NewClassesMixin,
    NoveltyMixin,
    ModelFileMixin,
    OnnxMixin,
    CLCEParameters,
):
    """Image classifier: a pretrained backbone, fine-tuned with the CLCE criterion.

    Cross-entropy and a label-aware contrastive term with hard-negative weighting are
    trained jointly, from one forward pass [1]_. Images are resized and normalised as
    the backbone's own configuration says.

    Parameters
    ----------
    backbone : str or nn.Module, default="efficientnet_lite0"
        A name of :func:`backbone_aliases`, any timm name, ``"hf-hub:owner/name"``, a
        module that maps images of shape (n, C, H, W) to features of shape (n, d), or
        ``"precomputed"``: X already holds feature vectors. A module is copied, never
        changed; see :ref:`Notes <backbone-module>` for its preprocessing.
    pretrained : bool or path, default=True
        True: the weights bundled with ``"efficientnet_lite0"``, else timm's cache or
        hub. False: random weights. A path: a ``.safetensors`` or ``.pth`` file.
    trainable : {"auto", "all", "head", "lora"} or int, default="auto"
        What trains: everything that requires gradients; a head on the features of the
        frozen backbone, which then runs once for each image, and on lower blocks of it if
        it is one of timm's with pretrained weights, given by name; head and matrices of low
        rank beside the linear layers of a large backbone (LoRA [3]_); or head and last blocks,
        this many, of a timm backbone. "auto": the upper two thirds of the blocks of a timm
        backbone with pretrained weights, given by name, which is faster and keeps what few
        images can't teach, and everything of another. What is frozen in a module that is
        handed in stays so.
    lora_rank : int, default=8
        Rank of what ``trainable="lora"`` learns of each linear layer.
    weight : float, default=0.5
        Share of the contrastive term, in [0, 1]. 0 is plain cross-entropy.
    temperature : float, default=0.5
        Divisor of the cosine similarities, above 0.
    hardness : float, default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the supervised
        contrastive loss.
    label_smoothing : float, default=0.0
        Share of the target spread over all classes in the cross-entropy.
    projection_dim : int, None or "auto", default="auto"
        Width of the projection head, a small network from features to the embedding;
        the classifier reads both. None: the features are the embedding. "auto": None
        where a backbone without pretrained weights trains, else 128.
    image_size : int, default=None
        Side of the backbone's input in pixels; None takes its own. A smaller one is
        faster.
    image_shape : tuple of int, default=None
        Shape of one image where X has two axes and holds flattened images, such as
        (8, 8) or (32, 32, 3).
    max_pixel_value : float, default=None
        Value of white in images of integers; in those of 8 bits it is 255 at most. None: 255,
        or the highest value of the dtype where that has 16 bits, as ``uint16`` (65535) has.
    n_channels : int, default=None
        Channels of each image, such as bands of a satellite, all of which are kept. None
        finds it: 1 is grey, 3 RGB, 4 RGB and alpha, and of other arrays the shorter of the
        first and the last axis. Mean and deviation of each channel are the mean of those
        of RGB, and timm adapts the first layer of pretrained weights.
    batch_size : int, default=32
        Samples in a batch, of all processes together. The contrastive term compares the
        samples of one batch. No batch is left with one sample: of an odd number in twos,
        three come together.
    micro_batch_size : int, default=None
        Samples that the network runs on at a time, for a large ``batch_size`` in the
        memory of a small one, at the price of a second forward pass (GradCache [2]_).
        The gradient is that of the whole batch, but for batch statistics, which are those
        of the samples at a time, and other random numbers of dropout and stochastic depth.
    max_epochs : int, default=20
        Passes over the training data.
    max_time : float, default=None
        Seconds that ``fit`` may take, the pass of a frozen backbone included: the learning
        rate comes down to 0 in that time if ``max_epochs`` would take longer, and training
        ends there, within an epoch too. None sets no limit.
    learning_rate : float, default=1e-3
        Peak rate of AdamW for new layers: a linear warm-up, then a cosine down to 0. A
        backbone with pretrained weights, given by name, learns at 0.3 of it, and keeps its
        batch statistics; a module that is handed in learns at all of it.
    layer_decay : float or "auto", default="auto"
        Each block of the backbone learns at this share of the rate of the one above.
        "auto": 0.75 for a timm backbone with attention, such as BEiT, 0.95 for another of
        timm, else 1.
    weight_decay : float, default=0.05
        Weight decay of AdamW, for all but norms, biases and position embeddings.
    warmup_fraction : float, default=0.1
        Share of the steps over which the learning rate rises, in [0, 1).
    max_grad_norm : float or None, default=1.0
        Upper bound of the gradient's norm.
    sampler : {"auto", "shuffle", "balanced"}, default="auto"
        How samples come into batches. "balanced": samples of fewer classes, so that every
        anchor has positives; see :class:`ClassBalancedBatchSampler`. "auto": balanced
        where shuffled batches would leave more than a tenth of the anchors without.
    augment : "auto", None or callable, default="auto"
        Random changes of the training images. "auto": crops, mirror images, brightness
        and contrast for photographs; small turns, shifts and scalings, and never a
        mirror image, where the images are grey, as digits and letters are; None where
        the backbone is frozen, which lets it run once for each image. A callable maps a
        tensor (n, C, H, W) in 0..1 to another.
    n_views : int, default=1
        Augmented copies of each image in a batch, which are positives of each other.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn. "balanced" balances the samples of
        each call of ``partial_fit``.
    early_stopping : bool, default=False
        Set samples aside, or take ``X_val`` and ``y_val`` of :meth:`fit`, stop when the score
        on them no longer rises, and give back the weights that did best.
    scoring : str, callable or None, default="accuracy"
        Score of the validation samples that ``early_stopping`` watches: a name of
        :func:`sklearn.metrics.get_scorer_names`, a scorer ``(estimator, X, y)``, or "loss",
        for the negative criterion. None: the accuracy.
    validation_fraction : float, default=0.1
        Share of the samples to set aside, in (0, 1), with the same share of each class.
        Without effect where :meth:`fit` is given ``X_val``.
    n_iter_no_change : int, default=10
        Epochs without a rise of ``tol`` before training stops.
    tol : float, default=1e-4
        Least rise of the validation score.
    warm_start : bool, default=False
        A further ``fit`` goes on where the last one ended: in its weights, its random
        stream, and what it set aside. Changed parameters take effect, except those that
        the network is built with, which are refused.
    device : str or torch.device, default="auto"
        Where to compute. "auto": CUDA where there is one, else Apple's ``mps``, else the CPU.
    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Of the network; the criterion is always computed in float32. "auto": on a CUDA GPU
        autocast to bfloat16, or, where it has none, to float16 with a scaled loss; else
        float32.
    compile : bool, default=False
        Run the network through :func:`torch.compile`.
    gradient_checkpointing : bool, default=False
        Save memory at the price of time, where the backbone can.
    num_workers : int or "auto", default="auto"
        Threads that read and resize images while the network runs; 0 does it in between.
        "auto": one for each core, up to 16, and none for a torch Dataset, whose code may
        not bear threads; a number reads that in as many processes. Results do not depend
        on it.
    cache_size : int or "auto", default="auto"
        Bytes of decoded pictures that ``fit`` keeps in memory, so that later epochs
        decode nothing; a Dataset of your own may draw at random, so it is read anew. "auto":
        as long as a quarter of the memory of the machine, or of its container, stays free.
        0 keeps none.
    random_state : int, RandomState instance or None, default=None
        Seed of new weights, order of samples, augmentation and dropout. torch's global
        generators are left as they were found.
    verbose : int, default=0
        0 prints nothing. 1 prints how much there is to do, and a line for each epoch with
        its losses, its time and the time that is left.
    memory : path, joblib.Memory or None, default=None
        Folder in which the features of a frozen backbone are kept, for each image, so
        that a grid search or another process does not compute them again. A head starts
        from them also where a pretrained backbone trains.
    checkpoint : path, default=None
        Folder in which ``fit`` keeps its state after each epoch, and from which the
        same ``fit`` goes on after a crash, to the same result. A folder is for one fit;
        a finished one is given back as it is. A state of other data, parameters, code or
        libraries is refused, and so is a second fit while one is going on. Clones, such as
        those of a search, keep each fit in a folder of its own beneath. State of
        ``callbacks`` is not kept.
    callbacks : list of skorch callbacks, default=None
        Handed to skorch. Labels that they see are indices into ``classes_``.
    skorch_params : dict, default=None
        Further arguments of :class:`skorch.NeuralNet`, such as
        ``{"optimizer": torch.optim.SGD}``, or ``{"callbacks__lr_scheduler": None}`` to
        put a scheduler of your own into ``callbacks``. What would have no effect is refused.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; the order of the columns of every output.
    net_ : skorch.NeuralNet
        The net that trained.
    trainable_ : "all", "head", "lora" or int
        What of the backbone trained: all, nothing, matrices of low rank beside its linear
        layers, or this many of its last blocks.
    module_ : nn.Module
        The trained network; maps images in 0..1 to logits and embeddings.
    history_ : skorch.history.History
        Losses and durations of the epochs.
    n_iter_ : int
        Number of epochs run, of which the last may be cut short by ``max_time``.
    validation_scores_ : list of float or None
        Score of the validation samples, which count with their weights, by epoch of the last
        fit: higher is better, so that "loss" gives the negative one. None without early
        stopping.
    best_validation_score_ : float or None
        The highest of them.
    backbone_config_ : BackboneConfig or None
        How the backbone wants its images; None for "precomputed".
    n_features_in_ : int
        Number of columns of X; only where X has two axes.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names of X; only where X is a data frame of two axes.
    offset_ : float
        Threshold of :meth:`score_samples`; only after :meth:`calibrate_offset`.

    See Also
    --------
    CLCELoss : The criterion for use in your own training loop.
    backbone_aliases : Short names of backbones.
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
    .. [2] Gao, L. et al. "Scaling Deep Contrastive Learning Batch Size under Memory
       Limited Setup", arXiv:2101.06983, 2021.
    .. [3] Hu, E. J. et al. "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_clce import CLCEClassifier
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images / 16, digits.target_names[digits.target]
    >>> clf = CLCEClassifier(image_size=32, trainable="head", random_state=0)
    >>> clf.fit(X[:40], y[:40]).score(X[40:100], y[40:100])
    1.0
    >>> clf.transform(X[:2]).shape
    (2, 128)
    """

    classes_: np.ndarray
    net_: CLCENet
    n_iter_: int
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    n_features_in_: int
    feature_names_in_: np.ndarray

    if TYPE_CHECKING:  # scikit-learn has no types

        def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float: ...

        def fit_transform(
            self, X: Any, y: ArrayLike | None = None, **fit_params: Any
        ) -> np.ndarray: ...

        def get_feature_names_out(self, input_features: Any = None) -> np.ndarray: ...

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fine-tune on labelled images.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind listed in the notes of the class; feature vectors for
            ``backbone="precomputed"``.
        y : array-like of shape (n_samples,)
            Labels: strings, integers or bools.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weight of each sample in both terms of the criterion. Only their
            ratios count; a sample of weight 0 is left out.
        X_val : array-like of images, or of shape (n_validation, n_features), default=None
            Samples for ``early_stopping=True`` to watch, of the same kinds as X; none of X
            is set aside then.
        y_val : array-like of shape (n_validation,), default=None
            Their labels, all of them in y.
        sample_weight_val : array-like of shape (n_validation,), default=None
            Non-negative weight of each in the score; ``class_weight`` does not count there.

        Returns
        -------
        CLCEClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, X, y or a weight is out of its range, or ``X_val`` comes without
            ``y_val`` or without ``early_stopping``; the estimator is then as it was before.
        TypeError
            If X does not hold images.
        FileNotFoundError
            If there is no file at a path in X.
        OSError
            If pretrained weights can't be reached.
        """
        self._validate_params()
        task = self._init_callback_context(max_subtasks=self.max_epochs)
        if task is not None:
            task.call_on_fit_task_begin(estimator=self, X=X, y=y)
        with unchanged_on_error(self):
            goes_on = self.warm_start and hasattr(self, "classes_")
            if not goes_on:
                self._forget_columns()
            check_not_swapped(X, y)
            samples = self._read(X, reset=not goes_on)
            classes, labels = encode_labels(samples, y)
            if goes_on and not np.array_equal(classes, self.classes_):
                raise ValueError(
                    f"warm_start=True: y holds the classes {classes.tolist()}, the fit before had "
                    f"{self.classes_.tolist()}; set warm_start=False to begin anew"
                )
            self.classes_ = classes
            fit_task = task and FitTask(task, self, X, y)
            validation = chosen_validation_set(
                X_val,
                y_val,
                sample_weight_val,
                read=lambda X: self._read(X, reset=False, like=samples),
                classes=classes,
                early_stopping=self.early_stopping,
            )
            self._train(
                samples,
                labels,
                sample_weight,
                goes_on=goes_on,
                validation=validation,
                fit_task=fit_task,
            )
        if task is not None:
            task.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one more pass over some labelled images.

        The learning rate stays at its peak. k calls are k epochs of one long fit: none
        draws what another drew. Parameters that have changed since the last call take
        effect, except ``backbone``, ``pretrained``, ``image_size`` and ``projection_dim``,
        which are refused.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.
        y : array-like of shape (n_samples,)
            Labels, all of them in ``classes``.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come, in any order: the first samples of a class give
            it a start. Required in the first call, unless :meth:`fit` came before.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weight of each sample in both terms of the criterion. Only their
            ratios count; a sample of weight 0 is left out.

        Returns
        -------
        CLCEClassifier
            The estimator.

        Raises
        ------
        ValueError
            If ``classes`` is missing or differs from the first call's, or y holds a
            label that is not among them; the estimator is then as it was before.
        """
        self._validate_params()
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True; fit does")
        if self.max_time is not None:
            raise ValueError(
                f"partial_fit does not support max_time={self.max_time!r}: it is one pass over the "
                "samples; set max_time=None"
            )
        with unchanged_on_error(self):
            goes_on = hasattr(self, "classes_")
            check_not_swapped(X, y)
            samples = self._read(X, reset=not goes_on)
            self.classes_ = known_classes(classes, getattr(self, "classes_", None))
            labels = encode_known_labels(samples, y, self.classes_)
            self._train(samples, labels, sample_weight, goes_on=goes_on, in_part=True)
        return self

    def predict(self, X: Any) -> np.ndarray:
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

    def predict_proba(self, X: Any) -> np.ndarray:
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

    def decision_function(self, X: Any) -> np.ndarray:
        """Compute class scores.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (n_samples,), float32
            Logits in the order of ``classes_``; for two classes the logit of the
            second minus that of the first.
        """
        logits, _ = self._infer(X)
        scores = logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits
        return scores.numpy()

    def transform(self, X: Any) -> np.ndarray:
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
    def module_(self) -> CLCEModule:
        """The trained network."""
        return self.net_.module_

    @property
    def trainable_(self) -> str | int:
        """What of the backbone trained."""
        return trained_blocks(self.module_)

    @property
    def history_(self) -> History:
        """Losses and durations of the epochs."""
        return self.net_.history_

    @property
    def backbone_config_(self) -> BackboneConfig | None:
        """How the backbone wants its images."""
        return self.module_.config

    @property
    def _n_features_out(self) -> int:
        return self.module_.n_embedding

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = not self._precomputed
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _precomputed(self) -> bool:
        return isinstance(self.backbone, str) and self.backbone == "precomputed"

    def _read(self, X: Any, *, reset: bool, like: Any = None) -> Samples:
        """Return X as a tensor of features, or as a sequence of images.

        ``like``: samples of this fit, for others that come with them.
        """
        if self._precomputed:
            check_not_images(X)
            X = validate_data(self, to_numpy(X), dtype=np.float32, reset=reset)
            as_torch_takes_it = np.require(X, requirements=["C", "A", "W"])
            return torch.from_numpy(as_torch_takes_it)
        n_channels, colour = self.n_channels, None
        if not reset:
            settled = self.backbone_config_ if like is None else like
            if settled is not None and settled.n_channels not in (None, 1, 3):
                n_channels = settled.n_channels
            colour = getattr(self, "_saw_colour", None)
        images = as_images(
            X,
            image_shape=self.image_shape,
            max_pixel_value=self.max_pixel_value,
            n_channels=n_channels,
            colour=colour,
        )
        if reset:
            self._saw_colour = not images.in_grey
        if getattr(images, "flattened", False):
            validate_data(self, X, skip_check_array=True, reset=reset)
        return images

    def _forget_columns(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)

    def _train(
        self,
        samples: Samples,
        labels: np.ndarray,
        sample_weight: Any,
        *,
        goes_on: bool,
        in_part: bool = False,
        validation: ValidationSet | None = None,
        fit_task: FitTask | None = None,
    ) -> None:
        """Train, and store what the fit gave."""
        weights = sample_weights(labels, self.classes_, sample_weight, self.class_weight)
        fitted = fit_net(
            self,
            samples,
            labels,
            weights,
            classes=self.classes_,
            after=self.net_ if goes_on else None,
            in_part=in_part,
            validation=validation,
            fit_task=fit_task,
        )
        if not in_part:
            self._forget_offset()
        self.net_ = fitted.net
        self.n_iter_ = len(fitted.net.history_)
        self.validation_scores_ = fitted.validation_scores
        self.best_validation_score_ = fitted.best_validation_score

    def _infer(self, X: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and embeddings of X, on the CPU."""
        check_is_fitted(self)
        logits, embeddings = infer(self, self.net_, self._read(X, reset=False))
        return logits, embeddings
