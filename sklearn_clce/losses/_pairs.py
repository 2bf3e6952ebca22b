"""Which samples an anchor is compared with, and which of them are its positives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Each of n anchors against N columns: first the anchors themselves, then the references.

    Either labels say what is positive, or a mask of one's own does.
    """

    n_anchors: int
    n_columns: int
    labels: Tensor | None  # (N,), int64
    same_mask: Tensor | None  # (n, N), bool: the anchor itself and its positives

    @property
    def symmetric(self) -> bool:
        """Whether a pair of anchors is the same both ways."""
        return self.same_mask is None

    def same(self, start: int, stop: int, left: int) -> Tensor:
        """Compare some anchors with the columns from ``left`` on, (stop - start, N - left)."""
        if self.same_mask is not None:
            return self.same_mask[start:stop, left:]
        assert self.labels is not None
        return self.labels[start:stop, None] == self.labels[left:]

    def all_same(self) -> Tensor:
        """Compare all anchors with all columns, (n, N)."""
        return self.same(0, self.n_anchors, 0)


def pairs_by_label(labels: Tensor, n_anchors: int | None = None) -> Pairs:
    """Make a positive of every other column, of the labels of shape (N,), with the anchor's."""
    n_columns = labels.shape[0]
    return Pairs(n_columns if n_anchors is None else n_anchors, n_columns, labels, None)


def pairs_by_mask(positive_mask: Tensor) -> Pairs:
    """Make a positive of what the mask of shape (n, N) says; an anchor itself is neither."""
    n_anchors, n_columns = positive_mask.shape
    itself_mask = torch.eye(n_anchors, n_columns, dtype=torch.bool, device=positive_mask.device)
    return Pairs(n_anchors, n_columns, None, positive_mask | itself_mask)
