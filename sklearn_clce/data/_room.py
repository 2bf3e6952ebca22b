"""How much memory decoded pictures may take."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

FREE_SHARE = 0.25  # of the machine's memory, that "auto" leaves free
STEP = 32 * 2**20  # bytes between two looks at the machine
UNKNOWN = 2**30  # bytes, where the machine does not tell what is free
CGROUP = Path("/sys/fs/cgroup")


class MemoryBudget:
    """Memory that is taken until there is no more."""

    def __init__(self, size: int | str = "auto") -> None:
        self.automatic = size == "auto"
        self.left = 0 if self.automatic else int(size)
        self.full = False
        self._lock = threading.Lock()
        if self.automatic and not list(_memory()):
            self.automatic, self.left = False, UNKNOWN

    def take(self, n_bytes: int) -> bool:
        """Take memory, if there is enough; once there is not, none is given any more."""
        with self._lock:
            wants_more = n_bytes > self.left and self.automatic and not self.full
            if wants_more and all(free - STEP > FREE_SHARE * total for free, total in _memory()):
                self.left = max(STEP, n_bytes)
            self.full = self.full or n_bytes > self.left
            if not self.full:
                self.left -= n_bytes
            return not self.full


def _memory() -> Iterator[tuple[int, int]]:
    """Yield free and total bytes, of the machine and of the container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        yield 1024 * kilobytes["MemAvailable"], 1024 * kilobytes["MemTotal"]
    except (OSError, KeyError, ValueError):
        names = ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES", "SC_PAGE_SIZE")
        if getattr(os, "sysconf_names", {}).keys() >= set(names):
            free, total, size = map(os.sysconf, names)
            yield free * size, total * size
    try:
        total = int((CGROUP / "memory.max").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        used = int((CGROUP / "memory.current").read_text()) - int(stat["inactive_file"])
        yield total - used, total
    except (OSError, KeyError, ValueError):  # no container, or one without a limit
        pass
