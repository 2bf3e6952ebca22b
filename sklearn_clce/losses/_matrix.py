"""The loss of each anchor by a matrix of all pairs, with first derivatives by hand.

A small batch costs what the number of operations on it costs. Here embeddings are not
normalised: the lengths are on the diagonal of their products, and go into the matrix.
Whoever asks for more than a first derivative gets the plain form's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._derivatives import differentiated_again
from ._normalise import l2_normalise
from ._pairs import Pairs
from ._plain import plain_anchor_losses
from ._sums import (
    Block,
    Exponentials,
    exponent_dtype,
    exponentials,
    losses_and_factors,
    pair_derivatives,
    terms,
)


def matrix_anchor_losses(
    embeddings: Tensor, pairs: Pairs, temperature: float, hardness: float
) -> tuple[Tensor, Tensor]:
    """Return the loss of each anchor, (n,), and whether it has a positive, as 0 or 1.

    Embeddings are of any length; there are no references.
    """
    return _AnchorLosses.apply(embeddings, pairs, temperature, hardness)


class _AnchorLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, pairs: Pairs, temperature: float, hardness: float
    ) -> tuple[Tensor, Tensor]:
        largest = embeddings.abs().amax(dim=1, keepdim=True)  # (n, 1)
        divisor = torch.where(largest > 0, largest, 1)
        rescaled = embeddings / divisor  # of length 0 or >= 1, so that products fit
        score = rescaled @ rescaled.T  # (n, n), as all that follow
        square = score.diagonal().clamp(min=0.25)  # of the lengths, (n,)
        scale = (square * temperature).rsqrt_()
        score = score.mul_(scale[:, None] * scale)
        wide = score.to(exponent_dtype(score.dtype, (1 + hardness) / temperature))
        values = exponentials(wide, pairs.all_same(), 0, hardness)
        sums = torch.stack([term.sum(dim=1) for term in terms(wide, values)])
        loss, has_positive, factors = losses_and_factors(sums, pairs.n_columns, hardness)
        has_positive = has_positive.to(score.dtype)
        ctx.save_for_backward(embeddings, rescaled, divisor, square, scale, score, factors, *values)
        ctx.pairs, ctx.temperature, ctx.hardness = pairs, temperature, hardness
        ctx.mark_non_differentiable(has_positive)
        return loss.to(score.dtype), has_positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, rescaled, divisor, square, scale, score, factors, *values = ctx.saved_tensors
        pairs = ctx.pairs
        if torch.is_grad_enabled():  # create_graph=True

            def plain(embeddings: Tensor) -> Tensor:
                columns = l2_normalise(embeddings, ctx.temperature**-0.5)
                return plain_anchor_losses(columns, pairs, ctx.hardness, traced=False)[0]

            return *differentiated_again(plain, (embeddings,), gradient), *(None,) * 3
        derivatives = pair_derivatives(
            factors * gradient,
            Exponentials(*values),
            Block(0, pairs.n_anchors, 0),
            pairs.n_columns,
            pairs.symmetric,
        ).to(score.dtype)
        if not pairs.symmetric:
            derivatives = derivatives + derivatives.T
        along = (derivatives * score).sum(dim=1)  # of each embedding's own direction, (n,)
        derivatives.mul_(scale[:, None] * scale).diagonal().sub_(along / square)
        with torch.autocast(gradient.device.type, enabled=False):
            return (derivatives @ rescaled).div_(divisor), *(None,) * 3
