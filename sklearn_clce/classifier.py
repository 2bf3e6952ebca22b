"""The estimator: fine-tune an image backbone with CLCE, the scikit-learn way."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import joblib
import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import (
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.metrics import get_scorer_names
from sklearn.utils import Tags
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    StrOptions,
)
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from ._checks import (
    SuggestingEstimator,
    check_not_images,
    check_not_masked,
    check_not_swapped,
    suggestion,
    suggests_parameters,
    to_numpy,
    unchanged_on_error,
)
from ._methods import FrameMixin, NewClassesMixin, NoveltyMixin
from ._network import Network, trainable_of
from ._system import bar, is_main, joint, own_torch
from ._targets import Labels, Outputs, outputs_for
from ._training import (
    CallbackSupportMixin,
    CLCENet,
    FitPlan,
    FitTask,
    LabelledSamples,
    Passes,
    Samples,
    TrainingHistory,
    ValidationSet,
    fit_net,
    infer,
    plan_passes,
    read_validation_set,
    with_callbacks,
)
from .backbones import BackboneConfig
from .data import as_images
from .deployment import HubMixin, OnnxMixin
from .features import FeatureStore
from .losses import l2_normalise
from .persistence import ModelFileMixin

ACCEPT_BOOL = {"boolean", "verbose", "random_state"}  # the last two as everywhere in scikit-learn


class CLCEClassifier(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    ClassifierMixin,
    TransformerMixin,
    NewClassesMixin,
    NoveltyMixin,
    FrameMixin,
    ModelFileMixin,
    OnnxMixin,
    HubMixin,
    SuggestingEstimator,
):
    """Image classifier: a pretrained backbone, fine-tuned with the CLCE criterion.

    Cross-entropy and a label-aware contrastive term with hard-negative weighting are
    trained jointly, from one forward pass [1]_. Start with these:

    - ``CLCEClassifier(trainable="head")`` trains in seconds, on features of the frozen backbone.
    - ``CLCEClassifier()`` fine-tunes the backbone: minutes on a CPU, usually more accurate.
    - ``memory="folder"`` keeps features, so that another process does not compute them again.
    - ``verbose=1`` prints the plan of a fit and its progress.

    X is a list of paths, an array or tensor of images, a list of PIL images or arrays, a torch
    Dataset, or feature vectors; see Notes. Images are resized and normalised as the
    backbone's own configuration says.

    Parameters
    ----------
    Start with these

    backbone : str or nn.Module, default="efficientnet_lite0"
        A name of :func:`backbone_aliases`, any timm name, ``"hf-hub:owner/name"``, a
        module that maps images of shape (n, C, H, W) to features of shape (n, d), or
        ``"precomputed"``: X already holds feature vectors. A module is copied, never
        changed; see :ref:`Notes <backbone-module>` for its preprocessing.
    trainable : {"auto", "all", "head", "lora"} or int, default="auto"
        What to train, in addition to the new layers.

        - "head": nothing. The backbone is frozen and runs once per image; the head reads its
          features, and those of lower blocks if it is a pretrained timm backbone given by name.
        - "all": every parameter that requires gradients.
        - "lora": low-rank matrices next to the linear layers of a large backbone [3]_.
        - An integer: this many of the last blocks of a timm backbone.
        - "auto": the upper two thirds of the blocks of a pretrained timm backbone given by name,
          which is faster and keeps what few images can't teach; else "all".

        Frozen parameters of your own module stay frozen.
    image_size : int, default=None
        Side of the backbone's input in pixels; None: its own. A smaller one is
        faster.
    memory : path, joblib.Memory, FeatureStore or None, default=None
        Folder in which the features of a frozen backbone are kept, per image, so
        that another process does not compute them again. None: the process keeps up to 256 MiB
        of them, so that a search or cross-validation runs the backbone once for each image;
        ``joblib.Memory(None)`` keeps none. A head starts from them also if a pretrained backbone
        trains.
    random_state : int, RandomState instance or None, default=None
        Seed of new weights, order of samples, augmentation and dropout. torch's global
        generators are left as they were found.
    verbose : int, default=0
        0 prints nothing, but in a terminal or a notebook one hint after ten seconds. 1 prints
        the plan of the fit, and shows in a line that moves how far it is, the losses and the
        time that is left; in a file, a line now and then. 2 leaves a line for each epoch.

    Model

    pretrained : bool or path, default=True
        True: the weights bundled with ``"efficientnet_lite0"``, else timm's cache or
        hub. False: random weights. A path: a ``.safetensors`` or ``.pth`` file.
    projection_dim : int, None or "auto", default="auto"
        Width of the projection head, a small network from features to the embedding;
        the classifier reads both. None: the features are the embedding. "auto": None
        if a backbone without pretrained weights trains, else 128.
    lora_rank : int, default=8
        Rank of the matrices of ``trainable="lora"``.

    Criterion

    weight : float, default=0.5
        Share of the contrastive term, in [0, 1]. 0 is plain cross-entropy.
    temperature : float, default=0.5
        Divisor of the cosine similarities, above 0.
    hardness : float, default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the supervised
        contrastive loss.
    positives : {"each", "mean"}, default="each"
        The contrastive term of an anchor. "each": the mean of a logarithm per positive. "mean": one
        logarithm of the mean over its positives, as the authors' code of their preceding paper
        has it, with ``weight=0.9``; see :func:`label_aware_contrastive_loss`.
    label_smoothing : float, default=0.0
        Share of the target spread over all classes in the cross-entropy; of several labels an
        image, over the yes and no of each.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn. "balanced" balances the samples of
        each call of ``partial_fit``. Of several labels an image, a weight is that of the images
        with the label, and "balanced" balances those with and without.

    Data

    augment : "auto", None or callable, default="auto"
        Random changes of the training images. "auto": crops, mirror images, brightness
        and contrast for photographs; small turns, shifts and scalings, and never a
        mirror image, if all images are grey, as digits and letters are; None if
        the backbone is frozen, which lets it run once per image. A callable maps a
        tensor (n, C, H, W) in 0..1 to another.
    n_views : int, default=1
        Augmented copies of each image in a batch, which are positives of each other.
    image_shape : tuple of int, default=None
        Shape of one image if X has two axes and holds flattened images, such as
        (8, 8) or (32, 32, 3).
    max_pixel_value : float, default=None
        Value of white in images of integers; in those of 8 bits it is 255 at most. None: 255,
        or the highest value of a 16-bit dtype, such as 65535 of ``uint16``.
    n_channels : int, default=None
        Channels of each image, such as bands of a satellite, all of which are kept. None
        finds it: 1 is grey, 3 RGB, 4 RGB and alpha, and of other arrays the shorter of the
        first and the last axis. Mean and deviation of each channel are the mean of those
        of RGB, and timm adapts the first layer of pretrained weights.

    Optimisation

    max_epochs : int or "auto", default="auto"
        Passes over the training data. "auto": 20 if a backbone trains. A head starts from a
        closed form, so with up to 1,000 samples it takes as many as show it 200 samples of a
        class (of several labels, the rarest of each sample), 20 at most. It takes 20 with more
        samples, and if ``projection_dim`` is a number, ``weight=1``, ``augment`` is a callable or
        ``early_stopping`` is set; see :ref:`head-epochs`.
    max_time : float, default=None
        Seconds that ``fit`` may take, the pass of a frozen backbone included. If ``max_epochs``
        would take longer, the learning rate falls to 0 in that time, and training
        ends there, within an epoch too. None sets no limit.
    learning_rate : float, default=1e-3
        Peak rate of AdamW for new layers: a linear warm-up, then a cosine down to 0. A
        pretrained backbone given by name learns at 0.3 of it, and keeps its
        batch statistics; your own module learns at all of it.
    layer_decay : float or "auto", default="auto"
        Each block of the backbone learns at this share of the rate of the one above.
        "auto": 0.75 for a timm backbone with attention, such as BEiT, 0.95 for another timm
        backbone, else 1.
    weight_decay : float, default=0.05
        Weight decay of AdamW, for all but norms, biases and position embeddings.
    warmup_fraction : float, default=0.1
        Share of the steps over which the learning rate rises, in [0, 1).
    max_grad_norm : float or None, default=1.0
        Upper bound of the gradient's norm.
    batch_size : int, default=32
        Samples in a batch, of all processes together. The contrastive term compares the
        samples of one batch. No batch is left with one sample: of an odd number in twos,
        three come together.
    sampler : {"auto", "shuffle", "balanced"}, default="auto"
        How samples come into batches. "balanced": samples of fewer classes, so that every
        anchor has positives; see :class:`ClassBalancedBatchSampler`. "auto": balanced
        if shuffled batches would leave more than a tenth of the anchors without.
    warm_start : bool, default=False
        A further ``fit`` continues the last one: its weights, its random
        stream, and the samples it set aside. Changed parameters take effect, except those that
        the network is built with, which raise an error.

    Validation and stopping

    early_stopping : bool, default=False
        Set samples aside, or use ``X_val`` and ``y_val`` of :meth:`fit`, stop when the score
        on them no longer rises, and restore the weights with the best score.
    scoring : str, callable or None, default="accuracy"
        Score of the validation samples for ``early_stopping``: a name of
        :func:`sklearn.metrics.get_scorer_names`, a scorer ``(estimator, X, y)``, or "loss",
        for the negative criterion. None: the accuracy. "average_precision" suits several labels
        an image, of which the accuracy wants all right.
    validation_fraction : float, default=0.1
        Share of the samples to set aside, in (0, 1), with the same share of each class.
        No effect if :meth:`fit` gets ``X_val``.
    n_iter_no_change : int, default=10
        Epochs without a rise of ``tol`` before training stops.
    tol : float, default=1e-4
        Smallest rise of the validation score that counts.

    Hardware and speed (the model stays the same but for rounding)

    device : str or torch.device, default="auto"
        Where to compute. "auto": CUDA if there is a GPU, else Apple's ``mps``, else the CPU.
    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Of the network; the criterion is always computed in float32. "auto": on a CUDA GPU
        autocast to bfloat16, or, if it has none, to float16 with a scaled loss; else
        float32.
    micro_batch_size : int, default=None
        Samples that the network runs on at a time, for a large ``batch_size`` in the
        memory of a small one, at the price of a second forward pass (GradCache [2]_).
        The gradient is that of the whole batch, but for batch statistics, which are those
        of the samples at a time, and other random numbers of dropout and stochastic depth.
    gradient_checkpointing : bool, default=False
        Save memory at the price of time, if the backbone can.
    compile : bool, default=False
        Run the network through :func:`torch.compile`.
    num_workers : int or "auto", default="auto"
        Threads that read and resize images while the network runs; 0 does it in between.
        "auto": one per core, up to 16, and none for a torch Dataset, whose code may
        not be thread-safe; a number reads a Dataset in that many processes.
    cache_size : int or "auto", default="auto"
        Bytes of decoded images that ``fit`` keeps in memory, so that later epochs
        decode nothing; a Dataset of your own is read again, because it may be random. "auto":
        as long as a quarter of the memory of the machine, or of its container, stays free.
        0 keeps none.

    Resuming

    checkpoint : path, default=None
        Folder in which ``fit`` keeps its state after each epoch, and from which the
        same ``fit`` resumes after a crash, to the same result. A folder is for one fit;
        a finished fit is returned from it. A state of other data, parameters, code or
        libraries raises an error, and so does a second fit in a folder in use. Clones, such as
        those of a search, keep each fit in a sub-folder of its own. The state of
        ``callbacks`` is not kept.

    Callbacks and options of skorch

    callbacks : list of skorch callbacks, default=None
        Callbacks for skorch. They see labels as indices into ``classes_``.
    skorch_params : dict, default=None
        Further arguments of :class:`skorch.NeuralNet`, such as
        ``{"optimizer": torch.optim.SGD}``, or ``{"callbacks__lr_scheduler": None}`` to
        put a scheduler of your own into ``callbacks``. Arguments without effect raise an error.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; the order of the columns of every output. Of several labels an image,
        the names of the columns of y in their order, or 0, 1, ...
    plan_ : FitPlan
        The decisions of the last fit, which ``print(clf.plan_)`` shows as ``verbose=1`` does:
        trainable parameters, steps, precision, device. Not after :meth:`load`.
    history_ : skorch.history.History
        Losses and durations of the epochs: a row for each, and ``history_.to_frame()`` as a data
        frame.
    n_iter_ : int
        Number of epochs run, of which ``max_time`` may cut the last one short.
    validation_scores_ : list of float or None
        Weighted score of the validation samples, by epoch of the last
        fit: higher is better, so that "loss" gives the negative one. None without early
        stopping.
    best_validation_score_ : float or None
        The highest of them.
    trainable_ : "all", "head", "lora" or int
        The trainable part of the backbone: all, nothing, low-rank matrices, or this many of its
        last blocks.
    module_ : nn.Module
        The trained network; maps images in 0..1 to logits and embeddings.
    net_ : skorch.NeuralNet
        The net that trained it.
    backbone_config_ : BackboneConfig or None
        How the backbone expects its images; None for "precomputed".
    n_features_in_ : int
        Number of columns of X; only if X has two axes.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names of X; only if X is a data frame of two axes.
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
    C in 1, 3, 4 (if both fit, the last axis holds the channels); flattened images
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
    >>> clf.plan_.n_steps, clf.plan_.precision
    (2, 'float32')
    >>> clf.transform(X[:2]).shape
    (2, 128)
    """

    _parameter_constraints: dict = {
        "backbone": [str, nn.Module],
        "trainable": [
            StrOptions({"auto", "all", "head", "lora"}),
            Interval(Integral, 1, None, closed="left"),
        ],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "memory": [str, os.PathLike, HasMethods(["cache"]), FeatureStore, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "pretrained": ["boolean", str, os.PathLike],
        "projection_dim": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "lora_rank": [Interval(Integral, 1, None, closed="left")],
        "weight": [Interval(Real, 0, 1, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "hardness": [Interval(Real, 0, None, closed="left")],
        "positives": [StrOptions({"each", "mean"})],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "augment": [StrOptions({"auto"}), callable, None],
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "image_shape": [tuple, list, None],
        "max_pixel_value": [Interval(Real, 0, None, closed="neither"), None],
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "layer_decay": [Interval(Real, 0, 1, closed="right"), StrOptions({"auto"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warmup_fraction": [Interval(Real, 0, 1, closed="left")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "sampler": [StrOptions({"auto", "shuffle", "balanced"})],
        "warm_start": ["boolean"],
        "early_stopping": ["boolean"],
        "scoring": [str, callable, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "micro_batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "gradient_checkpointing": ["boolean"],
        "compile": ["boolean"],
        "num_workers": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "cache_size": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "checkpoint": [str, os.PathLike, None],
        "callbacks": [list, None],
        "skorch_params": [dict, None],
    }

    _is_clone = False  # made by a search or another meta-estimator, for fits of its own
    _known_outputs: tuple[Any, tuple[Tensor, Tensor]] | None = None  # of X, in training

    @suggests_parameters
    def __init__(
        self,
        backbone: str | nn.Module = "efficientnet_lite0",
        *,
        trainable: Literal["auto", "all", "head", "lora"] | int = "auto",
        image_size: int | None = None,
        memory: str | os.PathLike[str] | joblib.Memory | FeatureStore | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
        pretrained: bool | str | os.PathLike[str] = True,
        projection_dim: int | Literal["auto"] | None = "auto",
        lora_rank: int = 8,
        weight: float = 0.5,
        temperature: float = 0.5,
        hardness: float = 1.0,
        positives: Literal["each", "mean"] = "each",
        label_smoothing: float = 0.0,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        augment: Callable[[Tensor], Tensor] | Literal["auto"] | None = "auto",
        n_views: int = 1,
        image_shape: tuple[int, ...] | list[int] | None = None,
        max_pixel_value: float | None = None,
        n_channels: int | None = None,
        max_epochs: int | Literal["auto"] = "auto",
        max_time: float | None = None,
        learning_rate: float = 1e-3,
        layer_decay: float | Literal["auto"] = "auto",
        weight_decay: float = 0.05,
        warmup_fraction: float = 0.1,
        max_grad_norm: float | None = 1.0,
        batch_size: int = 32,
        sampler: Literal["auto", "shuffle", "balanced"] = "auto",
        warm_start: bool = False,
        early_stopping: bool = False,
        scoring: str | Callable[..., float] | None = "accuracy",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        device: str | torch.device = "auto",
        precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        micro_batch_size: int | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        num_workers: int | Literal["auto"] = "auto",
        cache_size: int | Literal["auto"] = "auto",
        checkpoint: str | os.PathLike[str] | None = None,
        callbacks: list[Any] | None = None,
        skorch_params: dict[str, Any] | None = None,
    ) -> None:
        self.backbone = backbone
        self.trainable = trainable
        self.image_size = image_size
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose
        self.pretrained = pretrained
        self.projection_dim = projection_dim
        self.lora_rank = lora_rank
        self.weight = weight
        self.temperature = temperature
        self.hardness = hardness
        self.positives = positives
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.augment = augment
        self.n_views = n_views
        self.image_shape = image_shape
        self.max_pixel_value = max_pixel_value
        self.n_channels = n_channels
        self.max_epochs = max_epochs
        self.max_time = max_time
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.max_grad_norm = max_grad_norm
        self.batch_size = batch_size
        self.sampler = sampler
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.device = device
        self.precision = precision
        self.micro_batch_size = micro_batch_size
        self.gradient_checkpointing = gradient_checkpointing
        self.compile = compile
        self.num_workers = num_workers
        self.cache_size = cache_size
        self.checkpoint = checkpoint
        self.callbacks = callbacks
        self.skorch_params = skorch_params

    classes_: np.ndarray
    net_: CLCENet
    n_iter_: int
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    n_features_in_: int
    feature_names_in_: np.ndarray

    @with_callbacks
    @joint
    def fit(
        self,
        X: Any,
        y: Labels | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Labels | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fine-tune on labelled images.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind listed in the notes of the class; feature vectors for
            ``backbone="precomputed"``.
        y : array-like of shape (n_samples,) or (n_samples, n_classes), or sparse matrix
            Labels: strings, integers, bools or NumPy's dates, all of one kind. Required, for a
            Dataset too. Of several labels an image, a column of 0 and 1 for each label; a data
            frame names them. NaN, or a masked entry, means that a label is not annotated: it
            counts nowhere.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weight of each sample in both terms of the criterion. Only their
            ratios count; a sample of weight 0 is left out.
        X_val : array-like of images, or of shape (n_validation, n_features), default=None
            Samples for ``early_stopping=True`` to watch, of the same kinds as X; none of X
            is set aside then.
        y_val : array-like of shape (n_validation,) or (n_validation, n_classes), default=None
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
            If a path in X leads to no file.
        OSError
            If pretrained weights can't be reached.
        """
        self._validate_params()
        n_epochs = None if isinstance(self.max_epochs, str) else self.max_epochs  # None: not known
        task = self._init_callback_context(max_subtasks=n_epochs)
        if task is not None:
            task.call_on_fit_task_begin(estimator=self, X=X, y=y)
        with own_torch(), unchanged_on_error(self):
            is_continuation = self.warm_start and hasattr(self, "classes_")
            if not is_continuation:
                self._forget_columns()
            check_not_swapped(X, y)
            samples = self._read(X, reset=not is_continuation)
            outputs = self._outputs if is_continuation else outputs_for(y)
            target = outputs.first_target(samples, y, sample_weight, self.class_weight)
            if is_continuation and not np.array_equal(target.classes, self.classes_):
                raise ValueError(
                    f"warm_start=True: y holds the classes {target.classes.tolist()}, the fit "
                    f"before had {self.classes_.tolist()}; set warm_start=False to start again"
                )
            self.classes_ = target.classes
            fit_task = task and FitTask(task, self, X, y)
            validation = read_validation_set(
                X_val,
                y_val,
                sample_weight_val,
                read=lambda X: self._read(X, reset=False, like=samples),
                outputs=outputs,
                classes=target.classes,
                early_stopping=self.early_stopping,
            )
            self._train(
                LabelledSamples(samples, target, np.arange(len(target)), X),
                previous=self.net_ if is_continuation else None,
                validation=validation,
                fit_task=fit_task,
            )
        if task is not None:
            task.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    @joint
    def partial_fit(
        self,
        X: Any,
        y: Labels,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one more pass over some labelled images.

        The learning rate stays at its peak. k calls are k epochs of one long fit, with other
        random numbers in each. Parameters that have changed since the last call take
        effect, except ``backbone``, ``pretrained``, ``image_size`` and ``projection_dim``,
        which raise an error.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_classes), or sparse matrix
            Labels, all of them in ``classes``; of several an image, as in :meth:`fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come, in any order: the first samples of a class give
            it a start. Required in the first call, unless :meth:`fit` came before, or y has a
            column for each, whose names they then are.
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
        with own_torch(), unchanged_on_error(self):
            is_continuation = hasattr(self, "classes_")
            check_not_swapped(X, y)
            samples = self._read(X, reset=not is_continuation)
            outputs = self._outputs if is_continuation else outputs_for(y)
            self.classes_ = outputs.known_classes(y, classes, getattr(self, "classes_", None))
            target = outputs.known_target(
                samples, y, self.classes_, sample_weight, self.class_weight
            )
            previous = self.net_ if is_continuation else None
            data = LabelledSamples(samples, target, np.arange(len(target)), X)
            self._train(data, previous=previous, is_partial_fit=True)
        return self

    @joint
    def predict(self, X: Any) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Labels, of the dtype of ``classes_``; of several an image, 1 for each with a
            probability above 0.5, else 0.
        """
        logits, _ = self._infer(X)
        return self._outputs.labels(logits, self.classes_)

    def score(self, X: Any, y: Labels, sample_weight: ArrayLike | None = None) -> float:
        """Compute the accuracy; of several labels an image, the share of images with all right.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_classes), or sparse matrix
            True labels. One that is not in ``classes_`` counts as a miss, and one that is not
            annotated as right.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample.

        Returns
        -------
        float
            Share of the samples whose prediction is right.

        Raises
        ------
        ValueError
            If y holds labels of another kind than ``classes_``.
        """
        check_is_fitted(self)
        truth = self._outputs.truth(y, self.classes_)
        return self._outputs.accuracy(truth, self.predict(X), sample_weight)

    @joint
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float32
            Probabilities in the order of ``classes_``; of several labels an image, each is
            that of its label alone.
        """
        logits, _ = self._infer(X)
        return self._outputs.probabilities(logits).numpy()

    @joint
    def decision_function(self, X: Any) -> np.ndarray:
        """Compute class scores.

        Parameters
        ----------
        X : array-like of images, or of shape (n_samples, n_features)
            Images of any kind, or feature vectors, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (n_samples,), float32
            Logits in the order of ``classes_``; for two classes that exclude each other the logit
            of the second minus that of the first.
        """
        logits, _ = self._infer(X)
        return self._outputs.decisions(logits).numpy()

    @joint
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
    def module_(self) -> Network:
        """The trained network; maps images in 0..1 to logits and embeddings."""
        return self.net_.module_

    @property
    def trainable_(self) -> str | int:
        """The trainable part of the backbone, in the notation of ``trainable``."""
        return trainable_of(self.module_)

    @property
    def plan_(self) -> FitPlan:
        """The decisions of the last fit; ``print`` shows them in a line."""
        plan = self.net_.plan
        if plan.n_samples == 0:
            raise AttributeError("plan_ is that of a fit, which a model file does not hold")
        return plan

    @property
    def history_(self) -> TrainingHistory:
        """Losses and durations of the epochs."""
        return self.net_.history_

    @property
    def backbone_config_(self) -> BackboneConfig | None:
        """How the backbone expects its images; None for "precomputed"."""
        return self.module_.config

    @property
    def _n_features_out(self) -> int:
        return self.module_.head.n_embedding

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = not self._precomputed
        tags.classifier_tags.multi_label = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _outputs(self) -> Outputs:
        return self.module_.outputs

    @property
    def _precomputed(self) -> bool:
        return isinstance(self.backbone, str) and self.backbone == "precomputed"

    def _read(self, X: Any, *, reset: bool, like: Any = None, checked: bool = True) -> Samples:
        """Return X as a tensor of features, or as a sequence of images.

        ``like``: samples of this fit, for others that come with them. ``checked``: files exist.
        """
        if self._precomputed:
            check_not_images(X)
            check_not_masked(X)
            X = validate_data(self, to_numpy(X), dtype=np.float32, reset=reset)
            as_torch_takes_it = np.require(X, requirements=["C", "A", "W"])
            return torch.from_numpy(as_torch_takes_it)
        n_channels, colour = self.n_channels, None
        if not reset:
            known = self.backbone_config_ if like is None else like
            if known is not None and known.n_channels not in (None, 1, 3):
                n_channels = known.n_channels
            colour = getattr(self, "_saw_colour", None)
        images = as_images(
            X,
            image_shape=self.image_shape,
            max_pixel_value=self.max_pixel_value,
            n_channels=n_channels,
            colour=colour,
            checked=checked,
        )
        if reset:
            self._saw_colour = not images.has_one_channel
        if getattr(images, "flattened", False):
            validate_data(self, X, skip_check_array=True, reset=reset)
        return images

    def _forget_columns(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)

    def _train(
        self,
        data: LabelledSamples,
        *,
        previous: CLCENet | None,
        is_partial_fit: bool = False,
        validation: ValidationSet | None = None,
        fit_task: FitTask | None = None,
    ) -> None:
        """Train, and store what the fit gave."""
        with bar(what="preparing", shown=bool(self.verbose) and is_main()):
            fitted = fit_net(
                self,
                data,
                previous=previous,
                is_partial_fit=is_partial_fit,
                validation=validation,
                fit_task=fit_task,
            )
        if not is_partial_fit:
            self._forget_offset()
        self.net_ = fitted.net
        self.n_iter_ = len(fitted.net.history_)
        self.validation_scores_ = fitted.validation_scores
        self.best_validation_score_ = fitted.best_validation_score

    def _infer(self, X: Any) -> tuple[Tensor, Tensor]:
        """Return logits and embeddings of X, on the CPU."""
        check_is_fitted(self)
        if self._known_outputs is not None and X is self._known_outputs[0]:
            return self._known_outputs[1]
        with own_torch():
            logits, embeddings = infer(self.net_, self._read(X, reset=False), self._passes())
        return logits, embeddings

    def _passes(self) -> Passes:
        """Decide how the fitted net runs over samples."""
        return plan_passes(self, self.net_.device)

    def _with_known_outputs(self, net: CLCENet, X: Any, outputs: tuple[Tensor, Tensor]) -> Self:
        """Return a copy in training, which answers for X with known outputs."""
        copied = copy.copy(self)
        copied.net_, copied._known_outputs = net, (X, outputs)
        copied.n_iter_ = len(net.history_)
        past = net.history_[net.state.epochs_before : -1]  # the last epoch is being scored
        copied.validation_scores_ = [epoch["valid_score"] for epoch in past]
        copied.best_validation_score_ = max(copied.validation_scores_, default=None)
        return copied

    def _validate_params(self) -> None:
        """Check all values, and reject True if it would count as the number 1."""
        super()._validate_params()
        scorers = [*get_scorer_names(), "loss"]
        if isinstance(self.scoring, str) and self.scoring not in scorers:
            raise InvalidParameterError(
                f"scoring={self.scoring!r}: a name of sklearn.metrics.get_scorer_names(), 'loss', "
                f"a callable or None is required.{suggestion(self.scoring, scorers)}"
            )
        for name, value in self.get_params(deep=False).items():
            kinds = [kind for kind in self._parameter_constraints[name] if isinstance(kind, str)]
            if isinstance(value, bool) and not ACCEPT_BOOL.intersection(kinds):
                wanted = (
                    "'auto', 'all', 'head', 'lora' or a number of blocks"
                    if name == "trainable"
                    else "a number"
                )
                raise InvalidParameterError(f"{name}={value!r}: {wanted} is required")

    def __sklearn_clone__(self) -> Self:
        """Make a copy that is marked as one."""
        clone = super().__sklearn_clone__()
        clone._is_clone = True
        return clone

    if TYPE_CHECKING:  # scikit-learn has no types

        def fit_transform(
            self, X: Any, y: ArrayLike | None = None, **fit_params: Any
        ) -> np.ndarray: ...

        def get_feature_names_out(self, input_features: Any = None) -> np.ndarray: ...
