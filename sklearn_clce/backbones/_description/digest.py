"""A digest that grows by one thing after the other, each told from what stands beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from .releases import release_of

PLAIN = (
    *(bool, int, float, complex, str, bytes, bytearray, type(None), type(...)),
    *(type(NotImplemented), range, slice, np.dtype),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)

Kinds = Mapping[Any, Callable[["Digest", Any], None]]  # from types to what describes them


class UndescribableError(Exception):
    """A thing has no description, so it is the same as nothing."""


class Digest:
    """A digest of things, and of what they refer to."""

    def __init__(self, kinds: Kinds, add_instance: Callable[[Digest, Any], None]) -> None:
        self.kinds = kinds
        self.add_instance = add_instance
        self.sha256 = hashlib.sha256()
        self.seen: dict[int, tuple[int, object]] = {}
        self.place: list[str] = []

    def hexdigest(self) -> str:
        """Return what has been described."""
        return self.sha256.hexdigest()

    def add(self, value: Any, name: object = "") -> None:
        """Describe a thing, and all that it refers to; the name is for messages."""
        if type(value) in PLAIN:
            self.write(type(value).__qualname__, repr(value))
            return
        if type(value) is tuple:  # may be one object or several equal ones, by chance
            self.add_each("tuple", value)
            return
        if id(value) in self.seen:
            self.write("seen", self.seen[id(value)][0])
            return
        self.seen[id(value)] = len(self.seen), value  # kept, so that no other gets its id
        self.place.append(str(name))
        for kind, add in self.kinds.items():
            if isinstance(value, kind):
                add(self, value)
                break
        else:
            self.add_instance(self, value)
        self.place.pop()

    def write(self, *words: object) -> None:
        """Describe words, each with its length."""
        for word in words:
            if isinstance(word, (bytes, memoryview)):
                content = word
            else:
                content = str(word).encode(errors="surrogatepass")
            self.sha256.update(b"%d:" % len(content))
            self.sha256.update(content)

    def add_each(self, kind: str, values: Iterable[Any]) -> None:
        """Describe the things in a sequence."""
        values = list(values)
        self.write(kind, len(values))
        for index, value in enumerate(values):
            self.add(value, index)

    def add_pairs(self, kind: str, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Describe names and what they stand for."""
        pairs = list(pairs)
        self.write(kind, len(pairs))
        for name, value in pairs:
            self.add(name)
            self.add(value, name)

    def add_by_name(self, value: Any, name: str) -> None:
        """Describe what is not written in Python by its name, in a package of some release."""
        module = getattr(value, "__module__", None)
        if (release := release_of(module)) is None:
            raise self.refusal(f"{name} is not written in Python")
        self.write("named", module, name, release)

    def refusal(self, what: str) -> UndescribableError:
        """Say what has no description, and where it is."""
        place = ".".join(part for part in self.place if part)
        return UndescribableError(f"{what} ({place})" if place else what)


def by_name(members: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Put attributes into an order that is the same in each process."""
    return sorted(members.items(), key=lambda pair: str(pair[0]))
