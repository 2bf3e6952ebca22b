"""Searches and cross-validations: which of their fits is running, and when they began."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

import joblib

from .progress import time_left


@dataclass
class Search:
    """Fits of estimators one after another, such as those of a call of joblib."""

    start: float = field(default_factory=monotonic)
    costs: Sequence[float] = ()  # of all fits, as against each other; empty: nobody has said
    n_done: int = 0
    updated: float = 0.0  # when the last one was over

    @property
    def left(self) -> float | None:
        """Seconds until the last fit is over; None: unknown."""
        if not self.costs or not self.n_done:
            return None
        done, to_come = sum(self.costs[: self.n_done]), sum(self.costs[self.n_done :])
        over = self.updated + (self.updated - self.start) * to_come / done
        return max(over - monotonic(), 0.0)

    def __str__(self) -> str:
        total = f" of {len(self.costs)}" if self.costs else ""
        left = "" if self.left is None else f", {time_left(self.left)}"
        return f"fit {self.n_done + 1}{total}{left}"

    def advance(self) -> None:
        """Count a fit that is over."""
        self.n_done, self.updated = self.n_done + 1, monotonic()


_own: list[Search] = []  # the searches of this package, the outermost first
_searches: weakref.WeakKeyDictionary[joblib.Parallel, Search] = weakref.WeakKeyDictionary()


@contextmanager
def own_search(costs: Sequence[float]) -> Iterator[Search]:
    """Show the fits of the block as those of a search, which counts them by ``advance``."""
    _own.append(Search(costs=costs))
    try:
        yield _own[-1]
    finally:
        _own.pop()


def running_search() -> Search | None:
    """Return the search that calls this, the outermost if there are several."""
    if _own:
        return _own[0]
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
