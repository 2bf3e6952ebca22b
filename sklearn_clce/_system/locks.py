"""Locks of the process, which are free in a child of ``fork``."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable


class ProcessLock:
    """A lock that one thread holds, as often as it likes, and that a forked child finds free.

    If another thread of the parent holds it, nothing would ever release it in the child. A child
    that is forked by the thread that holds the lock still holds it. ``forget`` is called in the
    child, to undo what other threads have begun.
    """

    def __init__(self, forget: Callable[[], None] | None = None) -> None:
        self._forget = forget
        self._lock = threading.RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Replace the lock in a child, if a thread holds it that is not there."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()
        if self._forget is not None:
            self._forget()


_locks: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


def _renew_locks() -> None:
    for lock in _locks:
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
