"""Memory of batches that is used again."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

N_KEPT = 3  # the batch that is being used, and two that are being read


class BatchMemory:
    """Memory for one float32 batch after another, used again once no tensor lies in it.

    The first use of memory that is new to a process takes about as long as cropping the pictures
    that it is for.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []

    def floats(self, shape: Sequence[int]) -> Tensor:
        """Return a tensor of any content."""
        n = math.prod(shape)
        free = [memory for memory, user in self._kept if user() is None and len(memory) >= n]
        memory = free[0] if free else torch.empty(n).numpy()
        part = memory[:n].reshape(shape)  # which whatever shares the tensor's memory keeps alive
        others = [kept for kept in self._kept if kept[0] is not memory]
        self._kept = [*others, (memory, weakref.ref(part))][-N_KEPT:]
        return torch.from_numpy(part)
