"""Where a line can move: at the bottom of a terminal, or below a cell of a notebook."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from importlib import import_module
from shutil import get_terminal_size
from typing import Any, Protocol

BAR = 16  # characters
NOTEBOOK_WIDTH = 100  # characters


class Place(Protocol):
    """Where a line is drawn again and again."""

    def draw(self, before: str, after: str, n: int, total: int | None) -> None:
        """Draw the line, with a bar between its parts if there is a total."""

    def clear(self) -> None:
        """Leave nothing of it."""


def is_interactive() -> bool:
    """Return whether somebody watches, in a terminal or a notebook."""
    with suppress(AttributeError, ValueError):  # no stream, or one that is closed
        return _is_notebook() or bool(sys.stdout.isatty())
    return False


def place_of_line() -> Place:
    """Return the place of a line, where somebody watches."""
    if not _is_notebook():
        return Terminal()
    cell: Any = sys.modules["IPython"].get_ipython()
    key = id(cell), getattr(cell, "execution_count", None)
    if key not in _cells:  # a cell has one line, whatever it calls
        _cells.clear()
        _cells[key] = Cell()
    return _cells[key]


def _is_notebook() -> bool:
    return type(sys.stdout).__module__.startswith("ipykernel.")


def _format(before: str, after: str, total: int | None) -> str:
    """Return a format for tqdm."""
    bar = "" if total is None else f"|{{bar:{BAR}}}| "
    parts = (part.replace("{", "{{").replace("}", "}}") for part in (before, after))
    return f": {bar}".join(parts)


class Terminal:
    """The line of a terminal, which tqdm shares with other lines of its kind."""

    def __init__(self) -> None:
        from tqdm import tqdm

        # tqdm would draw nothing where the terminal says that it has no columns and lines
        size: dict[str, int] = dict(zip(("ncols", "nrows"), get_terminal_size(), strict=True))
        self.meter = tqdm(file=sys.stdout, leave=False, bar_format=" ", **size)

    def draw(self, before: str, after: str, n: int, total: int | None) -> None:
        """Draw the line over itself."""
        self.meter.n, self.meter.total = n, total
        self.meter.ncols = get_terminal_size().columns - 1  # it may have changed
        self.meter.bar_format = _format(before, after, total)
        with suppress(OSError, ValueError):  # closed, a broken pipe, or another encoding
            self.meter.refresh()

    def clear(self) -> None:
        """Clear the line."""
        with suppress(OSError, ValueError):
            self.meter.close()


class Cell:
    """One output below a cell, empty when nothing is shown."""

    def __init__(self) -> None:
        display: Any = import_module("IPython.display").display
        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def draw(self, before: str, after: str, n: int, total: int | None) -> None:
        """Show the line in place of what was there."""
        from tqdm import tqdm

        form = _format(before, after, total)
        line = tqdm.format_meter(n, total, 0, ncols=NOTEBOOK_WIDTH, bar_format=form)
        self.handle.update({"text/plain": line}, raw=True)

    def clear(self) -> None:
        """Show nothing."""
        self.handle.update({"text/plain": ""}, raw=True)


_cells: dict[Any, Cell] = {}

if "ipykernel" in sys.modules:  # timm imports it, which is red in a notebook without ipywidgets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("tqdm.auto")
