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
from ._forms import anchor_losses
from ._pairs import make_pairs

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
    positive_weights: Tensor | None = None,
    negative_mask: Tensor | None = None,
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
        Instead of labels: True where the column is a positive of the anchor. Columns are
        the batch, then the references. The entries of an anchor and itself are ignored.
    positive_weights : Tensor of shape (n, n + m), default=None
        How much each positive of ``positive_mask`` counts for its anchor, at least 0: the
        mean over positives becomes a weighted mean. Equal weights are the same as None, and
        other pairs' weights are ignored. An anchor whose positives all have the weight 0 has
        no positive. They are constants, without a gradient.
    negative_mask : Tensor of shape (n, n + m), default=None
        True where the column is a negative of the anchor. A pair in neither mask is left
        out: its relation is not known. None: every pair that is not a positive.
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
        differ; references, masks and ``positive_weights`` are those of the whole batch. None
        is False, with a warning if there are several processes.

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
    label_set_pairs : Masks and weights of samples with several labels.

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
    return contrastive_loss(
        embeddings,
        labels,
        sample_weight,
        temperature=temperature,
        hardness=hardness,
        positives=positives,
        reduction=reduction,
        form=form,
        references=references,
        reference_labels=reference_labels,
        positive_mask=positive_mask,
        positive_weights=positive_weights,
        negative_mask=negative_mask,
    )


def contrastive_loss(
    embeddings: Tensor,
    labels: Tensor | None,
    sample_weight: Tensor | None,
    *,
    temperature: float | Tensor,
    hardness: float | Tensor,
    positives: str,
    reduction: str,
    form: str,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    positive_mask: Tensor | None = None,
    positive_weights: Tensor | None = None,
    negative_mask: Tensor | None = None,
) -> Tensor:
    """Compute the contrastive term of a batch whose settings and weights have been checked."""
    masks = positive_mask, positive_weights, negative_mask
    pairs = make_pairs(embeddings, labels, references, reference_labels, *masks)
    losses, weights = anchor_losses(
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
        positive_weights: Tensor | None = None,
        negative_mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of one batch.

        Parameters
        ----------
        embeddings, labels, sample_weight : Tensor
            See :func:`label_aware_contrastive_loss`, also for the parameters below.
        references, reference_labels : Tensor, default=None
            What anchors are compared with in addition.
        positive_mask, positive_weights, negative_mask : Tensor, default=None
            Which pairs are positive, by how much, and which are negative.

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
            positive_weights=positive_weights,
            negative_mask=negative_mask,
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


def _reduced(
    losses: Tensor, has_positive: Tensor, sample_weight: Tensor | None, reduction: str
) -> Tensor:
    """Return the weighted mean over anchors with a positive, or the weighted losses, (n,)."""
    weights = has_positive
    if sample_weight is None:
        total = weights.sum().clamp(min=1)
    else:
        weights = weights * sample_weight.to(losses.dtype)
        total = weights.sum()
        total = torch.where(total > 0, total, 1)
    return losses * weights if reduction == "none" else torch.dot(losses, weights / total)
