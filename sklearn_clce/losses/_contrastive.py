"""The label-aware contrastive loss, as a function and as a module.

Everything is computed in log space or with exponentials that fit, in float32 or wider, also
under autocast, because ``exp(1 / temperature)`` does not fit half precision below a
temperature of 0.09.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._anchors import anchor_losses
from ._checks import check_labels, check_mask, check_samples, check_settings, check_weights
from ._gathering import gathered, warn_if_apart
from ._pairs import Pairs, pairs_by_label, pairs_by_mask


def label_aware_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.5,
    hardness: float | Tensor = 1.0,
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

    where *h* is the hardness. An anchor without a positive is not counted; a batch
    without a positive pair gives exactly 0, with zero gradients.

    Parameters
    ----------
    embeddings : Tensor of shape (n, n_dims)
        Embeddings, L2-normalised here. One of zeros stays zero.
    labels : Tensor of shape (n,), default=None
        Labels, of an integer dtype; no value has a meaning of its own. Left out where
        ``positive_mask`` says what is positive.
    temperature : float or Tensor of shape (), default=0.5
        Divisor of the cosine similarities, above 0. A tensor gets a gradient.
    hardness : float or Tensor of shape (), default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the
        supervised contrastive loss ``L_out`` of [1]_; above 0, negatives are
        weighted in the way of [2]_ and [3]_. Gradients flow through the weights. A
        tensor gets a gradient.
    sample_weight : Tensor of shape (n,), default=None
        Non-negative weight of each sample as an anchor.
    references : Tensor of shape (m, n_dims), default=None
        Embeddings that anchors are compared with beside those of the batch, such as
        those of earlier batches. They are no anchors; they get a gradient if they
        require one.
    reference_labels : Tensor of shape (m,), default=None
        Their labels.
    positive_mask : Tensor of shape (n, n + m), default=None
        In place of labels: True where the column is a positive of the anchor, else it
        is a negative. Columns are the batch, then the references. What it says of an
        anchor and itself is not looked at.
    reduction : {"mean", "none"}, default="mean"
        "none" gives the loss of each anchor, times its weight; 0 without a positive.
    form : {"auto", "plain", "blocks"}, default="auto"
        How to compute the same value. "plain" has derivatives of any order and works
        under ``torch.func``; "blocks" needs memory of n x block instead of n x (n + m)
        and has first derivatives. "auto" takes blocks for large batches, and for small
        ones a faster plain form.
    gather : bool, default=None
        Whether samples of all processes of ``torch.distributed`` make one batch, the
        same in each of them, for a model under ``DistributedDataParallel``. Counts may
        differ; references and ``positive_mask`` are those of the whole batch. None is
        False, with a warning where there are several processes.

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
        If ``form="blocks"`` can't give what is asked.

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
    check_settings(temperature=temperature, hardness=hardness, reduction=reduction, form=form)
    warn_if_apart(gather)
    embeddings = gathered("embeddings", embeddings, gather)
    labels = gathered("labels", labels, gather)
    sample_weight = gathered("sample_weight", sample_weight, gather)
    check_samples("embeddings", embeddings)
    if labels is not None:
        labels = check_labels("labels", labels, "embeddings", embeddings)
    if sample_weight is not None:
        sample_weight = check_weights(
            "sample_weight", sample_weight, embeddings.shape[0], "samples"
        )
    pairs = check_pairs(embeddings, labels, references, reference_labels, positive_mask)
    return reduced_loss(
        embeddings, references, pairs, sample_weight, temperature, hardness, reduction, form
    )


def check_pairs(
    embeddings: Tensor,
    labels: Tensor | None,
    references: Tensor | None,
    reference_labels: Tensor | None,
    positive_mask: Tensor | None,
) -> Pairs:
    """Return what is compared with what; raise an error unless exactly one way to say it is used.

    Labels have been checked.
    """
    n_columns = embeddings.shape[0]
    if references is not None:
        check_samples("references", references, may_be_empty=True)
        n_columns = n_columns + references.shape[0]
        if references.shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"references of shape {tuple(references.shape)}: as many dimensions as the "
                f"{embeddings.shape[1]} of embeddings are required"
            )
    if (labels is None) == (positive_mask is None):
        raise ValueError("labels and positive_mask: exactly one of them is required")
    if (reference_labels is not None) != (references is not None and labels is not None):
        raise ValueError(
            "reference_labels: required with references and labels, and without them left out"
        )
    if labels is None:
        return pairs_by_mask(check_mask(positive_mask, embeddings.shape[0], n_columns))
    if references is None:
        return pairs_by_label(labels)
    reference_labels = check_labels("reference_labels", reference_labels, "references", references)
    return pairs_by_label(torch.cat([labels, reference_labels]), labels.shape[0])


def reduced_loss(
    embeddings: Tensor,
    references: Tensor | None,
    pairs: Pairs,
    sample_weight: Tensor | None,
    temperature: float | Tensor,
    hardness: float | Tensor,
    reduction: str,
    form: str,
) -> Tensor:
    """Compute the contrastive loss of a batch that has been checked."""
    losses, weights = anchor_losses(embeddings, references, pairs, temperature, hardness, form)
    total = weights.sum().clamp(min=1)
    if sample_weight is not None:
        weights = weights * sample_weight.to(losses.dtype)
        total = weights.sum()
        total = torch.where(total > 0, total, 1)
    if reduction == "none":
        return losses * weights
    return torch.dot(losses, weights / total)


class LabelAwareContrastiveLoss(nn.Module):
    """Label-aware contrastive loss with weighted hard negatives.

    Parameters
    ----------
    temperature : float or Tensor of shape (), default=0.5
        Divisor of the cosine similarities, above 0. An :class:`torch.nn.Parameter` is
        learned.
    hardness : float or Tensor of shape (), default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the
        supervised contrastive loss.
    reduction : {"mean", "none"}, default="mean"
        "none" gives the loss of each anchor.
    form : {"auto", "plain", "blocks"}, default="auto"
        How to compute it, see :func:`label_aware_contrastive_loss`.
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
        reduction: str = "mean",
        form: str = "auto",
        gather: bool | None = None,
    ) -> None:
        super().__init__()
        check_settings(temperature=temperature, hardness=hardness, reduction=reduction, form=form)
        self.temperature = temperature
        self.hardness = hardness
        self.reduction = reduction
        self.form = form
        self.gather = gather

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
        embeddings : Tensor of shape (n, n_dims)
            Embeddings, L2-normalised here.
        labels : Tensor of shape (n,), default=None
            Labels, of an integer dtype; left out with ``positive_mask``.
        sample_weight : Tensor of shape (n,), default=None
            Non-negative weight of each sample as an anchor.
        references : Tensor of shape (m, n_dims), default=None
            Embeddings that anchors are compared with beside those of the batch.
        reference_labels : Tensor of shape (m,), default=None
            Their labels.
        positive_mask : Tensor of shape (n, n + m), default=None
            In place of labels, whether the column is a positive of the anchor.

        Returns
        -------
        Tensor of shape () or (n,)
            The loss.
        """
        return label_aware_contrastive_loss(
            embeddings,
            labels,
            temperature=self.temperature,
            hardness=self.hardness,
            sample_weight=sample_weight,
            references=references,
            reference_labels=reference_labels,
            positive_mask=positive_mask,
            reduction=self.reduction,
            form=self.form,
            gather=self.gather,
        )

    def extra_repr(self) -> str:
        """Show the settings in the module's repr.

        Returns
        -------
        str
            The settings.
        """
        return shown_settings(self, "temperature", "hardness", "reduction", "form", "gather")


def shown_settings(module: nn.Module, *names: str) -> str:
    """Return settings as ``name=value``, tensors as plain numbers."""
    values = {name: getattr(module, name) for name in names}
    return ", ".join(
        f"{name}={value.tolist() if isinstance(value, Tensor) else value!r}"
        for name, value in values.items()
    )
