"""Which samples an anchor is compared with, and which of them are its positives."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._checks import (
    at_least_float32,
    check_labels,
    check_samples,
    check_tensor,
    finite_weights,
    is_readable,
)


class Pairs(NamedTuple):
    """Each of n anchors against N columns: the anchors themselves, then the references.

    ``weights`` and ``negative`` come together. Without them all positives weigh the same, and
    a column is negative if it is not a positive.
    """

    n_anchors: int
    same: Tensor  # labels (N,), int64; or a mask (n, N), of the anchor itself and its positives
    weights: Tensor | None = None  # (n, N), of an anchor's positives, the largest 1; else 0
    negative: Tensor | None = None  # mask (n, N)

    @property
    def n_columns(self) -> int:
        """N, also as a size that export leaves free."""
        return self.same.shape[-1]

    @property
    def symmetric(self) -> bool:
        """Whether a pair of anchors is the same both ways."""
        return self.same.ndim == 1

    def same_mask(self, start: int, stop: int, left: int) -> Tensor:
        """Compare some anchors with the columns from ``left`` on, (stop - start, N - left)."""
        if not self.symmetric:
            return self.same[start:stop, left:]
        return self.same[start:stop, None] == self.same[left:]

    def n_negatives(self, n_positives: Tensor) -> Tensor:
        """Count the negatives of each anchor, (n,), given the number of its positives."""
        if self.negative is None:
            return self.n_columns - 1 - n_positives
        return self.negative.sum(dim=1, dtype=n_positives.dtype)


def make_pairs(
    embeddings: Tensor,
    labels: Tensor | None,
    references: Tensor | None,
    reference_labels: Tensor | None,
    positive_mask: Tensor | None,
    positive_weights: Tensor | None,
    negative_mask: Tensor | None,
) -> Pairs:
    """Return the pairs of a batch; raise an error unless either labels or a mask define them."""
    if references is not None:
        _check_references(references, embeddings)
    if (labels is None) == (positive_mask is None):
        raise ValueError("labels and positive_mask: exactly one of them is required")
    if (reference_labels is not None) != (references is not None and labels is not None):
        raise ValueError(
            "reference_labels: required with references and labels, and without them left out"
        )
    if labels is None:
        n_columns = embeddings.shape[0] + (0 if references is None else references.shape[0])
        shape = embeddings.shape[0], n_columns
        return _pairs_of_masks(shape, positive_mask, positive_weights, negative_mask)
    if positive_weights is not None or negative_mask is not None:
        raise ValueError(
            "positive_weights and negative_mask: they belong to a positive_mask, which is "
            "required instead of labels"
        )
    return _pairs_of_labels(embeddings, labels, references, reference_labels)


def _pairs_of_labels(
    embeddings: Tensor,
    labels: Tensor,
    references: Tensor | None,
    reference_labels: Tensor | None,
) -> Pairs:
    labels = check_labels("labels", labels, "embeddings", embeddings)
    if references is not None:
        others = check_labels("reference_labels", reference_labels, "references", references)
        labels = torch.cat([labels, others])
    return Pairs(embeddings.shape[0], labels)


def _pairs_of_masks(
    shape: tuple[int, int], positive: Any, weights: Tensor | None, negative: Tensor | None
) -> Pairs:
    positive = _check_mask("positive_mask", positive, shape)
    itself_mask = torch.eye(*shape, dtype=torch.bool, device=positive.device)
    same_mask = positive | itself_mask
    if weights is None and negative is None:
        return Pairs(shape[0], same_mask)
    positive = positive & ~itself_mask
    if weights is None:
        weights = at_least_float32(positive)
    else:
        weights = _relative_weights(weights, positive)
    if negative is None:
        return Pairs(shape[0], same_mask, weights, ~same_mask)
    negative = _check_negatives(negative, positive)
    return Pairs(shape[0], same_mask, weights, negative & ~same_mask)


def _relative_weights(weights: Tensor, positive: Tensor) -> Tensor:
    """Return weights of positives as shares of each anchor's largest, and 0 for other pairs."""
    check_tensor("positive_weights", weights)
    _check_shape("positive_weights", weights, positive.shape)
    if weights.requires_grad:
        raise ValueError(
            "positive_weights requires a gradient, and gets none: "
            "positive_weights.detach() is required"
        )
    weights = torch.where(positive, at_least_float32(weights), 0)
    weights = finite_weights("positive_weights", weights)
    largest = weights.amax(dim=1, keepdim=True)  # (n, 1)
    return weights / torch.where(largest > 0, largest, 1)


def _check_negatives(negative: Any, positive: Tensor) -> Tensor:
    negative = _check_mask("negative_mask", negative, positive.shape)
    both = negative & positive
    if is_readable(both) and both.any():
        raise ValueError(
            f"negative_mask and positive_mask: {int(both.sum())} pairs are in both, and each may "
            "be in one of them, or in neither, which leaves it out"
        )
    return negative


def _check_references(references: Tensor, embeddings: Tensor) -> None:
    check_samples("references", references, may_be_empty=True)
    if references.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"references of shape {tuple(references.shape)}: as many dimensions as the "
            f"{embeddings.shape[1]} of embeddings are required"
        )


def _check_mask(name: str, mask: Any, shape: tuple[int, ...]) -> Tensor:
    check_tensor(name, mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} of dtype {mask.dtype}: torch.bool is required")
    _check_shape(name, mask, shape)
    return mask


def _check_shape(name: str, matrix: Tensor, shape: tuple[int, ...]) -> None:
    if matrix.shape != shape:
        raise ValueError(
            f"{name} of shape {tuple(matrix.shape)}: {tuple(shape)} is required, "
            "anchors against themselves and then the references"
        )
