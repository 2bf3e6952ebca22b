"""From sums of exponentials over pairs to the loss of an anchor, and the way back.

What the fast forms share. With s a similarity over the temperature and h the hardness, an
anchor's loss is made of five sums: over its positives those of 1, s and ``exp(s)``, over
its negatives those of ``exp(h s)`` and ``exp((1 + h) s)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

N_SUMS = 5

# exp() of up to this fits the dtype both ways, with room for the sum of a batch.
LARGEST_EXPONENT = {torch.float32: 60.0, torch.float64: 600.0}


class Block(NamedTuple):
    """Anchors from ``start`` to before ``stop`` against the columns from ``left`` on."""

    start: int
    stop: int
    left: int  # where pairs are symmetric the start, else 0


class Exponentials(NamedTuple):
    """Of some anchors and columns, each of shape (n_anchors, n_columns)."""

    of_score: Tensor  # exp(s)
    of_weight: Tensor  # exp(h s), 0 except for negatives
    positive: Tensor  # 1 for positives, else 0


def exponent_dtype(dtype: torch.dtype, largest_exponent: float) -> torch.dtype:
    """Return the dtype, or a wider one where exponentials would not fit it."""
    return dtype if largest_exponent <= LARGEST_EXPONENT[dtype] else torch.float64


def exponentials(score: Tensor, same_mask: Tensor, offset: int, hardness: float) -> Exponentials:
    """Return the exponentials of scores; ``offset`` is the diagonal that holds the anchors."""
    positive = same_mask.to(score.dtype)
    negative = 1 - positive
    positive.diagonal(offset).fill_(0)  # the anchor itself is neither
    of_score = score.exp()
    return Exponentials(of_score, of_score.pow(hardness).mul_(negative), positive)


def terms(score: Tensor, values: Exponentials) -> Iterator[Tensor]:
    """Yield what each of the five sums adds up, of the shape of the scores."""
    of_score, of_weight, positive = values
    yield positive
    yield score * positive  # keeps the NaN of a sample that is compared with itself alone
    yield of_score * positive
    yield of_weight
    yield of_score * of_weight


def losses_and_factors(
    sums: Tensor, n_columns: int, hardness: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's loss, whether it has a positive, (n,), and its factors, (4, n).

    The derivative of its loss by s is, of a positive, the first factor plus the second
    times ``exp(s)``; of a negative, ``exp(h s)`` times the third plus the fourth times
    ``exp(s)``. Where there is no positive the loss is finite and without meaning.
    """
    n_positives, positive_score, positive, weight_total, weighted = sums
    # An empty sum is 0 and is divided by nowhere else; every other one is far above.
    tiny = torch.finfo(sums.dtype).tiny
    count = n_positives.clamp(min=1)
    weight_total = weight_total.clamp(min=tiny)
    weight_factor = (n_columns - 1 - n_positives) / weight_total
    partition = torch.addcmul(positive, weight_factor, weighted).clamp_(min=tiny)
    loss = torch.addcdiv(partition.log(), positive_score, count, value=-1)
    by_exponential = partition.reciprocal_()
    by_both = weight_factor * by_exponential
    by_weight = weighted * by_both / weight_total
    factors = torch.stack(
        [-1 / count, by_exponential, by_weight * -hardness, by_both * (1 + hardness)]
    )
    return loss, n_positives.clamp(max=1), factors


def pair_derivatives(
    factors: Tensor, values: Exponentials, block: Block, n_columns: int, symmetric: bool
) -> Tensor:
    """Return the derivatives by the scores of a block, of the block's shape.

    Factors are those of all anchors, (4, n), times the gradient of their loss. Where pairs
    are symmetric a pair of two anchors counts for both.
    """
    start, stop, left = block
    of_pair: Iterable[Tensor] = factors[:, start:stop, None]
    if symmetric:
        n_references = n_columns - factors.shape[1]  # are no anchors
        of_column = factors[:, None, left:]
        of_column = F.pad(of_column, (0, n_references)) if n_references else of_column
        # not in one addition: it would take a matrix of four blocks
        of_pair = map(torch.add, of_pair, of_column)
    by_one, by_exponential, by_weight, by_both = of_pair
    of_positive = torch.addcmul(by_one, by_exponential, values.of_score).mul_(values.positive)
    of_negative = torch.addcmul(by_weight, by_both, values.of_score)
    return of_positive.addcmul_(of_negative, values.of_weight)


def add_products(
    result: Tensor, derivatives: Tensor, columns: Tensor, block: Block, symmetric: bool
) -> None:
    """Add a block's part to the gradient by the columns, as many of them as the result has.

    With G the derivatives by the scores that is (G + G') z; symmetric ones hold both.
    """
    start, stop, left = block
    result[start:stop].addmm_(derivatives, columns[left:])
    first = stop if symmetric else left
    if first < len(result):
        wanted = derivatives[:, first - left : len(result) - left]
        result[first:].addmm_(wanted.T, columns[start:stop])
