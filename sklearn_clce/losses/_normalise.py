"""Embeddings of length 1, or of another one, without overflow or underflow."""

from __future__ import annotations

import torch
from torch import Tensor


def l2_normalise(embeddings: Tensor, length: float | Tensor = 1.0) -> Tensor:
    """Scale embeddings of shape (n, n_dims) to a length; zeros stay zero, their gradient finite."""
    largest = embeddings.detach().abs().amax(dim=1, keepdim=True)  # (n, 1)
    rescaled = embeddings / torch.where(largest > 0, largest, 1)  # length 0 or >= 1
    own_square = rescaled.square().sum(dim=1, keepdim=True)  # (n, 1), whose root has no slope at 0
    # A product has a cheaper gradient than a quotient.
    return rescaled * (length * own_square.clamp(min=0.25).rsqrt())
