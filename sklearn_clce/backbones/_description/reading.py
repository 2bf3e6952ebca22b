"""What the bytecode of a function reads, and what it only writes to."""

from __future__ import annotations

import dis
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any

GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
CLOSURES = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
STORES = ("STORE_GLOBAL", "STORE_NAME", "STORE_DEREF", "STORE_ATTR")
WITHOUT_EFFECT = ("PUSH_NULL", "EXTENDED_ARG", "CACHE")

ADDS = ("append", "add", "extend", "update")  # methods that give nothing back
LOGS = (int, float, list, set, dict, deque, Counter)
WRITING_MODES = {"w", "a", "x", "wb", "ab", "xb", "wt", "at", "xt"}


@dataclass(frozen=True)
class Reads:
    """What code refers to; an attribute's name begins with a dot."""

    globals: list[tuple[str, ...]]  # such as ("np", "linalg", "norm")
    imports: list[tuple[str, int]]  # name and level
    names: frozenset[str]  # that it reads
    written: frozenset[str]  # that it only counts up, or adds to
    strings: frozenset[str]

    def is_log(self, name: str, value: Any) -> bool:
        """Tell a counter or list that the code does not read."""
        return type(value) in LOGS and name in self.written


@lru_cache(4096)
def reads_of(code: CodeType) -> Reads:
    """Find what a function reads, with the functions in it."""
    chains: list[list[str]] = []
    imports: list[tuple[str, int]] = []
    loads: Counter[str] = Counter()
    writes: Counter[str] = Counter()
    strings: set[str] = set()
    for part in _with_inner_functions(code):
        chain: list[str] | None = None  # the dotted name that the last instruction was part of
        before: list[dis.Instruction | None] = [None, None]
        last_load = ""
        for step in dis.get_instructions(part):
            kind, name = step.opname, step.argval
            if kind in WITHOUT_EFFECT:
                continue
            load = ""
            if kind in GLOBALS or kind in CLOSURES:
                chain, load = [name], name
                if kind in GLOBALS:
                    chains.append(chain)
            elif kind in ATTRIBUTES:
                if last_load and name in ADDS:
                    writes[last_load] += 1
                load = f".{name}"
                if chain is not None:
                    chain.append(name)
            else:
                chain = None
            if load:
                loads[load] += 1
            elif kind in STORES and any(map(_is_in_place, before)):
                writes[f".{name}" if kind == "STORE_ATTR" else name] += 1
            elif kind == "IMPORT_NAME":
                imports.append((name, before[0].argval if before[0] else 0))
            elif kind == "LOAD_CONST" and isinstance(name, str):
                strings.add(name)
            before, last_load = [before[1], step], load
    written = {name for name, count in loads.items() if writes[name] == count}
    return Reads(
        globals=list(dict.fromkeys(map(tuple, chains))),
        imports=list(dict.fromkeys(imports)),
        names=frozenset(loads.keys() - written),
        written=frozenset(written),
        strings=frozenset(strings),
    )


def _with_inner_functions(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner_functions(constant)


def _is_in_place(step: dis.Instruction | None) -> bool:
    """Tell ``+=`` and the like from an operation that makes something new."""
    return step is not None and step.opname == "BINARY_OP" and step.argrepr.endswith("=")
