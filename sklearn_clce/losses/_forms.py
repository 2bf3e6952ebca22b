"""Which form computes the loss of each anchor: plain, one matrix, or tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import at_least_float32
from ._fast import LARGEST_EXPONENT, matrix_anchor_losses, tiled_anchor_losses
from ._pairs import Pairs
from ._plain import is_transformed, l2_normalise, plain_anchor_losses

# A batch of so many is computed in tiles, by type of device; other types are taken for CUDA.
# Both are measured: on one thread with 128 to 768 dimensions, and on an H200 with 768, where the
# matrix is faster below 16,384 but takes 2.6 GB at 8,192, and tiles 0.4.
TILES_FROM = {"cpu": 640, "cuda": 8192}


def anchor_losses(
    embeddings: Tensor,
    references: Tensor | None,
    pairs: Pairs,
    temperature: float | Tensor,
    hardness: float | Tensor,
    positives: str,
    form: str,
) -> tuple[Tensor, Tensor]:
    """Return the loss of each anchor, (n,), and whether it has a positive, as 0 or 1.

    Without a positive the loss is finite, unless a NaN is in the batch.
    """
    temperature, hardness = _scalar(temperature), _scalar(hardness)
    form = _choose_form(form, embeddings, references, pairs, temperature, hardness)
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = at_least_float32(embeddings)
        if form == "matrix":
            assert isinstance(temperature, float)
            assert isinstance(hardness, float)
            return matrix_anchor_losses(embeddings, pairs, temperature, hardness, positives)
        length = temperature**-0.5  # products are then similarities over the temperature
        columns, n_trained = l2_normalise(embeddings, length), pairs.n_anchors
        if references is not None:
            scaled = l2_normalise(references.to(columns.dtype), length)
            columns = torch.cat([columns, scaled])  # (N, n_dims)
            n_trained = pairs.n_columns if scaled.requires_grad else n_trained
        if form == "plain":
            return plain_anchor_losses(columns, pairs, hardness, positives)
        assert isinstance(hardness, float)
        settings = hardness, positives, _largest_exponent(temperature, hardness)
        return tiled_anchor_losses(columns, pairs, *settings, n_trained)


def _choose_form(
    form: str,
    embeddings: Tensor,
    references: Tensor | None,
    pairs: Pairs,
    temperature: float | Tensor,
    hardness: float | Tensor,
) -> str:
    """Return "plain", "matrix" or "tiles"; raise an error for tiles that would be wrong."""
    obstacle = _obstacle_to_fast_forms(embeddings, references, temperature, hardness)
    if form == "tiles" and obstacle:
        raise NotImplementedError(f"form='tiles' {obstacle}: form='auto' or 'plain' is required")
    if form != "auto" or obstacle:
        return "tiles" if form == "tiles" else "plain"
    free_size = isinstance(pairs.n_anchors, torch.SymInt)  # export takes no branch for it
    tiles_from = TILES_FROM.get(embeddings.device.type, TILES_FROM["cuda"])
    if not free_size and pairs.n_anchors * pairs.n_columns >= tiles_from**2:
        return "tiles"
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


def _scalar(value: float | Tensor) -> float | Tensor:
    return at_least_float32(value).reshape(()) if isinstance(value, Tensor) else float(value)
