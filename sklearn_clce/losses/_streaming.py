"""The contrastive term in blocks of rows: memory of n x block instead of n x n.

The similarities are symmetric, so only pairs on and above the diagonal are computed:
once for the sums behind each anchor's partition Z, and once more for the gradient.
That is the work of two matrix products, where keeping the matrix takes three. The
blocks are custom operators, which ``torch.compile`` takes as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

# Rows from which to stream, and rows of a block, by type of device; other types are taken
# for CUDA. Those of the CPU are measured, on one thread with 128 to 768 dimensions. A
# launch on a device costs more than small work, so memory is the reason to stream there.
STREAMING_ROWS = {"cpu": 640, "cuda": 4096}
BLOCK_ROWS = {"cpu": 128, "cuda": 1024}

# exp() of up to this fits the dtype both ways, with room for the sum of a batch.
_LARGEST_EXPONENT = {torch.float32: 60.0, torch.float64: 600.0}


def streaming_pays(normalised: Tensor, temperature: float, hardness: float) -> bool:
    """Tell whether to stream: the batch is large and the exponentials fit a dtype.

    Parameters
    ----------
    normalised : Tensor of shape (n, n_dims)
        Rows of length 1, or of zeros; float32 or float64.
    temperature : float
        Divisor of the similarities.
    hardness : float
        How strongly similarity weights a negative.

    Returns
    -------
    bool
        Whether :func:`streamed_anchor_losses` is exact here and no slower.
    """
    has_float64 = normalised.device.type != "mps"
    widest = torch.float64 if has_float64 else normalised.dtype
    fits = (1 + hardness) / temperature <= _LARGEST_EXPONENT[widest]
    return fits and len(normalised) >= _for_device(STREAMING_ROWS, normalised)


def streamed_anchor_losses(
    normalised: Tensor, labels: Tensor, temperature: float, hardness: float
) -> tuple[Tensor, Tensor]:
    """Compute the loss of each anchor without a matrix of all pairs.

    Parameters
    ----------
    normalised : Tensor of shape (n, n_dims)
        Rows of length 1, or of zeros; float32 or float64.
    labels : Tensor of shape (n,)
        Labels of the rows.
    temperature : float
        Divisor of the similarities.
    hardness : float
        How strongly similarity weights a negative.

    Returns
    -------
    anchor_loss : Tensor of shape (n,)
        The loss of each anchor; without a meaning where it has no positive.
    has_positive : Tensor of shape (n,), bool
        Whether the anchor has a positive.
    """
    labels = labels.contiguous()  # searchsorted warns of others
    in_order = labels.sort().values
    first = torch.searchsorted(in_order, labels)  # the same number for the same label
    n_same_label = torch.searchsorted(in_order, labels, right=True) - first
    n_negatives = (len(labels) - n_same_label).to(normalised.dtype)
    log_partition, _ = _log_partition(
        normalised, labels, n_negatives, temperature, hardness, _for_device(BLOCK_ROWS, labels)
    )
    mean_positive = _mean_positive_similarity(normalised, first, n_same_label - 1) / temperature
    return log_partition - mean_positive, n_same_label > 1


def _mean_positive_similarity(normalised: Tensor, group: Tensor, n_positives: Tensor) -> Tensor:
    """Return the mean cosine similarity of each anchor to its positives, (n,)."""
    group_sum = torch.zeros_like(normalised).index_add(0, group, normalised)
    positive_sum = group_sum.index_select(0, group) - normalised  # (n, n_dims)
    total = (positive_sum * normalised).sum(dim=1)
    return total / n_positives.clamp(min=1).to(total.dtype)


@torch.library.custom_op(
    "sklearn_clce::log_partition",
    mutates_args=(),
    schema="(Tensor normalised, Tensor labels, Tensor n_negatives, float temperature, "
    "float hardness, int block_rows) -> (Tensor, Tensor)",
)
def _log_partition(
    normalised: Tensor,
    labels: Tensor,
    n_negatives: Tensor,
    temperature: float,
    hardness: float,
    block_rows: int,
) -> tuple[Tensor, Tensor]:
    """Return log Z of each anchor, (n,), and the three sums behind it, (3, n).

    The sums are of ``exp(s)`` over positives, and over negatives those of
    ``exp(hardness * s)`` and of ``exp((1 + hardness) * s)``.
    """
    dtype = _exponent_dtype(normalised.dtype, temperature, hardness)
    sums = normalised.new_zeros(3, len(normalised), dtype=dtype)
    for start, stop in _blocks(len(normalised), block_rows):
        exp, same_label_mask = _exp_similarity(normalised, labels, start, stop, temperature, dtype)
        positive = exp * same_label_mask  # (stop - start, n - start), as all that follow
        exp_hardness = exp.pow(hardness).masked_fill_(same_label_mask, 0)
        for total, term in zip(sums, (positive, exp_hardness, exp.mul_(exp_hardness)), strict=True):
            total[start:stop] += term.sum(dim=1)
            total[stop:] += term[:, stop - start :].sum(dim=0)
    partition, *_ = _partition(sums, n_negatives)
    return partition.log().to(normalised.dtype), sums


@torch.library.custom_op(
    "sklearn_clce::log_partition_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor normalised, Tensor labels, Tensor n_negatives, Tensor sums, "
    "float temperature, float hardness, int block_rows) -> Tensor",
)
def _log_partition_backward(
    gradient: Tensor,
    normalised: Tensor,
    labels: Tensor,
    n_negatives: Tensor,
    sums: Tensor,
    temperature: float,
    hardness: float,
    block_rows: int,
) -> Tensor:
    """Return the gradient with regard to the rows, (n, n_dims).

    With G the derivatives by the similarities s, that is ``(G + G') z / temperature``.
    Both G and its transpose are a factor of a row times the same exponentials of s.
    """
    result = torch.zeros_like(normalised)
    factors = _pair_factors(gradient, sums, n_negatives, hardness)
    for start, stop in _blocks(len(normalised), block_rows):
        exp, same_label_mask = _exp_similarity(
            normalised, labels, start, stop, temperature, sums.dtype
        )
        by_positive, by_negative, by_weight = (f[start:stop, None] + f[start:] for f in factors)
        negative = by_negative.mul_(exp).sub_(by_weight).mul_(exp.pow(hardness))
        both_ways = torch.where(same_label_mask, exp.mul_(by_positive), negative)
        both_ways = both_ways.to(normalised.dtype).div_(temperature)  # (stop - start, n - start)
        result[start:stop].addmm_(both_ways, normalised[start:])
        result[stop:].addmm_(both_ways[:, stop - start :].T, normalised[start:stop])
    return result


def _for_device(rows: dict[str, int], tensor: Tensor) -> int:
    return rows.get(tensor.device.type, rows["cuda"])


def _blocks(n: int, block_rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, block_rows):
        yield start, min(start + block_rows, n)


def _exp_similarity(
    normalised: Tensor,
    labels: Tensor,
    start: int,
    stop: int,
    temperature: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Compare the rows of a block with themselves and all below, (stop - start, n - start).

    Returns ``exp(s)``, 0 for a row and itself, and whether the label is the same.
    """
    similarity = (normalised[start:stop] / temperature) @ normalised[start:].T
    similarity.diagonal().fill_(-torch.inf)
    same_label_mask = labels[start:stop, None] == labels[start:]
    return similarity.to(dtype).exp_(), same_label_mask


def _exponent_dtype(dtype: torch.dtype, temperature: float, hardness: float) -> torch.dtype:
    fits = (1 + hardness) / temperature <= _LARGEST_EXPONENT[dtype]
    return dtype if fits else torch.float64


def _partition(sums: Tensor, n_negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Z, the negatives' part of it and the factor of their weights, all (n,)."""
    positive, weight_total, weighted = sums
    # An empty sum is 0 and is divided by nowhere else; every other one is far above.
    tiny = torch.finfo(sums.dtype).tiny
    weight_factor = n_negatives / weight_total.clamp(min=tiny)
    negative = weight_factor * weighted
    return (positive + negative).clamp(min=tiny), negative, weight_factor


def _pair_factors(
    gradient: Tensor, sums: Tensor, n_negatives: Tensor, hardness: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what each anchor multiplies into the derivatives of its pairs, all (n,).

    A positive gives ``factor * exp(s)``, a negative ``exp(hardness * s)`` times
    the second factor times ``exp(s)`` less the third, which is the weights' own part.
    """
    partition, negative, weight_factor = _partition(sums, n_negatives)
    by_positive = gradient / partition
    by_negative = (1 + hardness) * by_positive * weight_factor
    tiny = torch.finfo(sums.dtype).tiny
    by_weight = hardness * by_positive * negative / sums[1].clamp(min=tiny)
    return by_positive, by_negative, by_weight


@_log_partition.register_fake
def _(normalised: Tensor, labels: Tensor, n_negatives: Tensor, *settings: Any) -> Any:
    dtype = _exponent_dtype(normalised.dtype, *settings[:2])
    n = len(normalised)
    return normalised.new_empty(n), normalised.new_empty(3, n, dtype=dtype)


@_log_partition_backward.register_fake
def _(gradient: Tensor, normalised: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(normalised)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.temperature, ctx.hardness, ctx.block_rows = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    settings = ctx.temperature, ctx.hardness, ctx.block_rows
    with torch.autocast(gradient.device.type, enabled=False):
        result = _log_partition_backward(gradient, *ctx.saved_tensors, *settings)
    return result, *(None,) * 5


_log_partition.register_autograd(_backward, setup_context=_keep_for_backward)


def _refuse_second_derivative(ctx: Any, gradient: Tensor) -> NoReturn:
    raise NotImplementedError(
        "the contrastive loss of a large batch has no second derivative: call backward or "
        "torch.autograd.grad without create_graph=True, or use fewer than "
        f"{_for_device(STREAMING_ROWS, gradient)} rows"
    )


_log_partition_backward.register_autograd(_refuse_second_derivative)
