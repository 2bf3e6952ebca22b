"""The numbers of the steps, read from the device without making it wait."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

LAG = {"cuda": 8}  # steps that a device may be behind the host, by its type; others none

# What makes all that follows worthless where it is not finite, in the order in which it is told.
CHECKED = {"train_loss": "loss", "train_grad_norm": "norm of the gradient"}

CAUSES = (
    "a learning_rate that is too high, a temperature that is too low, max_grad_norm=None, or an "
    "augmentation that gives NaN"
)


class NonFiniteError(ArithmeticError):
    """The loss or the gradient of a training step, or a weight, is NaN or infinite."""


class Readings:
    """Turns the tensors in an epoch's batches of the history into numbers, and checks them.

    The numbers of a CUDA device come by asynchronous copies and are taken a fixed number of
    steps later: a step makes nobody wait, and all processes notice the same step at the
    same time. Elsewhere they are there at once.
    """

    def __init__(self, device: torch.device, epoch: int, scaling: Any = None) -> None:
        self.device = device
        self.scaling = scaling  # counts the steps whose gradients may overflow
        self.epoch = epoch
        self.lag = LAG.get(device.type, 0)
        self.n_taken = 0
        self.coming: deque[tuple[dict[str, Any], dict[str, Tensor], torch.Event | None]] = deque()

    def add(self, batch: dict[str, Any]) -> None:
        """Let the numbers of a step come, and take those that are due."""
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        arrived = None
        if self.device.type == "cuda":
            tensors = {n: value.to("cpu", non_blocking=True) for n, value in tensors.items()}
            arrived = torch.cuda.current_stream(self.device).record_event()
        self.coming.append((batch, tensors, arrived))
        while len(self.coming) > self.lag:
            self._take()

    def take_all(self) -> None:
        """Take what is still to come."""
        while self.coming:
            self._take()

    def _take(self) -> None:
        batch, tensors, arrived = self.coming.popleft()
        if arrived is not None:
            arrived.synchronize()
        batch.update({name: value.item() for name, value in tensors.items()})
        self.n_taken += 1
        checked = dict(CHECKED)
        if self.scaling is not None and "train_grad_norm" in batch:
            norm = batch["train_grad_norm"]
            del checked["train_grad_norm"]
            self.scaling.count(skipped=not math.isfinite(norm), epoch=self.epoch, step=self.n_taken)
        for name, meaning in checked.items():
            if not math.isfinite(batch.get(name, 0.0)):
                raise NonFiniteError(
                    f"the {meaning} is {batch[name]} in epoch {self.epoch}, step {self.n_taken}: "
                    f"likely causes are {CAUSES}{self._of_float16()}"
                )

    def _of_float16(self) -> str:
        return "" if self.scaling is None else "; precision='float16', which holds no large values"


def check_weights(module: nn.Module, optimizer: Optimizer, epoch: int) -> None:
    """Raise an error if what an epoch leaves behind, to be kept, is not finite."""
    kept: list[Tensor] = [weight for weight in module.parameters() if weight.requires_grad]
    states = [value for state in optimizer.state.values() for value in state.values()]
    kept += [value for value in states if isinstance(value, Tensor) and value.ndim]
    sound = [value.isfinite().all() for value in kept]
    sound += [~buffer.isnan().any() for buffer in module.buffers()]  # a mask may be infinite
    if not torch.stack(sound).all():  # one wait for the device
        raise NonFiniteError(
            f"the weights are not finite after epoch {epoch}: likely causes are {CAUSES}"
        )
