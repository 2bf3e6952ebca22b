"""Files: what they hold, and how they are written, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]


class FileState(NamedTuple):
    """Properties that change with the content of a file, also if two files are exchanged."""

    size: int
    modified: int  # ns
    changed: int  # ns
    inode: int


def digest_file(path: str | os.PathLike[str]) -> bytes:
    """Digest the content of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def state_of(path: str | os.PathLike[str]) -> FileState:
    """Look at a file, without reading it."""
    found = os.stat(path)
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file in one step: a crash leaves the old one or the new one.

    A link stays and what it leads to is replaced; the new file has the mode of the old one.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: there is no folder {str(target.parent)!r}")
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    if mode is not None and not target.is_file():
        raise ValueError(f"path={str(path)!r} is a folder or a device: a file is required")
    writer = f"{os.getpid()}-{threading.get_ident()}"
    unfinished = target.with_name(f".{target.name}.{writer}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            if mode is not None:
                os.chmod(unfinished, mode)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, if folders can be synchronised (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left of a file."""
    for unfinished in path.parent.glob(f".{path.name}.*.unfinished"):
        unfinished.unlink(missing_ok=True)


class Lock:
    """A lock on a file or folder, with one holder among all threads and processes.

    The system releases it when the process ends, in any way. Without such locks, on Windows
    and on some network file systems, everybody gets it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.descriptor: int | None = None

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock, and return whether that was possible."""
        if fcntl is None:
            return True
        flags = os.O_RDONLY if os.path.isdir(self.path) else os.O_CREAT | os.O_RDWR
        descriptor = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                return not isinstance(error, BlockingIOError)
            raise
        self.descriptor = descriptor
        _locked.add(descriptor)
        return True

    def release(self) -> None:
        """Give the lock up, if it is held."""
        if self.descriptor is not None:
            _locked.discard(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = None


_locked: set[int] = set()


def _forget_locks() -> None:
    """Release the parent's locks in a child, which may outlive it."""
    while _locked:
        os.close(_locked.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
