"""One batch made of those of all processes."""

from __future__ import annotations

import warnings
from typing import TypeVar

import torch
from torch import Tensor

from .._system import gather as all_gather
from .._system import n_processes
from ._checks import check_tensor

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)


def gathered(name: str, samples: MaybeTensor, gather: bool | None) -> MaybeTensor:
    """Return the samples of all processes, (n of all, ...), where that is asked for."""
    if not gather or samples is None:
        return samples
    check_tensor(name, samples)
    return all_gather(samples)


def warn_if_apart(gather: bool | None) -> None:
    """Warn where there are several processes and it has not been said whether to gather."""
    if gather is None and not torch.compiler.is_compiling() and n_processes() > 1:
        warnings.warn(
            "gather=None: the loss sees only the samples of its own process. gather=True makes "
            "one batch of those of all, gather=False keeps them apart without this warning",
            UserWarning,
            stacklevel=4,
        )
