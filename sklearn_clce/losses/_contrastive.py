"""The label-aware contrastive loss, as a function and as a module.

Everything is computed in log space or with exponentials that fit, in float32 or wider, also
under autocast, because ``exp(1 / temperature)`` does not fit half precision below a
temperature of 0.09.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_samples, check_settings, check_weights, gathered, warn_if_apart
from ._fast import LARGEST_EXPONENT, matrix_anchor_losses, tiled_anchor_losses
from ._pairs import Pairs, make_pairs
from ._plain import is_transformed, l2_normalise, plain_anchor_losses

# A batch of so many is computed in tiles, by type of device; other types are taken for CUDA.
# Both are measured: on one thread with 128 to 768 dimensions, and on an H200 with 768, where the
# matrix is faster below 16,384 but takes 2.6 GB at 8,192, and tiles 0.4.
TILES_FROM = {"cpu": 640, "cuda": 8192}
CONTRASTIVE_SETTINGS = "temperature", "hardness", "positives", "reduction", "form"


def label_aware_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.5,
    hardness: float | Tensor = 1.0,
    positives: str = "each",
    sample_weight: Tensor | None = None,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    positive_mask: Tensor | None = None,
    reduction: str = "mean",
    form: str = "auto",
    gather: bool | None = None,
) -> Tensor:
    r"""Contrastive term of one batch: samples of a label attract, others repel.

    With :math:`s_{ij}` the cosine similarity of samples i and j over the temperature,
    P(i) the other samples with the label of anchor i, N(i) those with another, and A
    the anchors that have a positive,

    .. math::

        L = \frac{1}{|A|} \sum_{i \in A} \frac{-1}{|P(i)|}
            \sum_{p \in P(i)} \log \frac{e^{s_{ip}}}
            {\sum_{q \in P(i)} e^{s_{iq}} + \sum_{k \in N(i)} w_{ik} e^{s_{ik}}},
        \qquad
        w_{ik} = |N(i)| \frac{e^{h s_{ik}}}{\sum_{j \in N(i)} e^{h s_{ij}}}

    where *h* is the hardness. That is ``positives="each"``, the mean of the logarithms of
    an anchor's positives. ``positives="mean"``, the authors' term [4]_, is the logarithm of
    the mean of its positives, which is in the denominator too,

    .. math::

        L = \frac{1}{|A|} \sum_{i \in A} -\log \frac{p_i}{p_i + \sum_{k \in N(i)}
            w_{ik} e^{s_{ik}}}, \qquad p_i = \frac{1}{|P(i)|} \sum_{p \in P(i)} e^{s_{ip}}

    so there the loss of an anchor without a negative is 0. In both an anchor without a
    positive is not counted; a batch without a positive pair gives exactly 0, with zero
    gradients.

    Parameters
    ----------
    embeddings : Tensor of shape (n, n_dims)
        Embeddings, L2-normalised here. One of zeros stays zero.
    labels : Tensor of shape (n,), default=None
        Labels, of an integer dtype; any value is allowed. None if ``positive_mask``
        defines the positives.
    temperature : float or Tensor of shape (), default=0.5
        Divisor of the cosine similarities, above 0. A tensor gets a gradient.
    hardness : float or Tensor of shape (), default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the
        supervised contrastive loss ``L_out`` of [1]_; above 0, negatives are
        weighted in the way of [2]_ and [3]_. Gradients flow through the weights. A
        tensor gets a gradient.
    positives : {"each", "mean"}, default="each"
        Whether to take the logarithm of each positive or one of their mean. "mean" with
        ``hardness=1``, ``temperature=0.5`` and a weight of 0.9 in :class:`CLCELoss` is
        what the authors computed.
    sample_weight : Tensor of shape (n,), default=None
        Non-negative weight of each sample as an anchor.
    references : Tensor of shape (m, n_dims), default=None
        Embeddings that anchors are compared with in addition to those of the batch, such
        as those of older batches. They are not anchors; they get a gradient if they
        require one.
    reference_labels : Tensor of shape (m,), default=None
        Their labels.
    positive_mask : Tensor of shape (n, n + m), default=None
        Instead of labels: True where the column is a positive of the anchor, else it
        is a negative. Columns are the batch, then the references. The entries of an
        anchor and itself are ignored.
    reduction : {"mean", "none"}, default="mean"
        "none" gives the loss of each anchor, times its weight; 0 without a positive.
    form : {"auto", "plain", "tiles"}, default="auto"
        How to compute the same value. "plain" has derivatives of any order and works
        under ``torch.func``; "tiles" needs memory of n x tile instead of n x (n + m)
        and has first derivatives. "auto" takes tiles for large batches, and for small
        ones a faster plain form.
    gather : bool, default=None
        Whether samples of all processes of ``torch.distributed`` make one batch, the
        same in each of them, for a model under ``DistributedDataParallel``. Counts may
        differ; references and ``positive_mask`` are those of the whole batch. None is
        False, with a warning if there are several processes.

    Returns
    -------
    Tensor of shape () or (n,)
        The loss, in float32 or in the wider dtype of ``embeddings``.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or a setting or weight is out of its range.
    TypeError
        If an argument is not a tensor of the right dtype.
    NotImplementedError
        If ``form="tiles"`` can't compute what is asked for.

    See Also
    --------
    LabelAwareContrastiveLoss : The same as a module.

    References
    ----------
    .. [1] Khosla, P. et al. "Supervised Contrastive Learning", NeurIPS 2020.
    .. [2] Robinson, J. et al. "Contrastive Learning with Hard Negative Samples",
       ICLR 2021.
    .. [3] Jiang, R. et al. "Supervised Contrastive Learning with Hard Negative
       Samples", arXiv:2209.00078, 2022.
    .. [4] Official code of SCHaNe, arXiv:2308.14893, 2023, by Long, Z. et al., which CLCE,
       arXiv:2402.14551, 2024, continues.

    Examples
    --------
    >>> import torch
    >>> from sklearn_clce import label_aware_contrastive_loss
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    >>> apart = label_aware_contrastive_loss(embeddings, torch.tensor([0, 1, 0, 1]))
    >>> mixed = label_aware_contrastive_loss(embeddings, torch.tensor([0, 0, 1, 1]))
    >>> print(f"{apart:.3f} {mixed:.3f}")
    0.240 2.657
    """
    check_settings(
        temperature=temperature,
        hardness=hardness,
        positives=positives,
        reduction=reduction,
        form=form,
    )
    warn_if_apart(gather)
    embeddings, labels, sample_weight = gathered(
        gather, embeddings=embeddings, labels=labels, sample_weight=sample_weight
    )
    check_samples("embeddings", embeddings)
    if sample_weight is not None:
        n = embeddings.shape[0]
        sample_weight = check_weights("sample_weight", sample_weight, n, "samples")
    pairs = make_pairs(embeddings, labels, references, reference_labels, positive_mask)
    losses, weights = _anchor_losses(
        embeddings, references, pairs, temperature, hardness, positives, form
    )
    return _reduced(losses, weights, sample_weight, reduction)


class LabelAwareContrastiveLoss(nn.Module):
    """Label-aware contrastive loss with weighted hard negatives.

    Parameters
    ----------
    temperature, hardness : float or Tensor of shape ()
        See :func:`label_aware_contrastive_loss`, also for the parameters below. A
        :class:`torch.nn.Parameter` is learned.
    positives, reduction, form : str
        How positives are combined, a loss for the batch or for each anchor, and how to
        compute it.
    gather : bool, default=None
        Whether samples of all processes of ``torch.distributed`` make one batch.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    See Also
    --------
    label_aware_contrastive_loss : The same as a function, with the formula.

    Examples
    --------
    >>> import torch
    >>> from sklearn_clce import LabelAwareContrastiveLoss
    >>> criterion = LabelAwareContrastiveLoss(temperature=0.5)
    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> criterion(embeddings, torch.tensor([0, 1, 2])).item()  # no positive pair
    0.0
    """

    def __init__(
        self,
        temperature: float | Tensor = 0.5,
        hardness: float | Tensor = 1.0,
        *,
        positives: str = "each",
        reduction: str = "mean",
        form: str = "auto",
        gather: bool | None = None,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.hardness = hardness
        self.positives = positives
        self.reduction = reduction
        self.form = form
        self.gather = gather
        check_settings(**self._settings())

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in CONTRASTIVE_SETTINGS}

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        sample_weight: Tensor | None = None,
        *,
        references: Tensor | None = None,
        reference_labels: Tensor | None = None,
        positive_mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of one batch.

        Parameters
        ----------
        embeddings, labels, sample_weight : Tensor
            See :func:`label_aware_contrastive_loss`, also for the parameters below.
        references, reference_labels, positive_mask : Tensor, default=None
            What anchors are compared with, and which pairs are positive.

        Returns
        -------
        Tensor of shape () or (n,)
            The loss.
        """
        return label_aware_contrastive_loss(
            embeddings,
            labels,
            sample_weight=sample_weight,
            references=references,
            reference_labels=reference_labels,
            positive_mask=positive_mask,
            gather=self.gather,
            **self._settings(),
        )

    def extra_repr(self) -> str:
        """Show the settings in the module's repr.

        Returns
        -------
        str
            The settings.
        """
        return shown_settings(self, *CONTRASTIVE_SETTINGS, "gather")


def shown_settings(module: nn.Module, *names: str) -> str:
    """Return settings as ``name=value``, tensors as plain numbers."""
    values = {name: getattr(module, name) for name in names}
    return ", ".join(
        f"{name}={value.tolist() if isinstance(value, Tensor) else value!r}"
        for name, value in values.items()
    )


def _anchor_losses(
    embeddings: Tensor,
    references: Tensor | None,
    pairs: Pairs,
    temperature: float | Tensor,
    hardness: float | Tensor,
    positives: str,
    form: str,
) -> tuple[Tensor, Tensor]:
    """Return the loss of each anchor, (n,), and whether it has a positive, as 0 or 1.

    Without a positive the loss is finite, unless a NaN is in the batch.
    """
    temperature, hardness = _scalar(temperature), _scalar(hardness)
    form = _choose_form(form, embeddings, references, pairs, temperature, hardness)
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = at_least_float32(embeddings)
        if form == "matrix":
            assert isinstance(temperature, float)
            assert isinstance(hardness, float)
            return matrix_anchor_losses(embeddings, pairs, temperature, hardness, positives)
        length = temperature**-0.5  # products are then similarities over the temperature
        columns, n_trained = l2_normalise(embeddings, length), pairs.n_anchors
        if references is not None:
            scaled = l2_normalise(references.to(columns.dtype), length)
            columns = torch.cat([columns, scaled])  # (N, n_dims)
            n_trained = pairs.n_columns if scaled.requires_grad else n_trained
        if form == "plain":
            return plain_anchor_losses(columns, pairs, hardness, positives)
        assert isinstance(hardness, float)
        settings = hardness, positives, _largest_exponent(temperature, hardness)
        return tiled_anchor_losses(columns, pairs, *settings, n_trained)


def _choose_form(
    form: str,
    embeddings: Tensor,
    references: Tensor | None,
    pairs: Pairs,
    temperature: float | Tensor,
    hardness: float | Tensor,
) -> str:
    """Return "plain", "matrix" or "tiles"; raise an error for tiles that would be wrong."""
    obstacle = _obstacle_to_fast_forms(embeddings, references, temperature, hardness)
    if form == "tiles" and obstacle:
        raise NotImplementedError(f"form='tiles' {obstacle}: form='auto' or 'plain' is required")
    if form != "auto" or obstacle:
        return "tiles" if form == "tiles" else "plain"
    free_size = isinstance(pairs.n_anchors, torch.SymInt)  # export takes no branch for it
    tiles_from = TILES_FROM.get(embeddings.device.type, TILES_FROM["cuda"])
    if not free_size and pairs.n_anchors * pairs.n_columns >= tiles_from**2:
        return "tiles"
    # A compiler fuses the plain form; the matrix is for the usual case alone.
    unusual = references is not None or isinstance(temperature, Tensor)
    return "plain" if unusual or torch.compiler.is_compiling() else "matrix"


def _obstacle_to_fast_forms(
    embeddings: Tensor,
    references: Tensor | None,
    temperature: float | Tensor,
    hardness: float | Tensor,
) -> str | None:
    if isinstance(hardness, Tensor):
        return "has no gradient by a hardness that is a tensor"
    if is_transformed(embeddings, references, temperature):
        return "has no forward mode and none of torch.func's transforms"
    if isinstance(temperature, Tensor) and torch.compiler.is_compiling():
        return "can't be compiled with a temperature that is a tensor"
    has_float64 = embeddings.device.type != "mps"
    limit = LARGEST_EXPONENT[torch.float64 if has_float64 else torch.float32]
    if _largest_exponent(temperature, hardness) > limit:
        return f"overflows where (1 + hardness) / temperature is above {limit}"
    return None


def _largest_exponent(temperature: float | Tensor, hardness: float) -> float:
    value = temperature.item() if isinstance(temperature, Tensor) else temperature
    return (1 + hardness) / value


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in its own dtype or in float32, whichever is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _scalar(value: float | Tensor) -> float | Tensor:
    return at_least_float32(value).reshape(()) if isinstance(value, Tensor) else float(value)


def _reduced(
    losses: Tensor, has_positive: Tensor, sample_weight: Tensor | None, reduction: str
) -> Tensor:
    """Return the weighted mean over anchors with a positive, or the weighted losses, (n,)."""
    weights, total = has_positive, has_positive.sum().clamp(min=1)
    if sample_weight is not None:
        weights = weights * sample_weight.to(losses.dtype)
        total = weights.sum()
        total = torch.where(total > 0, total, 1)
    return losses * weights if reduction == "none" else torch.dot(losses, weights / total)
