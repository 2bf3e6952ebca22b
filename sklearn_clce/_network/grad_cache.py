"""The gradient of a large batch in the memory of a small one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import compress

import torch
from torch import Tensor

from .._system import device_rng_state, set_device_rng_state
from ..data import count_parts


def backward_in_parts(
    forward: Callable[[Tensor], Sequence[Tensor]],
    loss_of: Callable[[Sequence[Tensor]], Tensor],
    batch: Tensor,
    size: int,
    *,
    unsummed: Callable[[], AbstractContextManager] = nullcontext,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> tuple[Tensor, Sequence[Tensor]]:
    """Compute the loss of a batch and its gradient, a few samples at a time.

    A first pass, without gradients, gives the outputs of all samples, and the loss the
    gradient of each output. A second pass runs each part again, with the same random
    numbers, and hands its outputs' gradients on to the weights [1]_. This is exact for a
    network that treats samples one by one; batch statistics are those of the parts, and
    enter the running ones twice.

    Shapes: batch (n, ...) -> loss (), outputs (n, ...).

    References
    ----------
    .. [1] Gao, L. et al. "Scaling Deep Contrastive Learning Batch Size under Memory
       Limited Setup", arXiv:2101.06983, 2021.
    """
    n_parts = count_parts(len(batch), size)
    parts = batch.tensor_split(n_parts)
    random_states, outputs = [], []
    with torch.no_grad():
        for part in parts:
            random_states.append(_random_state(batch.device))
            outputs.append(forward(part))
    whole = [torch.cat(column).requires_grad_() for column in zip(*outputs, strict=True)]
    loss = loss_of(whole)
    backward(loss)  # of which all that follows takes the scale
    used = [output.grad is not None for output in whole]
    given = [output.grad for output in whole if output.grad is not None]
    gradients = zip(*(gradient.tensor_split(n_parts) for gradient in given), strict=True)
    for number, (part, state, gradient) in enumerate(
        zip(parts, random_states, gradients, strict=True), start=1
    ):
        _set_random_state(state, batch.device)
        with nullcontext() if number == len(parts) else unsummed():
            torch.autograd.backward(list(compress(forward(part), used)), gradient)
    return loss.detach(), [output.detach() for output in whole]


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), device_rng_state(device)


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    set_device_rng_state(state[1], device)
