"""Frozen features kept per image, so that a backbone runs once for each."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_memory

from .._system import FileState, state_of
from .._system import digest_file as _digest_file

FILE_NAME = "sklearn_clce_features.sqlite"
APPLICATION_ID = 0x434C4345  # "CLCE"
SCHEMA_VERSION = 2
SCHEMA = (
    "DROP TABLE IF EXISTS features",  # of an older release, whose keys nobody asks for
    "DROP TABLE IF EXISTS files",
    "CREATE TABLE features (key BLOB PRIMARY KEY, vector BLOB, checksum BLOB, used REAL)",
    "CREATE INDEX features_used ON features (used)",
    "CREATE TABLE files (path BLOB PRIMARY KEY, state TEXT, digest BLOB)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
SELECT_FEATURES = "SELECT vector, checksum, used < ? FROM features WHERE key = ?"
SELECT_FILE = "SELECT digest FROM files WHERE path = ? AND state = ?"

DEFAULT_SIZE_LIMIT = 2 * 1024**3
USED_EVERY_SECONDS = 3600.0  # how exactly the last use of a row is known
SETTLED_NS = 2_000_000_000  # a younger file may change again within its clock's tick


class FeatureStore:
    """Features on disk, one row for each image, in one SQLite database.

    Any number of processes may share the folder. Whatever befalls the file, a feature
    that :meth:`get` returns is one that was put: each row carries a checksum, and each
    write is a transaction. What can't be read or written is warned of once and computed
    again.

    SQLite's rollback journal is used, for its write-ahead log does not work on network
    file systems. A network file system must have working locks.

    Parameters
    ----------
    folder : path
        Where the database is; made when something is first put.
    size_limit : int, default=2 GiB
        Bytes that the database may take, about. What was not used for longest, to the
        hour, makes room.
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
        self.folder = os.fspath(folder)
        self.size_limit = size_limit
        self.timeout = timeout
        self._given_up = False

    def __repr__(self) -> str:
        return f"FeatureStore({self.folder!r}, size_limit={self.size_limit!r})"

    @property
    def path(self) -> Path:
        """File of the database."""
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

    def file_digests(self, paths: Sequence[str | os.PathLike[str]]) -> list[bytes]:
        """Digest the content of files.

        A file is not read again while its path, size, inode and times of modification and
        change stay the same, unless it was modified within two seconds of that call.

        Parameters
        ----------
        paths : sequence of path
            The files.

        Returns
        -------
        list of bytes
            A digest for each.

        Raises
        ------
        OSError
            If a file can't be read.
        """
        settled = time.time_ns() - SETTLED_NS
        states = {os.path.abspath(path): state_of(path) for path in paths}
        known = self._known_files(states)
        fresh = {path: _digest_file(path) for path in states if path not in known}
        self._remember_files(
            (os.fsencode(path), str(states[path]), digest)
            for path, digest in fresh.items()
            if states[path].modified < settled
        )
        digests = known | fresh
        return [digests[os.path.abspath(path)] for path in paths]

    def clear(self) -> None:
        """Drop everything; a file that is no database, or a broken one, is deleted.

        Raises
        ------
        OSError or sqlite3.OperationalError
            If that is not possible.
        """
        if not self.path.exists():
            return
        try:
            with closing(self._connect()) as connection:
                _has_schema(connection)  # or it is another's
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
            (n_files,) = connection.execute("SELECT count(*) FROM files").fetchone()
            if n_rows + n_files == 0:
                return
            for table, order, count in (("features", "used", n_rows), ("files", "rowid", n_files)):
                connection.execute(
                    f"DELETE FROM {table} WHERE rowid IN "
                    f"(SELECT rowid FROM {table} ORDER BY {order} LIMIT ?)",
                    (count // 10 + 1,),
                )

    def _known_files(self, states: Mapping[str, FileState]) -> dict[str, bytes]:
        known: dict[str, bytes] = {}
        with self._forgiving(), self._reading() as connection:
            for path, state in states.items():
                key = os.fsencode(path), str(state)
                row = connection.execute(SELECT_FILE, key).fetchone()
                if row and isinstance(row[0], bytes):
                    known[path] = row[0]
        return known

    def _remember_files(self, rows: Iterable[tuple[bytes, str, bytes]]) -> None:
        rows = list(rows)
        if rows:
            with self._forgiving(silently=True), self._writing() as connection:
                connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
                self._evict(connection)

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
        """Turn a failure of the store into one warning, and ask it no more.

        Notes on what was used are lost silently: a store that can only be read serves as well.
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
        warnings.warn(
            f"memory={self.folder!r}: {reason}; {consequence}. "
            f"FeatureStore({self.folder!r}).clear() starts {FILE_NAME} anew",
            UserWarning,
            stacklevel=2,
        )


class _NothingKeptError(Exception):
    """There is no store to ask."""


def open_store(memory: Any) -> FeatureStore | None:
    """Return the store that a parameter ``memory`` stands for."""
    if isinstance(memory, FeatureStore):
        return FeatureStore(memory.folder, size_limit=memory.size_limit, timeout=memory.timeout)
    is_path = isinstance(memory, (str, os.PathLike))  # of which check_memory would make a folder
    folder = memory if is_path else check_memory(memory).location
    return None if folder is None else FeatureStore(folder)


def _has_schema(connection: sqlite3.Connection) -> bool:
    """Tell our database from an empty or older one; refuse any other."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID and schema <= SCHEMA_VERSION:
        return schema == SCHEMA_VERSION
    if application or connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise sqlite3.DatabaseError(f"{FILE_NAME} is not a store of this release")
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
