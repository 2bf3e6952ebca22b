"""Searches and cross-validations: which of their fits is running, and when they began."""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass, field
from time import monotonic

import joblib

from .progress import time_left


@dataclass
class Search:
    """A call of joblib, in this thread, that fits estimators one after another."""

    start: float = field(default_factory=monotonic)
    n_fits: int | None = None  # of all; None: nobody has said
    n_done: int = 0
    updated: float = 0.0  # when the last one was over

    @property
    def left(self) -> float | None:
        """Seconds until the last fit is over; None: unknown."""
        if self.n_fits is None or not self.n_done:
            return None
        of_a_fit = (self.updated - self.start) / self.n_done
        over = self.updated + of_a_fit * (self.n_fits - self.n_done)
        return max(over - monotonic(), 0.0)

    def __str__(self) -> str:
        total = "" if self.n_fits is None else f" of {self.n_fits}"
        left = "" if self.left is None else f", {time_left(self.left)}"
        return f"fit {self.n_done + 1}{total}{left}"


_searches: weakref.WeakKeyDictionary[joblib.Parallel, Search] = weakref.WeakKeyDictionary()


def running_search() -> Search | None:
    """Return the search that calls this, the outermost if there are several."""
    frame, call = sys._getframe(1), None
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_get_sequential_output" and "joblib" in code.co_filename:
            call = frame.f_locals["self"]
        frame = frame.f_back  # type: ignore[assignment]
    if call is None:
        return None
    search = _searches.setdefault(call, Search())
    if search.n_done != call.n_completed_tasks:
        search.n_done, search.updated = call.n_completed_tasks, monotonic()
    return search
