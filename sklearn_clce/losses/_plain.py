"""The loss of each anchor by torch's own operations: slow, and right under everything.

Derivatives of any order, forward mode, ``torch.func``, ``torch.compile`` and ``torch.export``
work, at any temperature.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from ._pairs import Pairs


def l2_normalise(embeddings: Tensor, length: float | Tensor = 1.0) -> Tensor:
    """Scale embeddings of shape (n, n_dims) to a length; zeros stay zero, their gradient finite."""
    largest = embeddings.detach().abs().amax(dim=1, keepdim=True)  # (n, 1), against overflow
    rescaled = embeddings / torch.where(largest > 0, largest, 1)  # length 0 or >= 1
    own_square = rescaled.square().sum(dim=1, keepdim=True)  # (n, 1), whose root has no slope at 0
    # A product has a cheaper gradient than a quotient.
    return rescaled * (length * own_square.clamp(min=0.25).rsqrt())


def plain_anchor_losses(
    columns: Tensor, pairs: Pairs, hardness: float | Tensor, positives: str
) -> tuple[Tensor, Tensor]:
    """Return the loss of each anchor, (n,), and whether it has a positive, as 0 or 1.

    Columns are of shape (N, n_dims) and length ``temperature ** -0.5``: their products are
    similarities over the temperature. A sample without positives gets a finite loss.
    """
    traced = torch.compiler.is_compiling() or is_transformed(columns)
    product = torch.matmul if traced else _Product.apply
    score = product(columns[: pairs.n_anchors], columns.T)  # (n, N), as all that follow
    kinds = _kinds_of_pairs(pairs, score)
    losses = _losses_of_each if positives == "each" else _losses_of_mean
    has_positive = (kinds.weight_total > 0).to(score.dtype)
    return losses(score, kinds, hardness), has_positive


class _Kinds(NamedTuple):
    """The kinds of pairs, as masks and weights (n, N), and each anchor's sums of them, (n,)."""

    same_mask: Tensor  # the anchor itself and its positives
    rest_mask: Tensor  # all but negatives
    unpaired_mask: Tensor  # neither positives nor negatives
    weight: Tensor  # of positives, else 0
    weight_total: Tensor
    n_negatives: Tensor


def _kinds_of_pairs(pairs: Pairs, score: Tensor) -> _Kinds:
    same_mask = pairs.same_mask(0, pairs.n_anchors, 0)
    itself_mask = torch.eye(*score.shape, dtype=torch.bool, device=score.device)
    n_positives = same_mask.sum(dim=1, dtype=score.dtype) - 1
    n_negatives = pairs.n_negatives(n_positives)
    if pairs.weights is None or pairs.negative is None:
        weight = same_mask ^ itself_mask
        return _Kinds(same_mask, same_mask, itself_mask, weight, n_positives, n_negatives)
    rest_mask, weight = ~pairs.negative, pairs.weights.to(score.dtype)
    unpaired_mask = rest_mask & ~same_mask | itself_mask
    return _Kinds(same_mask, rest_mask, unpaired_mask, weight, weight.sum(dim=1), n_negatives)


def _losses_of_each(score: Tensor, kinds: _Kinds, hardness: float | Tensor) -> Tensor:
    """Return the mean over positives of their logarithms, (n,)."""
    pair_score = score
    if isinstance(hardness, Tensor) or hardness > 0:
        log_factor = _log_weight_factor(hardness * score, kinds)[:, None]
        pair_score = torch.where(kinds.same_mask, score, (1 + hardness) * score + log_factor)
    log_partition = _logsumexp_outside(kinds.unpaired_mask, pair_score)
    mean_positive = (score * kinds.weight).sum(dim=1) / kinds.weight_total.clamp(min=1)
    return log_partition - mean_positive


def _losses_of_mean(score: Tensor, kinds: _Kinds, hardness: float | Tensor) -> Tensor:
    """Return the logarithm of the mean over positives, (n,)."""
    positive_score = score
    if kinds.weight.is_floating_point():
        tiny = torch.finfo(score.dtype).tiny  # a logarithm that is finite, also of 0
        positive_score = score + kinds.weight.clamp(min=tiny).log()
    log_mean = _logsumexp_outside(kinds.weight == 0, positive_score)
    log_mean = log_mean - kinds.weight_total.clamp(min=1).log()
    if isinstance(hardness, Tensor) or hardness > 0:
        log_factor = _log_weight_factor(hardness * score, kinds)
        log_negative = _logsumexp_outside(kinds.rest_mask, (1 + hardness) * score) + log_factor
        log_negative = torch.where(kinds.n_negatives > 0, log_negative, _log_zero(score))
    else:
        log_negative = _logsumexp_outside(kinds.rest_mask, score)
    return -F.logsigmoid(log_mean - log_negative)


class _Product(torch.autograd.Function):
    """A matrix product whose gradient autocast does not reach."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        return left @ right

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        left, right = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return gradient @ right.T, left.T @ gradient


def _log_weight_factor(scaled: Tensor, kinds: _Kinds) -> Tensor:
    """Return log of ``w / exp(scaled)``, the same for all negatives of an anchor, (n,)."""
    return kinds.n_negatives.clamp(min=1).log() - _logsumexp_outside(kinds.rest_mask, scaled)


def _logsumexp_outside(mask: Tensor, values: Tensor) -> Tensor:
    """Sum ``exp(values)`` over each anchor's entries outside the mask, in log space, (n,).

    An anchor without an entry has a finite value, which its caller gives no weight. A NaN
    shows also from inside the mask.
    """
    outside = torch.add(values.detach(), mask, alpha=_log_zero(values))
    largest = outside.amax(dim=1, keepdim=True)
    # 80 below the largest is nothing in any dtype; exp() of what underflows is slow on the CPU.
    return torch.where(mask, largest - 80, values).logsumexp(dim=1)


def _log_zero(values: Tensor) -> float:
    """Return a logarithm of nothing that is finite, so that gradients are 0 instead of NaN."""
    return torch.finfo(values.dtype).min / 4


def is_transformed(*values: Any) -> bool:
    """Return whether ``torch.func`` or forward mode goes through a computation on these values."""
    # torch.autograd.Function asks the same; there is no public way to
    return torch._C._are_functorch_transforms_active() or any(
        isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None
        for value in values
    )
