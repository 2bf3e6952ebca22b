"""The contrastive term by the matrix of all pairs of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def plain_anchor_losses(
    normalised: Tensor, labels: Tensor, temperature: float, hardness: float
) -> tuple[Tensor, Tensor]:
    """Compute the contrastive loss of each anchor from the matrix of all pairs.

    Parameters
    ----------
    normalised : Tensor of shape (n, n_dims)
        Embeddings of length 1, in float32 or wider.
    labels : Tensor of shape (n,)
        Labels of the rows.
    temperature, hardness : float
        Settings of the criterion.

    Returns
    -------
    loss : Tensor of shape (n,)
        Of each anchor; without meaning where it has no positive.
    has_positive : Tensor of shape (n,), bool
        Whether it has one.
    """
    similarity = _Similarity.apply(normalised) / temperature  # (n, n), as all that follow
    same_label_mask = labels[:, None] == labels
    itself_mask = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    n_positives = same_label_mask.sum(dim=1, dtype=similarity.dtype) - 1  # (n,)
    pair_score = similarity
    if hardness > 0:
        log_factor = _log_weight_factor(hardness * similarity, same_label_mask, n_positives)
        weighted = (1 + hardness) * similarity + log_factor
        pair_score = torch.where(same_label_mask, similarity, weighted)
    log_partition = _logsumexp_outside(itself_mask, pair_score)
    positive = torch.where(same_label_mask ^ itself_mask, similarity, 0)
    mean_positive = positive.sum(dim=1) / n_positives.clamp(min=1)
    return log_partition - mean_positive, n_positives > 0


class _Similarity(torch.autograd.Function):
    """The product z z', whose gradient takes one product by symmetry instead of two."""

    @staticmethod
    def forward(ctx: Any, normalised: Tensor) -> Tensor:
        ctx.save_for_backward(normalised)
        return normalised @ normalised.T  # (n, n)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (normalised,) = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return (gradient + gradient.T) @ normalised  # (n, n_dims)


def _log_weight_factor(scaled: Tensor, same_label_mask: Tensor, n_positives: Tensor) -> Tensor:
    """Return log of ``w / exp(scaled)``, the same for all negatives of an anchor, (n, 1)."""
    n_negatives = (len(scaled) - 1 - n_positives).clamp(min=1)
    return (n_negatives.log() - _logsumexp_outside(same_label_mask, scaled))[:, None]


def _logsumexp_outside(mask: Tensor, values: Tensor) -> Tensor:
    """Sum ``exp(values)`` over each row's entries outside the mask, in log space.

    The fill is finite: a row without an entry then has a finite value, which its
    caller masks, and gradients of zero instead of NaN.
    """
    return values.masked_fill(mask, torch.finfo(values.dtype).min / 4).logsumexp(dim=1)
