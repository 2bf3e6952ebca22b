"""The CLCE criterion: cross-entropy plus a label-aware contrastive term.

Functions for use in any training loop, and the same as modules. Everything is
computed in log space and in float32 or wider, also under autocast, because
``exp(1 / temperature)`` does not fit half precision below a temperature of 0.09.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._validation import check_loss_inputs, check_loss_settings
from ._pairs import plain_anchor_losses
from ._streaming import streamed_anchor_losses, streaming_pays


def clce_loss(
    logits: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    *,
    weight: float = 0.5,
    temperature: float = 0.5,
    hardness: float = 1.0,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy and the label-aware contrastive term of one batch.

    ``(1 - weight) * cross_entropy + weight * contrastive``, see
    :func:`label_aware_contrastive_loss` for the second term.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        Unnormalised class scores.
    embeddings : Tensor of shape (n, n_dims)
        Embeddings of the same rows, normalised or not.
    labels : Tensor of shape (n,)
        Class indices in ``0 .. n_classes - 1``, of an integer dtype.
    weight : float, default=0.5
        Share of the contrastive term, in [0, 1]. 0 is plain cross-entropy.
    temperature : float, default=0.5
        Divisor of the cosine similarities, above 0.
    hardness : float, default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the
        supervised contrastive loss.
    label_smoothing : float, default=0.0
        Share of the target spread over all classes in the cross-entropy, in [0, 1].
    class_weight : Tensor of shape (n_classes,), default=None
        Non-negative weight of each class, multiplied into ``sample_weight``.
    sample_weight : Tensor of shape (n,), default=None
        Non-negative weight of each row, in the cross-entropy and, as the weight of
        an anchor, in the contrastive term. Both terms are weighted means.

    Returns
    -------
    Tensor of shape ()
        The loss, in float32 or in the wider dtype of the inputs.

    Raises
    ------
    ValueError
        If the shapes do not fit each other or a setting is out of its range.
    TypeError
        If ``labels`` are not of an integer dtype.

    See Also
    --------
    CLCELoss : The same as a module.

    References
    ----------
    .. [1] Long, Z. et al. "CLCE: An Approach to Refining Cross-Entropy and
       Contrastive Learning for Optimized Learning Fusion", arXiv:2402.14551, 2024.

    Examples
    --------
    >>> import torch
    >>> from sklearn_clce import clce_loss
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    >>> labels = torch.tensor([0, 1, 0, 1])
    >>> logits = torch.zeros(4, 2)
    >>> round(clce_loss(logits, embeddings, labels, weight=0.0).item(), 4)  # log(2)
    0.6931
    >>> round(clce_loss(logits, embeddings, labels, weight=0.5, temperature=0.1).item(), 4)
    0.3466
    """
    criterion = CLCELoss(weight, temperature, hardness, label_smoothing, class_weight)
    return criterion(logits, embeddings, labels, sample_weight)


def label_aware_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.5,
    hardness: float = 1.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Contrastive term of one batch: rows of a label attract, other rows repel.

    With :math:`s_{ij}` the cosine similarity of rows i and j over the temperature,
    P(i) the other rows with the label of anchor i, N(i) the rows with another, and A
    the anchors that have a positive,

    .. math::

        L = \frac{1}{|A|} \sum_{i \in A} \frac{-1}{|P(i)|}
            \sum_{p \in P(i)} \log \frac{e^{s_{ip}}}
            {\sum_{q \in P(i)} e^{s_{iq}} + \sum_{k \in N(i)} w_{ik} e^{s_{ik}}},
        \qquad
        w_{ik} = |N(i)| \frac{e^{h s_{ik}}}{\sum_{j \in N(i)} e^{h s_{ij}}}

    where *h* is the hardness. An anchor without a positive is not counted; a batch
    without a positive pair gives exactly 0, with zero gradients.

    Large batches are computed in blocks of rows: the same value and gradient, in memory
    of n x block instead of n x n. That form has no second derivative and says so.

    Parameters
    ----------
    embeddings : Tensor of shape (n, n_dims)
        Embeddings, L2-normalised here. A row of zeros stays zero.
    labels : Tensor of shape (n,)
        Labels of the rows, of an integer dtype.
    temperature : float, default=0.5
        Divisor of the cosine similarities, above 0.
    hardness : float, default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the
        supervised contrastive loss ``L_out`` of [1]_; above 0, negatives are
        weighted in the way of [2]_ and [3]_. Gradients flow through the weights.
    sample_weight : Tensor of shape (n,), default=None
        Non-negative weight of each row as an anchor.

    Returns
    -------
    Tensor of shape ()
        The loss, in float32 or in the wider dtype of ``embeddings``.

    Raises
    ------
    ValueError
        If the shapes do not fit each other or a setting is out of its range.
    TypeError
        If ``labels`` are not of an integer dtype.

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
    >>> bool(apart < mixed)
    True
    """
    check_loss_settings(temperature=temperature, hardness=hardness)
    check_loss_inputs(embeddings, labels)
    with torch.autocast(embeddings.device.type, enabled=False):
        normalised = l2_normalise(_at_least_float32(embeddings))
        streams = streaming_pays(normalised, temperature, hardness)
        anchor_losses = streamed_anchor_losses if streams else plain_anchor_losses
        anchor_loss, has_positive = anchor_losses(normalised, labels, temperature, hardness)
        anchor_weight = has_positive if sample_weight is None else has_positive * sample_weight
        return _weighted_mean(anchor_loss, anchor_weight)


class LabelAwareContrastiveLoss(nn.Module):
    """Label-aware contrastive loss with weighted hard negatives.

    Parameters
    ----------
    temperature : float, default=0.5
        Divisor of the cosine similarities, above 0.
    hardness : float, default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the
        supervised contrastive loss.

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

    def __init__(self, temperature: float = 0.5, hardness: float = 1.0) -> None:
        super().__init__()
        check_loss_settings(temperature=temperature, hardness=hardness)
        self.temperature = temperature
        self.hardness = hardness

    def forward(
        self, embeddings: Tensor, labels: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Compute the loss of one batch.

        Parameters
        ----------
        embeddings : Tensor of shape (n, n_dims)
            Embeddings, L2-normalised here.
        labels : Tensor of shape (n,)
            Labels of the rows, of an integer dtype.
        sample_weight : Tensor of shape (n,), default=None
            Non-negative weight of each row as an anchor.

        Returns
        -------
        Tensor of shape ()
            The loss.
        """
        return label_aware_contrastive_loss(
            embeddings,
            labels,
            temperature=self.temperature,
            hardness=self.hardness,
            sample_weight=sample_weight,
        )

    def extra_repr(self) -> str:
        """Show the settings in the module's repr.

        Returns
        -------
        str
            The settings.
        """
        return f"temperature={self.temperature}, hardness={self.hardness}"


class CLCELoss(nn.Module):
    """Cross-entropy and the label-aware contrastive loss, trained jointly.

    Parameters
    ----------
    weight : float, default=0.5
        Share of the contrastive term, in [0, 1]. 0 is plain cross-entropy.
    temperature : float, default=0.5
        Divisor of the cosine similarities, above 0.
    hardness : float, default=1.0
        How strongly similarity weights a negative, at least 0.
    label_smoothing : float, default=0.0
        Share of the target spread over all classes in the cross-entropy, in [0, 1].
    class_weight : Tensor or sequence of shape (n_classes,), default=None
        Non-negative weight of each class. Kept as a buffer, so it moves with the
        module.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    See Also
    --------
    clce_loss : The same as a function.

    References
    ----------
    .. [1] Long, Z. et al. "CLCE: An Approach to Refining Cross-Entropy and
       Contrastive Learning for Optimized Learning Fusion", arXiv:2402.14551, 2024.

    Examples
    --------
    >>> import torch
    >>> from sklearn_clce import CLCELoss
    >>> criterion = CLCELoss(weight=0.9, temperature=0.5)
    >>> embeddings = torch.randn(8, 16, requires_grad=True)
    >>> logits = embeddings @ torch.randn(16, 4)
    >>> criterion(logits, embeddings, torch.arange(8) % 4).backward()
    >>> embeddings.grad.shape
    torch.Size([8, 16])
    """

    class_weight: Tensor | None

    def __init__(
        self,
        weight: float = 0.5,
        temperature: float = 0.5,
        hardness: float = 1.0,
        label_smoothing: float = 0.0,
        class_weight: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_loss_settings(
            weight=weight,
            temperature=temperature,
            hardness=hardness,
            label_smoothing=label_smoothing,
        )
        self.weight = weight
        self.temperature = temperature
        self.hardness = hardness
        self.label_smoothing = label_smoothing
        if class_weight is not None:
            class_weight = _at_least_float32(torch.as_tensor(class_weight))
        self.register_buffer("class_weight", class_weight)

    def forward(
        self,
        logits: Tensor,
        embeddings: Tensor,
        labels: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of one batch.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes)
            Unnormalised class scores.
        embeddings : Tensor of shape (n, n_dims)
            Embeddings of the same rows.
        labels : Tensor of shape (n,)
            Class indices, of an integer dtype.
        sample_weight : Tensor of shape (n,), default=None
            Non-negative weight of each row.

        Returns
        -------
        Tensor of shape ()
            The loss.
        """
        return self.weigh(self.terms(logits, embeddings, labels, sample_weight))

    def terms(
        self,
        logits: Tensor,
        embeddings: Tensor,
        labels: Tensor,
        sample_weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms of one batch, before they are weighed.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes)
            Unnormalised class scores.
        embeddings : Tensor of shape (n, n_dims)
            Embeddings of the same rows.
        labels : Tensor of shape (n,)
            Class indices, of an integer dtype.
        sample_weight : Tensor of shape (n,), default=None
            Non-negative weight of each row.

        Returns
        -------
        dict of str to Tensor of shape ()
            "cross_entropy", and "contrastive" unless its weight is 0.
        """
        check_loss_inputs(embeddings, labels, logits=logits, class_weight=self.class_weight)
        row_weight = _row_weight(labels, self.class_weight, sample_weight)
        terms = {"cross_entropy": _cross_entropy(logits, labels, self.label_smoothing, row_weight)}
        if self.weight > 0:
            terms["contrastive"] = label_aware_contrastive_loss(
                embeddings,
                labels,
                temperature=self.temperature,
                hardness=self.hardness,
                sample_weight=row_weight,
            )
        return terms

    def weigh(self, terms: dict[str, Tensor]) -> Tensor:
        """Add up the terms.

        Parameters
        ----------
        terms : dict of str to Tensor of shape ()
            What :meth:`terms` returns.

        Returns
        -------
        Tensor of shape ()
            The loss.
        """
        if self.weight == 0:
            return terms["cross_entropy"]
        return (1 - self.weight) * terms["cross_entropy"] + self.weight * terms["contrastive"]

    def extra_repr(self) -> str:
        """Show the settings in the module's repr.

        Returns
        -------
        str
            The settings.
        """
        return (
            f"weight={self.weight}, temperature={self.temperature}, "
            f"hardness={self.hardness}, label_smoothing={self.label_smoothing}"
        )


def l2_normalise(embeddings: Tensor) -> Tensor:
    """Divide each row by its length, without overflow or underflow.

    Parameters
    ----------
    embeddings : Tensor of shape (n, n_dims)
        Rows of any finite length.

    Returns
    -------
    Tensor of shape (n, n_dims)
        Rows of length 1; a row of zeros stays zero and gets a finite gradient.
    """
    largest = embeddings.detach().abs().amax(dim=1, keepdim=True)  # (n, 1)
    rescaled = embeddings / torch.where(largest > 0, largest, 1)  # length 0 or >= 1
    length = torch.linalg.vector_norm(rescaled, dim=1, keepdim=True)  # (n, 1)
    # A product has a cheaper gradient than a quotient.
    return rescaled * length.clamp(min=0.5).reciprocal()


def _cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float, row_weight: Tensor | None
) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        row_loss = F.cross_entropy(
            _at_least_float32(logits),
            labels.long(),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return row_loss.mean() if row_weight is None else _weighted_mean(row_loss, row_weight)


def _row_weight(
    labels: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None
) -> Tensor | None:
    if class_weight is None:
        return sample_weight
    row_weight = class_weight[labels.long()]
    return row_weight if sample_weight is None else row_weight * sample_weight


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean, or 0 with zero gradients where no weight is left."""
    weights = weights.to(values.dtype)
    total = weights.sum()
    counted = torch.where(weights > 0, values, 0)
    return (counted * weights).sum() / torch.where(total > 0, total, 1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
