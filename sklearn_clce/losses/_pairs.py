"""Which samples an anchor is compared with, and which of them are its positives."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._checks import check_labels, check_samples, check_tensor


class Pairs(NamedTuple):
    """Each of n anchors against N columns: the anchors themselves, then the references."""

    n_anchors: int
    same: Tensor  # labels (N,), int64; or a mask (n, N), of the anchor itself and its positives

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


def make_pairs(
    embeddings: Tensor,
    labels: Tensor | None,
    references: Tensor | None,
    reference_labels: Tensor | None,
    positive_mask: Tensor | None,
) -> Pairs:
    """Return the pairs of a batch; raise an error unless either labels or a mask define them."""
    n_anchors, n_columns = embeddings.shape[0], embeddings.shape[0]
    if references is not None:
        _check_references(references, embeddings)
        n_columns = n_anchors + references.shape[0]
    if (labels is None) == (positive_mask is None):
        raise ValueError("labels and positive_mask: exactly one of them is required")
    if (reference_labels is not None) != (references is not None and labels is not None):
        raise ValueError(
            "reference_labels: required with references and labels, and without them left out"
        )
    if labels is None:
        mask = _check_mask(positive_mask, n_anchors, n_columns)
        itself_mask = torch.eye(n_anchors, n_columns, dtype=torch.bool, device=mask.device)
        return Pairs(n_anchors, mask | itself_mask)
    labels = check_labels("labels", labels, "embeddings", embeddings)
    if references is not None:
        others = check_labels("reference_labels", reference_labels, "references", references)
        labels = torch.cat([labels, others])
    return Pairs(n_anchors, labels)


def _check_references(references: Tensor, embeddings: Tensor) -> None:
    check_samples("references", references, may_be_empty=True)
    if references.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"references of shape {tuple(references.shape)}: as many dimensions as the "
            f"{embeddings.shape[1]} of embeddings are required"
        )


def _check_mask(mask: Any, n_anchors: int, n_columns: int) -> Tensor:
    check_tensor("positive_mask", mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"positive_mask of dtype {mask.dtype}: torch.bool is required")
    if mask.shape != (n_anchors, n_columns):
        raise ValueError(
            f"positive_mask of shape {tuple(mask.shape)}: {(n_anchors, n_columns)} is required, "
            "anchors against themselves and then the references"
        )
    return mask
