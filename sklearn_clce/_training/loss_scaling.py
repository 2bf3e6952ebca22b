"""Gradients in float16: scaled so that they don't vanish, and left out where they overflow."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from .readings import NonFiniteError

MOST_SKIPPED = 20  # in a row: the scale has come down by a factor of a million
REMEDY = "precision='float32', or 'bfloat16' where the GPU has it, is required"


class LossScaling:
    """Scales the loss of each step by what the gradients bear, and counts steps that are skipped.

    A step whose gradients overflow is skipped and halves the scale, which is how the scaler finds
    it; many in a row mean that no scale will do.
    """

    def __init__(self, device: torch.device) -> None:
        self.scaler = torch.amp.GradScaler(device.type)
        self.n_taken = 0
        self.n_skipped = 0  # in a row

    def on(self, device: torch.device) -> LossScaling:
        """Return a scaling for a further call, from where this one stands."""
        further = LossScaling(device)
        further.n_skipped = self.n_skipped
        further.scaler.load_state_dict(self.scaler.state_dict())
        return further

    def backward(self, loss: Tensor) -> None:
        """Compute scaled gradients."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale; what clips them then sees them as they are."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """Take the step, unless a gradient is not finite, and settle the next scale."""
        self.scaler.step(optimizer)
        optimizer._opt_called = True  # type: ignore[attr-defined]  # a skipped step is one too
        self.scaler.update()

    def count(self, *, skipped: bool, epoch: int, step: int) -> None:
        """Count a step; raise an error where too many in a row were skipped."""
        self.n_taken += not skipped
        self.n_skipped = self.n_skipped + 1 if skipped else 0
        if self.n_skipped >= MOST_SKIPPED:
            raise NonFiniteError(
                f"the gradients overflow float16 at any scale: {self.n_skipped} steps in a row "
                f"were skipped until epoch {epoch}, step {step}; {REMEDY}"
            )

    def check_end(self) -> None:
        """Raise an error where a fit, which is over, took no step."""
        if self.n_taken == 0:
            raise NonFiniteError(
                f"the gradients overflowed float16 in all {self.n_skipped} steps, which were "
                f"skipped: more of them are required to find a scale, or {REMEDY}"
            )

    def state(self) -> dict[str, float]:
        """Return what a checkpoint keeps."""
        counts = {"n_taken": self.n_taken, "n_skipped": self.n_skipped}
        return self.scaler.state_dict() | counts

    def go_on(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        state = dict(state)
        self.n_taken, self.n_skipped = int(state.pop("n_taken")), int(state.pop("n_skipped"))
        self.scaler.load_state_dict(state)
