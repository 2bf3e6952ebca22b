"""What is asked of a loss beyond its first derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_transformed(*values: Any) -> bool:
    """Tell whether ``torch.func`` or forward mode goes through a computation on these values."""
    # torch.autograd.Function asks the same; there is no public way to
    return torch._C._are_functorch_transforms_active() or any(
        isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None
        for value in values
    )


def differentiated_again(
    plain: Callable[..., Tensor], inputs: tuple[Any, ...], gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradient by each input as something that can be differentiated again."""
    wanted = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
    with torch.enable_grad(), torch.autocast(gradient.device.type, enabled=False):
        output = plain(*inputs)
        found = iter(torch.autograd.grad(output, wanted, gradient, create_graph=True))
    return tuple(
        next(found) if isinstance(value, Tensor) and value.requires_grad else None
        for value in inputs
    )
