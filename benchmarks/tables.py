"""Tables of what was measured, for a terminal and for a page of the documentation."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

MISSING = ""  # a dash would begin a list on a page


class Table(NamedTuple):
    """A title, the names of the columns, and cells."""

    title: str
    header: list[str]
    rows: list[list[str]]


class Goal(NamedTuple):
    """What was aimed at: a value that is to be at most or at least a bound."""

    text: str
    value: float
    bound: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Tell whether it was reached."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def directive(table: Table) -> str:
    """Write a table for Sphinx."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([table.header, *table.rows])
    content = textwrap.indent(file.getvalue(), "   ")
    return f".. csv-table:: {table.title}\n   :header-rows: 1\n\n{content}"


def text(table: Table) -> str:
    """Write a table for a terminal."""
    rows = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    return "\n".join([table.title, *lines])


def goal_table(title: str, goals: Iterable[Goal]) -> Table:
    """Hold what was measured against what was aimed at."""
    rows = [
        [
            goal.text,
            number(goal.value),
            f"at {'most' if goal.at_most else 'least'} {goal.bound:g}",
            "met" if goal.met else "missed",
        ]
        for goal in goals
    ]
    return Table(title, ["what", "measured", "goal", ""], rows)


def literal(message: str) -> str:
    """Write what may hold lines and markup in one line that a page shows as it is."""
    return f"``{' '.join(message.replace('``', '`').split())}``"


def number(value: float | None) -> str:
    """Write a number with three digits, a large one in full."""
    return MISSING if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
