"""The loss of each anchor, in the form that suits what is asked."""

from __future__ import annotations

import torch
from torch import Tensor

from ._blocks import blocks_anchor_losses
from ._derivatives import is_transformed
from ._matrix import matrix_anchor_losses
from ._normalise import l2_normalise
from ._pairs import Pairs
from ._plain import plain_anchor_losses
from ._sums import LARGEST_EXPONENT

# A batch of so many is computed in blocks, by type of device; other types are taken for CUDA.
# Both are measured: on one thread with 128 to 768 dimensions, and on an H200 with 768, where the
# matrix is faster below 16,384 but takes 2.6 GB at 8,192, and blocks 0.4.
BLOCKS_FROM = {"cpu": 640, "cuda": 8192}


def anchor_losses(
    embeddings: Tensor,
    references: Tensor | None,
    pairs: Pairs,
    temperature: float | Tensor,
    hardness: float | Tensor,
    form: str,
) -> tuple[Tensor, Tensor]:
    """Return the loss of each anchor, (n,), and whether it has a positive, as 0 or 1.

    Without a positive the loss is finite, unless a NaN is in the batch.
    """
    temperature, hardness = _scalar(temperature), _scalar(hardness)
    form = _settle(form, embeddings, references, pairs, temperature, hardness)
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = at_least_float32(embeddings)
        if form == "matrix":
            assert not isinstance(temperature, Tensor)
            assert not isinstance(hardness, Tensor)
            return matrix_anchor_losses(embeddings, pairs, temperature, hardness)
        length = temperature**-0.5  # products are then similarities over the temperature
        columns, n_trained = l2_normalise(embeddings, length), pairs.n_anchors
        if references is not None:
            scaled = l2_normalise(references.to(columns.dtype), length)
            columns = torch.cat([columns, scaled])  # (N, n_dims)
            n_trained = pairs.n_columns if scaled.requires_grad else n_trained
        if form == "plain":
            traced = torch.compiler.is_compiling() or is_transformed(columns)
            return plain_anchor_losses(columns, pairs, hardness, traced)
        assert not isinstance(hardness, Tensor)
        largest_exponent = _largest_exponent(temperature, hardness)
        return blocks_anchor_losses(columns, pairs, hardness, largest_exponent, n_trained)


def _settle(
    form: str,
    embeddings: Tensor,
    references: Tensor | None,
    pairs: Pairs,
    temperature: float | Tensor,
    hardness: float | Tensor,
) -> str:
    """Return "plain", "matrix" or "blocks"; raise an error for blocks that would be wrong."""
    obstacle = _obstacle_to_fast_forms(embeddings, references, temperature, hardness)
    if form == "blocks" and obstacle:
        raise NotImplementedError(f"form='blocks' {obstacle}: form='auto' or 'plain' is required")
    if form != "auto" or obstacle:
        return "blocks" if form == "blocks" else "plain"
    free_size = isinstance(pairs.n_anchors, torch.SymInt)  # export takes no branch for it
    blocks_from = BLOCKS_FROM.get(embeddings.device.type, BLOCKS_FROM["cuda"])
    if not free_size and pairs.n_anchors * pairs.n_columns >= blocks_from**2:
        return "blocks"
    # A compiler fuses the plain form; the matrix is for the usual case alone.
    unusual = references is not None or isinstance(temperature, Tensor)
    return "plain" if unusual or torch.compiler.is_compiling() else "matrix"


def _obstacle_to_fast_forms(
    embeddings: Tensor,
    references: Tensor | None,
    temperature: float | Tensor,
    hardness: float | Tensor,
) -> str | None:
    if isinstance(hardness, Tensor):
        return "has no gradient by a hardness that is a tensor"
    if is_transformed(embeddings, references, temperature):
        return "has no forward mode and none of torch.func's transforms"
    if isinstance(temperature, Tensor) and torch.compiler.is_compiling():
        return "can't be compiled with a temperature that is a tensor"
    has_float64 = embeddings.device.type != "mps"
    limit = LARGEST_EXPONENT[torch.float64 if has_float64 else torch.float32]
    if _largest_exponent(temperature, hardness) > limit:
        return f"overflows where (1 + hardness) / temperature is above {limit}"
    return None


def _largest_exponent(temperature: float | Tensor, hardness: float) -> float:
    value = temperature.item() if isinstance(temperature, Tensor) else temperature
    return (1 + hardness) / value


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in its own dtype or in float32, whichever is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _scalar(value: float | Tensor) -> float | Tensor:
    return at_least_float32(value).reshape(()) if isinstance(value, Tensor) else float(value)
