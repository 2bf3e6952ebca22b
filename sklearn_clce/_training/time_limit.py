"""The time that a fit may take, and how much of it is used."""

from __future__ import annotations

import math
from time import monotonic

from sklearn.exceptions import ConvergenceWarning

from .._system import broadcast, is_main, warn


class TimeLimit:
    """The time of one fit, from the moment that this is made.

    Its steps may use what is left of it when the first one begins, less one of them, and less what
    follows the last one of an epoch: validation, what callbacks do, and a pass after the last
    epoch, if one is expected. If that would take most of what is left, it is left out.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self.start = monotonic()
        self.first_step = self.start
        self.before_step = self.start
        self.last_step = self.start  # of an epoch
        self.tail: float | None = None  # seconds that follow it; None: none has ended
        self.n_steps = 0
        self.in_steps = 0.0  # seconds
        self.n_validation_batches = 0
        self.used = 0.0  # share of the time for steps
        self.before_steps = 0.0  # seconds of a pass that is like the last one
        self.n_last_batches = 0
        self.closes = True  # there will be time for the last one

    @property
    def is_over(self) -> bool:
        """Whether there is no time for another step."""
        return self.used >= 1

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(self.start + self.seconds - monotonic(), 0.0)

    def expect_pass(self, n_batches: int) -> None:
        """Keep time for a pass after the last epoch; there may have been one like it until now."""
        self.n_last_batches = n_batches
        self.before_steps = monotonic() - self.start

    def begin_steps(self) -> None:
        """Note that what comes before the first step is done."""
        self.first_step = monotonic()
        self._look(self.first_step)

    def count_step(self) -> None:
        """Note that a step is done."""
        now = monotonic()
        self.n_steps += 1
        self.in_steps += now - self.before_step
        self._look(now)

    def end_steps(self) -> None:
        """Note that the steps of an epoch are done."""
        self.last_step = monotonic()

    def count_tail(self) -> None:
        """Note that something is done that follows the steps of an epoch."""
        now = monotonic()
        self.tail = now - self.last_step
        self._look(now)

    def warn(self) -> None:
        """Warn that the time was over before the first step."""
        if is_main():
            before = self.first_step - self.start
            warn(
                f"max_time={self.seconds!r} was over before the first step, {before:.1f} s after "
                "the fit began: the classifier has not been trained beyond its start. A longer "
                "max_time is required, or memory=..., which keeps the features of a backbone",
                ConvergenceWarning,
            )

    def state(self) -> dict[str, float]:
        """Return what a checkpoint keeps."""
        now = monotonic()
        return {
            "since_start": now - self.start,
            "since_first_step": now - self.first_step,
            "closes": self.closes,
        }

    def load_state(self, state: dict[str, float]) -> None:
        """Count what a fit has used until its checkpoint was written."""
        self.start -= state["since_start"]
        self.first_step -= state["since_first_step"]
        self._look(monotonic())
        self.closes = bool(state["closes"])  # if no step follows, all is as it was

    def _look(self, now: float) -> None:
        """Measure the time that is used, alike in all processes."""
        self.before_step = now
        if math.isinf(self.seconds):
            return
        step, tail = self.in_steps / max(self.n_steps, 1), self.tail
        if tail is None:  # a batch of validation takes no longer than a step
            tail = self.n_validation_batches * step
        end = self.start + self.seconds - step - tail
        if self.n_last_batches and self.closes:
            last_pass = max(self.before_steps, self.n_last_batches * step / 2)  # it only evaluates
            self.closes = 2 * last_pass < end - self.first_step
            end -= last_pass if self.closes else 0.0
        used = (now - self.first_step) / (end - self.first_step) if now < end else 1.0
        self.used, self.closes = broadcast((used, self.closes))
