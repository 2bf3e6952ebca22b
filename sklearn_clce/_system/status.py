"""One line that moves while something is computed, and a hint where nothing is shown.

The line is that of the process. What computes opens a stage of it; a stage within another takes
its place until it is closed. A thread draws the line, so that it moves also while one step takes
long, and computing waits for nothing. Where a line can't move, as in a file, lines are written
instead, ever more rarely.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any, Self

from .locks import ProcessLock
from .places import Place, is_interactive, place_of_line
from .processes import is_main
from .progress import count, duration, in_worker, last_write, time_left, write_line
from .searches import Search, running_search

DRAWN_EVERY = 0.2  # seconds
WRITTEN_EVERY = 1.5  # seconds, at first
WRITTEN_SHARE = 0.1  # of the time that has passed, later
SILENT = 10.0  # seconds until a hint


class Stage:
    """Something that is computed, and how far it is.

    ``total`` is None if the number of steps is unknown, and ``deadline`` the moment, of
    :func:`time.monotonic`, at which the stage ends anyhow. ``first``: steps done before. A stage
    that counts the same things as the one around it is a part of that.
    """

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        *,
        total: int | None = None,
        unit: str = "",
        what: str = "",
        first: int = 0,
        deadline: float = math.inf,
    ) -> None:
        self.items, self.total, self.unit, self.what = items, total, unit, what
        self.first, self.n, self.deadline = first, first, deadline
        self.n_of_part = 0
        self.whole: Stage | None = None
        self.place, self.figures = "", ""  # in words, such as an epoch and its losses
        self.start = self.updated = monotonic()

    def update(self, n: int = 1) -> None:
        """Count steps."""
        self.n += n
        self.updated = monotonic()
        if self.whole is not None:
            self.whole.n_of_part, self.whole.updated = self.n, self.updated

    @property
    def n_done(self) -> int:
        """Steps that are done, those of a part included."""
        return self.n + self.n_of_part

    @property
    def per_step(self) -> float | None:
        """Seconds that a step takes; None: none is done."""
        done = self.n_done - self.first
        return (self.updated - self.start) / done if done else None

    @property
    def left(self) -> float | None:
        """Seconds that are left; None: unknown."""
        if self.total is None or self.per_step is None:
            return None
        over = self.updated + self.per_step * (self.total - self.n_done)
        return max(min(over, self.deadline) - monotonic(), 0)

    def text(self) -> str:
        """Return how far it is."""
        if self.total is None:
            return duration(math.floor(monotonic() - self.start) or 1)
        place = self.place or f"{self.n_done:,}/{count(self.total, self.unit)}"
        left = "" if self.left is None else time_left(self.left)
        return ", ".join(part for part in (place, left, self.figures) if part)

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self.items or ():
                yield item
                self.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stage."""
        _line.close(self)


def bar(items: Iterable[Any] | None = None, *, shown: bool = True, **options: Any) -> Stage:
    """Open a stage of the line; the outermost decides whether the line is shown.

    ``options`` are those of :class:`Stage`.
    """
    stage = Stage(items, **options)
    _line.open(stage, shown=shown and not in_worker())
    return stage


def note(text: str) -> None:
    """Write a line that stays; in a search its first fit does so alone."""
    search = running_search()
    if search is None or search.n_done == 0:
        write_line(text)


def expect(later: float = 0.0, n_fits: int | None = None) -> None:
    """Announce what follows: ``later`` counts steps as long as those of the present stage.

    ``n_fits`` are those of the search that calls this.
    """
    _line.later = later
    if _line.search is not None and n_fits is not None:
        _line.search.costs = [1.0] * n_fits


def is_due() -> bool:
    """Return whether no line was written for a while."""
    return monotonic() - last_write() > WRITTEN_EVERY


class Line:
    """The line of this process."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.owner = 0  # the thread that has opened it
        self.search: Search | None = None
        self.later = 0.0
        self.has_hinted = False
        self.lock = ProcessLock(self._forget)
        self._over = threading.Event()

    def _forget(self) -> None:
        self.stages = []

    def open(self, stage: Stage, *, shown: bool) -> None:
        """Show a stage; only one thread has the line."""
        with self.lock:
            if not self.stages:
                self.owner = threading.get_ident()
                self.stages.append(stage)
                self._begin(shown)
            elif self.owner == threading.get_ident():
                if self.stages[-1].total is not None and self.stages[-1].unit == stage.unit:
                    stage.whole = self.stages[-1]
                self.stages.append(stage)

    def close(self, stage: Stage) -> None:
        """Go back to the stage before, or end the line."""
        with self.lock:
            if stage in self.stages:
                del self.stages[self.stages.index(stage) :]
                if stage.whole is not None:
                    stage.whole.n_of_part = 0
                if not self.stages:
                    self._over.set()
                    self._end()

    def _begin(self, shown: bool) -> None:
        watched = is_interactive() and is_main()
        self.search, self.later = running_search(), 0.0
        self._over = threading.Event()
        self._place: Place | None = None
        watch = _write_lines if shown else _hint_once
        if shown and watched:
            self._place, watch = place_of_line(), _draw
            self.draw()
        if sys.stdout is not None and (shown or (watched and not self.has_hinted)):
            threading.Thread(target=watch, args=(self, self._over), daemon=True).start()

    def _end(self) -> None:
        if self._place is not None:
            self._place.clear()
        self._place = None

    def draw(self) -> None:
        """Draw the line at its place."""
        with self.lock:
            if self._place is not None and self.stages:
                self._place.draw(*self._parts(), self._shown.n_done, self._shown.total)

    def text(self) -> str:
        """Return the line without its bar; empty if nothing in it is counted."""
        with self.lock:
            is_counted = self.stages and self._shown.total is not None
            return ": ".join(self._parts()) if is_counted else ""

    @property
    def _shown(self) -> Stage:
        return self.stages[-1].whole or self.stages[-1]

    def _parts(self) -> tuple[str, str]:
        stage = self._shown
        named = next((each.what for each in reversed(self.stages) if each.what), "reading")
        if self.search is None:
            return named, stage.text()
        return f"{self.search}, {named}", stage.text()

    @property
    def begun(self) -> float:
        """When this began: the whole search, or the outermost stage."""
        with self.lock:
            if self.search is not None:
                return self.search.start
            return self.stages[0].start if self.stages else monotonic()

    def left(self) -> float | None:
        """Return the seconds that are left in all; None: unknown."""
        with self.lock:
            if self.search is not None and self.search.costs:
                return self.search.left
            if not self.stages or self._shown.left is None:
                return None
            left = self._shown.left + self.later * (self._shown.per_step or 0)
            return min(left, *(max(each.deadline - monotonic(), 0) for each in self.stages))


_line = Line()


def _draw(line: Line, over: threading.Event) -> None:
    while not over.wait(DRAWN_EVERY):
        line.draw()


def _write_lines(line: Line, over: threading.Event) -> None:
    start = line.begun
    while not over.wait(DRAWN_EVERY):
        every = max(WRITTEN_EVERY, WRITTEN_SHARE * (monotonic() - start))
        is_due = monotonic() - max(start, last_write()) > every
        if is_due and (text := line.text()):
            write_line(text)


def _hint_once(line: Line, over: threading.Event) -> None:
    """Say, after a while of silence, how long it will take."""
    while not over.wait(max(line.begun + SILENT - monotonic(), DRAWN_EVERY)):
        if (left := line.left()) is not None:
            line.has_hinted = True
            write_line(f"about {time_left(left)}; verbose=1 shows the progress")
            return
