"""The fast forms: first derivatives by hand, from one matrix of all pairs or tile by tile.

With s a similarity over the temperature and h the hardness, an anchor's loss is made of five
sums: over its positives those of 1, s and ``exp(s)``, over its negatives those of
``exp(h s)`` and ``exp((1 + h) s)``. "each" and "mean" combine the same sums. Where positives have
weights, the first two sums are weighted, and for "mean" the third.

The cost of a small batch is the number of operations on it, and the matrix has the fewest: it
folds the lengths of embeddings into their products. For a large batch the cost is the products.
The similarities of a batch are symmetric, so the tiles are only those on and above the diagonal,
unless a mask defines the positives: once for the sums, and once more for the gradient. That is
the work of two matrix products, where the matrix takes three, in memory of n x tile. The tiles
are custom operators, which ``torch.compile`` takes as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.nn import functional as F

from ._pairs import Pairs
from ._plain import l2_normalise, plain_anchor_losses

# exp() of up to this fits the dtype both ways, with room for the sum of a batch.
LARGEST_EXPONENT = {torch.float32: 60.0, torch.float64: 600.0}

FEW_ANCHORS = 256  # with which the number of operations is the cost, and not their size

# Anchors of a tile, by type of device; other types are taken for CUDA.
TILE_ANCHORS = {"cpu": 128, "cuda": 1024}


class Tile(NamedTuple):
    """Anchors from ``start`` to before ``stop`` against the columns from ``left`` on."""

    start: int
    stop: int
    left: int  # where pairs are symmetric the start, else 0


class Exponentials(NamedTuple):
    """Of the pairs of a tile, each of shape (stop - start, N - left)."""

    of_score: Tensor  # exp(s)
    of_weight: Tensor  # exp(h s), 0 except for negatives
    positive: Tensor  # how much exp(s) counts among positives, else 0
    weight: Tensor | None  # how much s counts, if not as much


def matrix_anchor_losses(
    embeddings: Tensor, pairs: Pairs, temperature: float, hardness: float, positives: str
) -> tuple[Tensor, Tensor]:
    """Return the loss of each anchor, (n,), and whether it has a positive, as 0 or 1.

    Embeddings are of any length; there are no references.
    """
    return _MatrixLosses.apply(embeddings, pairs, temperature, hardness, positives)


class _MatrixLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        pairs: Pairs,
        temperature: float,
        hardness: float,
        positives: str,
    ) -> tuple[Tensor, Tensor]:
        largest = embeddings.abs().amax(dim=1, keepdim=True)  # (n, 1)
        divisor = largest.masked_fill_(largest == 0, 1)
        rescaled = embeddings / divisor  # of length 0 or >= 1, so that products fit
        score = rescaled @ rescaled.T  # (n, n), as all that follow
        square = score.diagonal().clamp(min=0.25)  # of the lengths, (n,)
        scale = (square * temperature).rsqrt_()
        score = score.mul_(scale[:, None] * scale)
        wide = score.to(_exponent_dtype(score.dtype, (1 + hardness) / temperature))
        whole = Tile(0, pairs.n_anchors, 0)
        values = _exponentials(wide, pairs, whole, hardness, positives)
        sums = torch.stack([term.sum(dim=1) for term in _terms(wide, values)])
        loss, has_positive, factors = _losses_and_factors(sums, pairs, hardness, positives)
        has_positive = has_positive.to(score.dtype)
        ctx.save_for_backward(embeddings, rescaled, divisor, square, scale, score, factors, *values)
        ctx.pairs, ctx.temperature, ctx.settings = pairs, temperature, (hardness, positives)
        ctx.mark_non_differentiable(has_positive)
        return loss.to(score.dtype), has_positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, rescaled, divisor, square, scale, score, factors, *values = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            return _plain_gradient(ctx, embeddings, gradient), *(None,) * 4
        pairs, whole = ctx.pairs, Tile(0, ctx.pairs.n_anchors, 0)
        factors = factors * gradient
        derivatives = _pair_derivatives(factors, Exponentials(*values), whole, pairs)
        derivatives = derivatives.to(score.dtype)
        if not pairs.symmetric:
            derivatives = derivatives + derivatives.T
        along = (derivatives * score).sum(dim=1)  # of each embedding's own direction, (n,)
        derivatives.mul_(scale[:, None] * scale).diagonal().sub_(along / square)
        with torch.autocast(gradient.device.type, enabled=False):
            return (derivatives @ rescaled).div_(divisor), *(None,) * 4


def _plain_gradient(ctx: Any, embeddings: Tensor, gradient: Tensor) -> Tensor:
    """Return the plain form's gradient, which can be differentiated again."""
    with torch.enable_grad(), torch.autocast(gradient.device.type, enabled=False):
        columns = l2_normalise(embeddings, ctx.temperature**-0.5)
        losses, _ = plain_anchor_losses(columns, ctx.pairs, *ctx.settings)
        return torch.autograd.grad(losses, embeddings, gradient, create_graph=True)[0]


def tiled_anchor_losses(
    columns: Tensor,
    pairs: Pairs,
    hardness: float,
    positives: str,
    largest_exponent: float,
    n_trained: int,
) -> tuple[Tensor, Tensor]:
    """Return the same as ``plain_anchor_losses``; only the first columns get a gradient."""
    settings = (hardness, positives, largest_exponent, n_trained)
    n_anchors, *kinds = pairs
    loss, has_positive, _ = _tiled_losses(columns, *kinds, n_anchors, *settings)
    return loss, has_positive


@torch.library.custom_op(
    "sklearn_clce::anchor_losses",
    mutates_args=(),
    schema="(Tensor columns, Tensor same, Tensor? weights, Tensor? negative, SymInt n_anchors, "
    "float hardness, str positives, float largest_exponent, SymInt n_trained) "
    "-> (Tensor, Tensor, Tensor)",
)
def _tiled_losses(
    columns: Tensor,
    same: Tensor,
    weights: Tensor | None,
    negative: Tensor | None,
    n_anchors: int,
    hardness: float,
    positives: str,
    largest_exponent: float,
    n_trained: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses, whether there is a positive, both (n,), and the sums behind, (5, n)."""
    pairs = Pairs(n_anchors, same, weights, negative)
    dtype = _exponent_dtype(columns.dtype, largest_exponent)
    sums = columns.new_zeros(5, n_anchors, dtype=dtype)
    for tile, score, values in _tiles(columns, pairs, hardness, positives, dtype):
        start, stop, left = tile
        for total, term in zip(sums, _terms(score, values), strict=True):
            total[start:stop] += term.sum(dim=1)
            if pairs.symmetric:
                total[stop:] += term[:, stop - left : n_anchors - left].sum(dim=0)
    loss, has_positive, _ = _losses_and_factors(sums, pairs, hardness, positives)
    return loss.to(columns.dtype), has_positive.to(columns.dtype), sums


@torch.library.custom_op(
    "sklearn_clce::anchor_losses_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor columns, Tensor same, Tensor? weights, Tensor? negative, "
    "Tensor sums, float hardness, str positives, SymInt n_trained) -> Tensor",
)
def _tiled_gradient(
    gradient: Tensor,
    columns: Tensor,
    same: Tensor,
    weights: Tensor | None,
    negative: Tensor | None,
    sums: Tensor,
    hardness: float,
    positives: str,
    n_trained: int,
) -> Tensor:
    """Return the gradient with regard to the columns, (N, n_dims)."""
    pairs = Pairs(len(gradient), same, weights, negative)
    _, _, factors = _losses_and_factors(sums, pairs, hardness, positives)
    factors *= gradient
    result = torch.zeros_like(columns)
    for tile, _, values in _tiles(columns, pairs, hardness, positives, sums.dtype):
        derivatives = _pair_derivatives(factors, values, tile, pairs).to(columns.dtype)
        _add_products(result[:n_trained], derivatives, columns, tile, pairs.symmetric)
    return result


def _tiles(
    columns: Tensor, pairs: Pairs, hardness: float, positives: str, dtype: torch.dtype
) -> Iterator[tuple[Tile, Tensor, Exponentials]]:
    """Yield each tile with its scores and their exponentials."""
    tile_anchors = TILE_ANCHORS.get(columns.device.type, TILE_ANCHORS["cuda"])
    for start in range(0, pairs.n_anchors, tile_anchors):
        stop = min(start + tile_anchors, pairs.n_anchors)
        tile = Tile(start, stop, start if pairs.symmetric else 0)
        score = (columns[start:stop] @ columns[tile.left :].T).to(dtype)
        yield tile, score, _exponentials(score, pairs, tile, hardness, positives)


@_tiled_losses.register_fake
def _(
    columns: Tensor, same: Tensor, weights: Any, negative: Any, n_anchors: int, *settings: Any
) -> Any:
    each = columns.new_empty(n_anchors)
    dtype = _exponent_dtype(columns.dtype, settings[2])
    return each, columns.new_empty(n_anchors), each.new_empty(5, n_anchors, dtype=dtype)


@_tiled_gradient.register_fake
def _(gradient: Tensor, columns: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(columns)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, hardness, positives, _, n_trained = inputs
    _, has_positive, sums = output
    ctx.save_for_backward(*tensors, sums)
    ctx.settings = hardness, positives, n_trained
    ctx.mark_non_differentiable(has_positive, sums)


def _backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    with torch.autocast(gradient.device.type, enabled=False):
        result = _tiled_gradient(gradient, *ctx.saved_tensors, *ctx.settings)
    return result, *(None,) * 8


_tiled_losses.register_autograd(_backward, setup_context=_keep_for_backward)


def _reject_second_derivative(ctx: Any, *gradients: Tensor) -> NoReturn:
    raise NotImplementedError(
        "the contrastive loss of a large batch, in tiles, has no second derivative: "
        "form='plain' has; else call backward or torch.autograd.grad without create_graph=True"
    )


_tiled_gradient.register_autograd(_reject_second_derivative)


def _exponent_dtype(dtype: torch.dtype, largest_exponent: float) -> torch.dtype:
    """Return the dtype, or a wider one where exponentials would not fit it."""
    return dtype if largest_exponent <= LARGEST_EXPONENT[dtype] else torch.float64


def _exponentials(
    score: Tensor, pairs: Pairs, tile: Tile, hardness: float, positives: str
) -> Exponentials:
    """Return the exponentials of the scores of a tile."""
    start, stop, left = tile
    positive = pairs.same_mask(*tile).to(score.dtype)
    if pairs.negative is None:
        negative = 1 - positive
    else:
        negative = pairs.negative[start:stop, left:].to(score.dtype)
    positive.diagonal(start - left).fill_(0)  # the anchor itself is neither
    weight = None
    if pairs.weights is not None:
        weight = pairs.weights[start:stop, left:].to(score.dtype)
    if weight is not None and positives == "mean":
        positive, weight = weight, None
    of_score = score.exp()
    of_weight = of_score if hardness == 1 else of_score.pow(hardness)
    return Exponentials(of_score, negative.mul_(of_weight), positive, weight)


def _terms(score: Tensor, values: Exponentials) -> Iterator[Tensor]:
    """Yield what each of the five sums adds up, of the shape of the scores."""
    of_score, of_weight, positive, weight = values
    weight = positive if weight is None else weight
    yield weight
    yield score * weight  # keeps the NaN of a sample that is compared with itself alone
    yield of_score * positive
    yield of_weight
    yield of_score * of_weight


def _losses_and_factors(
    sums: Tensor, pairs: Pairs, hardness: float, positives: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's loss, whether it has a positive, (n,), and its factors, (4, n).

    The derivative of its loss by s is, of a positive, its weight times the first factor, plus
    the second times ``exp(s)``; of a negative, ``exp(h s)`` times the third plus the fourth times
    ``exp(s)``. A sample without positives gets a finite loss, which the caller must ignore.
    """
    n_positives, positive_score, positive, weight_total, weighted = sums  # the first: 0 or >= 1
    # An empty sum is 0 and is divided by nowhere else; every other one is far above.
    tiny = torch.finfo(sums.dtype).tiny
    count = n_positives.clamp(min=1)
    weight_total = weight_total.clamp(min=tiny)
    weight_factor = pairs.n_negatives(n_positives) / weight_total
    if positives == "each":
        partition = torch.addcmul(positive, weight_factor, weighted).clamp_(min=tiny)
        loss = torch.addcdiv(partition.log(), positive_score, count, value=-1)
        inverse = partition.reciprocal_()
        by_one, by_exponential = -1 / count, inverse
    else:
        positive = positive.clamp(min=tiny)
        mean, negative = positive / count, weight_factor * weighted
        loss = -F.logsigmoid(mean.log() - negative.log())  # exact also where it is small
        inverse = (mean + negative).reciprocal_()
        by_one, by_exponential = torch.zeros_like(mean), negative * inverse / -positive
    by_both = weight_factor * inverse
    by_weight = weighted * by_both / weight_total
    factors = torch.stack([by_one, by_exponential, by_weight * -hardness, by_both * (1 + hardness)])
    return loss, n_positives.clamp(max=1), factors


def _pair_derivatives(factors: Tensor, values: Exponentials, tile: Tile, pairs: Pairs) -> Tensor:
    """Return the derivatives by the scores of a tile, of the tile's shape.

    Factors are those of all anchors, (4, n), times the gradient of their loss. Where pairs
    are symmetric a pair of two anchors counts for both.
    """
    start, stop, left = tile
    of_pair: Any = factors[:, start:stop, None]
    if pairs.symmetric:
        n_references = pairs.n_columns - pairs.n_anchors
        of_column = factors[:, None, left:]
        of_column = F.pad(of_column, (0, n_references)) if n_references else of_column
        if pairs.n_anchors <= FEW_ANCHORS:
            of_pair = of_pair + of_column
        else:  # one addition would take a matrix of four tiles
            of_pair = map(torch.add, of_pair, of_column)
    by_one, by_exponential, by_weight, by_both = of_pair
    if values.weight is None:
        of_positive = torch.addcmul(by_one, by_exponential, values.of_score).mul_(values.positive)
    else:
        counted = values.of_score * values.positive
        of_positive = torch.addcmul(by_one * values.weight, by_exponential, counted)
    of_negative = torch.addcmul(by_weight, by_both, values.of_score)
    return of_positive.addcmul_(of_negative, values.of_weight)


def _add_products(
    result: Tensor, derivatives: Tensor, columns: Tensor, tile: Tile, symmetric: bool
) -> None:
    """Add a tile's part to the gradient by the columns, as many of them as the result has.

    With G the derivatives by the scores that is (G + G') z; symmetric ones hold both.
    """
    start, stop, left = tile
    result[start:stop].addmm_(derivatives, columns[left:])
    first = stop if symmetric else left
    if first < len(result):
        wanted = derivatives[:, first - left : len(result) - left]
        result[first:].addmm_(wanted.T, columns[start:stop])
