"""Files: what they hold, and how they are written, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple


class FileState(NamedTuple):
    """What changes with the content of a file, also where two files are exchanged."""

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
    stat = os.stat(path)
    return FileState(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file in one step: a crash leaves the old one or the new one.

    Parameters
    ----------
    path : Path
        The file.
    write : callable
        Writes the content to an open binary file.

    Raises
    ------
    FileNotFoundError
        If its folder is not there.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: there is no folder {str(path.parent)!r}")
    writer = f"{os.getpid()}-{threading.get_ident()}"
    unfinished = path.with_name(f".{path.name}.{writer}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where folders can be synchronised (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left of a file.

    Parameters
    ----------
    path : Path
        The file.
    """
    for unfinished in path.parent.glob(f".{path.name}.*.unfinished"):
        unfinished.unlink(missing_ok=True)
