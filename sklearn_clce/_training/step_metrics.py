"""The metrics of the steps, read from the device without making it wait; float16 scaling."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

LAG = {"cuda": 8}  # steps that a device may be behind the host, by its type; others none

MAX_SKIPPED = 20  # in a row: the scale has come down by a factor of a million
REMEDY = "precision='float32', or 'bfloat16' if the GPU has it, is required"

# Training stops if one of them is not finite; in the order in which they are reported.
CHECKED = {"train_loss": "loss", "train_grad_norm": "norm of the gradient"}

Requested = tuple[dict[str, Any], dict[str, Tensor], torch.Event | None]

CAUSES = (
    "a learning_rate that is too high, a temperature that is too low, max_grad_norm=None, or an "
    "augmentation that gives NaN"
)


class NonFiniteError(ArithmeticError):
    """The loss or the gradient of a training step, or a weight, is NaN or infinite."""


class LossScaling:
    """Scales the loss in float16 so that gradients don't vanish, and counts skipped steps.

    A step whose gradients overflow is skipped and halves the scale, which is how the scaler finds
    it; many in a row mean that no scale works.
    """

    def __init__(self, device: torch.device) -> None:
        self.scaler = torch.amp.GradScaler(device.type)
        self.n_taken = 0
        self.n_skipped = 0  # in a row

    def on(self, device: torch.device) -> LossScaling:
        """Return a scaling for the next call, in the state of this one."""
        further = LossScaling(device)
        further.n_skipped = self.n_skipped
        further.scaler.load_state_dict(self.scaler.state_dict())
        return further

    def backward(self, loss: Tensor) -> None:
        """Compute scaled gradients."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale; clipping then sees their true size."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """Take the step, unless a gradient is not finite, and choose the next scale."""
        self.scaler.step(optimizer)
        optimizer._opt_called = True  # type: ignore[attr-defined]  # skipped steps count as called
        self.scaler.update()

    def count(self, *, skipped: bool, epoch: int, step: int) -> None:
        """Count a step; raise an error if too many in a row were skipped."""
        self.n_taken += not skipped
        self.n_skipped = self.n_skipped + 1 if skipped else 0
        if self.n_skipped >= MAX_SKIPPED:
            raise NonFiniteError(
                f"the gradients overflow float16 at any scale: {self.n_skipped} steps in a row "
                f"were skipped until epoch {epoch}, step {step}; {REMEDY}"
            )

    def check_end(self) -> None:
        """Raise an error if a finished fit took no step."""
        if self.n_taken == 0:
            raise NonFiniteError(
                f"the gradients overflowed float16 in all {self.n_skipped} steps, which were "
                f"skipped: more of them are required to find a scale, or {REMEDY}"
            )

    def state(self) -> dict[str, float]:
        """Return what a checkpoint keeps."""
        counts = {"n_taken": self.n_taken, "n_skipped": self.n_skipped}
        return self.scaler.state_dict() | counts

    def load_state(self, state: dict[str, float]) -> None:
        """Continue from a checkpoint."""
        state = dict(state)
        self.n_taken, self.n_skipped = int(state.pop("n_taken")), int(state.pop("n_skipped"))
        self.scaler.load_state_dict(state)


class StepMetrics:
    """Turns the tensors in an epoch's batches of the history into numbers, and checks them.

    Those of a CUDA device are copied asynchronously and taken a fixed number of steps later:
    no step waits, and all processes notice a bad step at the same time. On other devices they
    are there at once.
    """

    def __init__(
        self, device: torch.device, epoch: int, scaling: LossScaling | None = None
    ) -> None:
        self.device = device
        self.scaling = scaling  # counts the steps whose gradients may overflow
        self.epoch = epoch
        self.lag = LAG.get(device.type, 0)
        self.n_taken = 0
        self.requested: deque[Requested] = deque()

    def add(self, batch: dict[str, Any]) -> None:
        """Request the numbers of a step, and take those that are due."""
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        arrived = None
        if self.device.type == "cuda":
            tensors = {n: value.to("cpu", non_blocking=True) for n, value in tensors.items()}
            arrived = torch.cuda.current_stream(self.device).record_event()
        self.requested.append((batch, tensors, arrived))
        while len(self.requested) > self.lag:
            self._take()

    def take_all(self) -> None:
        """Take all that were requested."""
        while self.requested:
            self._take()

    def _take(self) -> None:
        batch, tensors, arrived = self.requested.popleft()
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
    """Raise an error if the weights after an epoch, or the optimizer's state, are not finite."""
    kept: list[Tensor] = [weight for weight in module.parameters() if weight.requires_grad]
    states = [value for state in optimizer.state.values() for value in state.values()]
    kept += [value for value in states if isinstance(value, Tensor) and value.ndim]
    sound = [value.isfinite().all() for value in kept]
    sound += [~buffer.isnan().any() for buffer in module.buffers()]  # a mask may be infinite
    if not torch.stack(sound).all():  # one wait for the device
        raise NonFiniteError(
            f"the weights are not finite after epoch {epoch}: likely causes are {CAUSES}"
        )
