"""What users see: warnings at their own line, lines of progress, a bar in a terminal.

Progress goes to standard output: what goes to standard error is red in a notebook. Programs
without a console, such as pythonw, have no standard output, and show nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

# Packages whose functions stand between a user's line and a warning of ours.
INNER = ("sklearn_clce", "sklearn", "skorch", "contextlib")


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn, with the line of the user's code from which the package was called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in INNER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def write_line(line: str) -> None:
    """Write a line, above the bar if there is one."""
    if sys.stdout is None:
        return
    from tqdm import tqdm

    with suppress(OSError, ValueError):  # closed, a broken pipe, or another encoding
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


def bar(items: Iterable[Any] | None = None, *, total: int, unit: str, shown: bool = True) -> Any:
    """Return a progress bar that vanishes when it is closed; none without a terminal."""
    from tqdm import tqdm

    is_hidden = not shown or sys.stdout is None
    nobody = True if is_hidden else None  # None: not where the output is not a terminal
    return tqdm(items, total=total, unit=unit, file=sys.stdout, leave=False, disable=nobody)


def duration(seconds: float) -> str:
    """Write a time as a person would."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
