"""What users see: warnings at their own line, lines of text, times and numbers in words.

Progress goes to standard output: what goes to standard error is red in a notebook. Programs
without a console, such as pythonw, have no standard output, and show nothing.
"""

from __future__ import annotations

import math
import multiprocessing
import sys
import warnings
from contextlib import suppress
from time import monotonic

# Packages whose functions stand between a user's line and a warning of ours.
INNER = ("sklearn_clce", "sklearn", "skorch", "joblib", "contextlib")

_last_write = [-math.inf]


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn, with the line of the user's code from which the package was called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in INNER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def in_worker() -> bool:
    """Return whether this is a process of a search, of which only the caller shows anything."""
    return multiprocessing.current_process().name.startswith("LokyProcess")


def write_line(line: str) -> None:
    """Write a line, above the moving one if there is one."""
    if sys.stdout is None or in_worker():
        return
    from tqdm import tqdm

    with suppress(OSError, ValueError):  # closed, a broken pipe, or another encoding
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    _last_write[0] = monotonic()


def last_write() -> float:
    """Return when the last line was written, in the time of :func:`time.monotonic`."""
    return _last_write[0]


def duration(seconds: float) -> str:
    """Write a time as a person would."""
    if seconds < 90:
        return f"{max(seconds, 0.01):.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def time_left(seconds: float) -> str:
    """Write a time that is left, in whole seconds."""
    return f"{duration(max(round(seconds), 1))} left"


def count(n: int, what: str) -> str:
    """Write a number of things."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
