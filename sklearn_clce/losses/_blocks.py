"""The loss of each anchor in blocks of anchors: memory of n x block instead of n x n.

The similarities of a batch are symmetric, so only pairs on and above the diagonal are
computed, unless a mask says what is positive: once for the sums behind each loss, and once
more for the gradient. That is the work of two matrix products, where keeping the matrix
takes three. The blocks are custom operators, which ``torch.compile`` takes as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from ._pairs import Pairs
from ._sums import (
    N_SUMS,
    Block,
    add_products,
    exponent_dtype,
    exponentials,
    losses_and_factors,
    pair_derivatives,
    terms,
)

# Anchors of a block, by type of device; other types are taken for CUDA.
BLOCK_ANCHORS = {"cpu": 128, "cuda": 1024}


def blocks_anchor_losses(
    columns: Tensor, pairs: Pairs, hardness: float, largest_exponent: float, n_trained: int
) -> tuple[Tensor, Tensor]:
    """Return what ``plain_anchor_losses`` does; only the first columns get a gradient."""
    block_anchors = BLOCK_ANCHORS.get(columns.device.type, BLOCK_ANCHORS["cuda"])
    loss, has_positive, _ = _anchor_losses(
        columns,
        pairs.labels,
        pairs.same_mask,
        pairs.n_anchors,
        hardness,
        largest_exponent,
        block_anchors,
        n_trained,
    )
    return loss, has_positive


@torch.library.custom_op(
    "sklearn_clce::anchor_losses",
    mutates_args=(),
    schema="(Tensor columns, Tensor? labels, Tensor? same_mask, SymInt n_anchors, float hardness, "
    "float largest_exponent, int block_anchors, SymInt n_trained) -> (Tensor, Tensor, Tensor)",
)
def _anchor_losses(
    columns: Tensor,
    labels: Tensor | None,
    same_mask: Tensor | None,
    n_anchors: int,
    hardness: float,
    largest_exponent: float,
    block_anchors: int,
    n_trained: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses, whether there is a positive, both (n,), and the sums behind, (5, n)."""
    pairs = Pairs(n_anchors, len(columns), labels, same_mask)
    dtype = exponent_dtype(columns.dtype, largest_exponent)
    sums = columns.new_zeros(N_SUMS, n_anchors, dtype=dtype)
    for block in _blocks(pairs, block_anchors):
        start, stop, left = block
        score = _scores(columns, block).to(dtype)
        values = exponentials(score, pairs.same(*block), start - left, hardness)
        for total, term in zip(sums, terms(score, values), strict=True):
            total[start:stop] += term.sum(dim=1)
            if pairs.symmetric:
                total[stop:] += term[:, stop - left : n_anchors - left].sum(dim=0)
    loss, has_positive, _ = losses_and_factors(sums, len(columns), hardness)
    return loss.to(columns.dtype), has_positive.to(columns.dtype), sums


@torch.library.custom_op(
    "sklearn_clce::anchor_losses_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor columns, Tensor? labels, Tensor? same_mask, Tensor sums, "
    "float hardness, int block_anchors, SymInt n_trained) -> Tensor",
)
def _anchor_losses_backward(
    gradient: Tensor,
    columns: Tensor,
    labels: Tensor | None,
    same_mask: Tensor | None,
    sums: Tensor,
    hardness: float,
    block_anchors: int,
    n_trained: int,
) -> Tensor:
    """Return the gradient with regard to the columns, (N, n_dims)."""
    pairs = Pairs(len(gradient), len(columns), labels, same_mask)
    _, _, factors = losses_and_factors(sums, len(columns), hardness)
    factors *= gradient
    result = torch.zeros_like(columns)
    for block in _blocks(pairs, block_anchors):
        score = _scores(columns, block).to(sums.dtype)
        values = exponentials(score, pairs.same(*block), block.start - block.left, hardness)
        derivatives = pair_derivatives(factors, values, block, len(columns), pairs.symmetric)
        add_products(
            result[:n_trained], derivatives.to(columns.dtype), columns, block, pairs.symmetric
        )
    return result


def _blocks(pairs: Pairs, block_anchors: int) -> Iterator[Block]:
    for start in range(0, pairs.n_anchors, block_anchors):
        stop = min(start + block_anchors, pairs.n_anchors)
        yield Block(start, stop, start if pairs.symmetric else 0)


def _scores(columns: Tensor, block: Block) -> Tensor:
    return columns[block.start : block.stop] @ columns[block.left :].T


@_anchor_losses.register_fake
def _(columns: Tensor, labels: Any, same_mask: Any, n_anchors: int, *settings: Any) -> Any:
    dtype = exponent_dtype(columns.dtype, settings[1])
    each = columns.new_empty(n_anchors)
    return each, columns.new_empty(n_anchors), each.new_empty(N_SUMS, n_anchors, dtype=dtype)


@_anchor_losses_backward.register_fake
def _(gradient: Tensor, columns: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(columns)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    columns, labels, same_mask, _, ctx.hardness, _, *ctx.sizes = inputs
    _, has_positive, sums = output
    ctx.save_for_backward(columns, labels, same_mask, sums)
    ctx.mark_non_differentiable(has_positive, sums)


def _backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    with torch.autocast(gradient.device.type, enabled=False):
        result = _anchor_losses_backward(gradient, *ctx.saved_tensors, ctx.hardness, *ctx.sizes)
    return result, *(None,) * 7


_anchor_losses.register_autograd(_backward, setup_context=_keep_for_backward)


def _refuse_second_derivative(ctx: Any, *gradients: Tensor) -> NoReturn:
    raise NotImplementedError(
        "the contrastive loss of a large batch, in blocks, has no second derivative: "
        "form='plain' has; else call backward or torch.autograd.grad without create_graph=True"
    )


_anchor_losses_backward.register_autograd(_refuse_second_derivative)
