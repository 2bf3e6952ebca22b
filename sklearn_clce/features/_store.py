"""Frozen features kept per image, so that a backbone runs once for each."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_memory

from .._system import warn
from ._process_store import ProcessStore, process_store

FILE_NAME = "sklearn_clce_features.sqlite"
APPLICATION_ID = 0x434C4345  # "CLCE"
SCHEMA_VERSION = 3
SCHEMA = (
    "DROP TABLE IF EXISTS features",  # of an older version, whose keys nobody asks for
    "DROP TABLE IF EXISTS files",
    "CREATE TABLE features (key BLOB PRIMARY KEY, vector BLOB, checksum BLOB, used REAL)",
    "CREATE INDEX features_used ON features (used)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
SELECT_FEATURES = "SELECT vector, checksum, used < ? FROM features WHERE key = ?"
DELETE_UNUSED = (
    "DELETE FROM features WHERE rowid IN (SELECT rowid FROM features ORDER BY used LIMIT ?)"
)

DEFAULT_SIZE_LIMIT = 2 * 1024**3
USED_EVERY_SECONDS = 3600.0  # how exactly the last use of a row is known


class FeatureStore:
    """Features on disk, one row for each image, in one SQLite database.

    Any number of processes may share the folder. A feature that :meth:`get` returns is one
    that was put, even if the file is damaged: each row carries a checksum, and each write is
    a transaction. If the file can't be read or written, a warning says so once, and features
    are computed again.

    The folder may be on a network file system whose locks work: the journal of SQLite is a
    rollback journal, since its write-ahead log does not work there.

    Parameters
    ----------
    folder : path
        Folder of the database, created with the first feature; ``~`` is the home folder.
    size_limit : int, default=2 GiB
        Bytes that the database may take, approximately. Features that were not used for
        longest, to the hour, are dropped.
    timeout : float, default=60
        Seconds to wait while another process writes.

    Raises
    ------
    ValueError
        If ``size_limit`` is not above 0.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_clce import FeatureStore
    >>> store = FeatureStore(tempfile.mkdtemp())
    >>> store.put({b"one": np.ones(3, dtype=np.float32)})
    >>> store.get([b"one", b"two"])
    {b'one': array([1., 1., 1.], dtype=float32)}
    >>> store.clear()
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        size_limit: int = DEFAULT_SIZE_LIMIT,
        timeout: float = 60.0,
    ) -> None:
        if not size_limit > 0:
            raise ValueError(f"size_limit={size_limit!r}: bytes, so a number > 0, are required")
        self.folder = os.path.expanduser(folder)
        self.size_limit = size_limit
        self.timeout = timeout
        self._given_up = False

    def __repr__(self) -> str:
        return f"FeatureStore({self.folder!r}, size_limit={self.size_limit!r})"

    @property
    def path(self) -> Path:
        """The database's file."""
        return Path(self.folder) / FILE_NAME

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Look features up.

        Parameters
        ----------
        keys : sequence of bytes
            Any keys, in any order.

        Returns
        -------
        dict of bytes to ndarray of shape (d,), float32
            The features of those keys that are kept, read-only.
        """
        kept: dict[bytes, np.ndarray] = {}
        stale, damaged = [], 0
        before = time.time() - USED_EVERY_SECONDS
        with self._forgiving(), self._reading() as connection:
            for key in set(keys):
                row = connection.execute(SELECT_FEATURES, (before, key)).fetchone()
                if row and _is_sound(key, *row[:2]):
                    kept[key] = np.frombuffer(row[0], dtype="<f4")
                    stale += [key] if row[2] else []
                elif row:
                    damaged += 1
        if damaged:
            self._warn(f"{damaged} kept features are damaged", "they are computed again")
        if stale:
            self._touch(stale)
        return kept

    def put(self, features: Mapping[bytes, np.ndarray]) -> None:
        """Keep features, all of them or none.

        Parameters
        ----------
        features : mapping of bytes to ndarray of shape (d,), float32
            Features by key; those of a key that is there are replaced.
        """
        with self._forgiving(), self._writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)",
                (_row(key, vector) for key, vector in features.items()),
            )
            self._evict(connection)

    def clear(self) -> None:
        """Drop everything; a file that is broken or not a database is deleted.

        Raises
        ------
        OSError or sqlite3.OperationalError
            If that is not possible.
        """
        if not self.path.exists():
            return
        try:
            with closing(self._connect()) as connection:
                _has_schema(connection)  # or it is another program's
                for statement in (*SCHEMA, "VACUUM"):
                    connection.execute(statement)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            self.path.unlink()
            self.path.with_name(FILE_NAME + "-journal").unlink(missing_ok=True)
        self._given_up = False

    def _touch(self, keys: list[bytes]) -> None:
        now = time.time()
        with self._forgiving(silently=True), self._writing() as connection:
            connection.executemany(
                "UPDATE features SET used = ? WHERE key = ?", ((now, key) for key in keys)
            )

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Drop a tenth of the rows, longest unused first, until the limit holds."""
        while _used_bytes(connection) > self.size_limit:
            (n_rows,) = connection.execute("SELECT count(*) FROM features").fetchone()
            if n_rows == 0:
                return
            connection.execute(DELETE_UNUSED, (n_rows // 10 + 1,))

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._given_up or not self.path.exists():
            raise _NothingKeptError
        with closing(self._connect()) as connection:
            if not _has_schema(connection):
                raise _NothingKeptError
            connection.execute("BEGIN")  # one lock for all queries
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction; closed before its commit, a connection rolls back."""
        if self._given_up:
            raise _NothingKeptError
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not _has_schema(connection):
                for statement in SCHEMA:
                    connection.execute(statement)
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _forgiving(self, *, silently: bool = False) -> Iterator[None]:
        """Turn a failure of the store into one warning, and do not use it any more.

        Times of last use are lost silently, so that a read-only store gives its features.
        """
        try:
            yield
        except _NothingKeptError:
            pass
        except (sqlite3.Error, OSError) as error:
            if not silently:
                self._given_up = True
                self._warn(str(error), "features are computed without it")

    def _warn(self, reason: str, consequence: str) -> None:
        warn(
            f"memory={self.folder!r}: {reason}; {consequence}. "
            f"FeatureStore({self.folder!r}).clear() starts {FILE_NAME} again"
        )


class _NothingKeptError(Exception):
    """No store was found."""


def open_store(memory: Any) -> FeatureStore | ProcessStore | None:
    """Return the store that a parameter ``memory`` stands for; of ``None`` that of the process."""
    if memory is None:
        return process_store
    if isinstance(memory, FeatureStore):
        return FeatureStore(memory.folder, size_limit=memory.size_limit, timeout=memory.timeout)
    is_path = isinstance(memory, (str, os.PathLike))  # check_memory would create a folder
    folder = memory if is_path else check_memory(memory).location
    return None if folder is None else FeatureStore(folder)


def _has_schema(connection: sqlite3.Connection) -> bool:
    """Check that a database is ours; False: it is empty or older, so it may be started again."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID and schema <= SCHEMA_VERSION:
        return schema == SCHEMA_VERSION
    if application or connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise sqlite3.DatabaseError(f"{FILE_NAME} is not a store of this version")
    return False


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _row(key: bytes, vector: np.ndarray) -> tuple[bytes, bytes, bytes, float]:
    content = np.ascontiguousarray(vector, dtype="<f4").tobytes()
    return key, content, _checksum(key, content), time.time()


def _is_sound(key: bytes, vector: Any, checksum: Any) -> bool:
    return isinstance(vector, bytes) and _checksum(key, vector) == checksum


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.sha256(key + vector).digest()[:16]
