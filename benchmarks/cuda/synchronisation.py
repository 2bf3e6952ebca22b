"""Where the host waits for the device, as torch's sync debug mode reports it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

MESSAGE = "called a synchronizing CUDA operation"


def waits(function: Callable[[], object]) -> Counter:
    """Call a function; count its synchronisations by the line of Python that they come from."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return Counter(_place(one) for one in caught if MESSAGE in str(one.message))


def waits_of_a_step(fit: Callable[[int], object], few: int = 4, many: int = 12) -> Counter:
    """Count what more steps add: ``fit(n)`` trains n steps, and waits before and after them too."""
    fit(few)  # what happens once in a process
    added = waits(lambda: fit(many))
    added.subtract(waits(lambda: fit(few)))
    return Counter({place: n / (many - few) for place, n in added.items() if n > 0})


def _place(warning: warnings.WarningMessage) -> str:
    path = Path(warning.filename)
    return f"{path.parent.name}/{path.name}:{warning.lineno}"
