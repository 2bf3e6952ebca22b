"""Frozen features kept in memory for the life of the process: folds and candidates share them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from .._system import ProcessLock

PROCESS_BYTES = 256 * 1024**2  # 38,000 images of the bundled backbone with its lower blocks


class ProcessStore:
    """Features by key, of which those that were not used for longest make room.

    Threads share it, a forked child inherits it, and it is not part of a pickle.
    """

    def __init__(self, max_bytes: int = PROCESS_BYTES) -> None:
        self.max_bytes = max_bytes
        self._vectors: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._n_bytes = 0
        self._lock = ProcessLock(forget=self._count)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return the features (d,) of those keys that are kept, read-only."""
        with self._lock:
            kept = {key: self._vectors[key] for key in keys if key in self._vectors}
            for key in kept:
                self._vectors.move_to_end(key)
        return kept

    def put(self, features: Mapping[bytes, np.ndarray]) -> None:
        """Keep copies of features by key; those of a key that is there are replaced."""
        copies = {key: vector.copy() for key, vector in features.items()}
        for vector in copies.values():
            vector.flags.writeable = False
        with self._lock:
            for key, vector in copies.items():
                self._drop(key)
                self._vectors[key] = vector
                self._n_bytes += vector.nbytes
            while self._n_bytes > self.max_bytes:
                self._drop(next(iter(self._vectors)))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._vectors.clear()
            self._n_bytes = 0

    def _drop(self, key: bytes) -> None:
        if (vector := self._vectors.pop(key, None)) is not None:
            self._n_bytes -= vector.nbytes

    def _count(self) -> None:
        """Count again in a forked child: another thread may have been about to."""
        self._n_bytes = sum(vector.nbytes for vector in self._vectors.values())

    def __getstate__(self) -> dict[str, int]:
        """Keep nothing but the limit, where a file format does not ask :meth:`__reduce__`."""
        return {"max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, int]) -> None:
        """Begin empty."""
        ProcessStore.__init__(self, **state)

    def __reduce__(self) -> str:
        """Stand for the store of the process that reads the pickle."""
        return "process_store"


process_store = ProcessStore()
