"""The parameters of an estimator in a notebook: those that were set first, the others by group."""

from __future__ import annotations

import html
import inspect
import re
import reprlib
from itertools import chain
from typing import Any

from sklearn.base import BaseEstimator

# The colours of scikit-learn's box are for white pages, and its class "dark" changes a few alone.
STYLE = """<style>
.sk-global.dark:has(.clce-parameters) {
  --sklearn-color-text: #e6e6e6; --sklearn-color-text-muted: #a0a0a0;
  --sklearn-color-unfitted-level-0: #33261a; --sklearn-color-unfitted-level-1: #40301f;
  --sklearn-color-unfitted-level-2: #4d3a24; --sklearn-color-unfitted-level-3: #d98c4a;
  --sklearn-color-fitted-level-0: #17232e; --sklearn-color-fitted-level-1: #1d2f3e;
  --sklearn-color-fitted-level-2: #24405a; --sklearn-color-fitted-level-3: #7fb2e5;
}
.sk-global.dark:has(.clce-parameters) .parameters-table tr,
.sk-global.dark:has(.clce-parameters) .parameters-table tr:hover td {background-color: transparent}
.sk-global.dark:has(.clce-parameters) .parameters-table :is(td, th) {color: #e6e6e6}
.sk-global.dark:has(.clce-parameters) .parameters-table .user-set td {color: #ffb070}
.clce-parameters .parameters-table th {font-weight: bold; padding-top: .6em}
.sk-global:has(.clce-classifier) .features {display: none}
</style>"""
ROW = '<tr class="{kind}"><td class="param">{name}</td><td class="value">{value}</td></tr>'
HEADING = '<tr class="default"><th colspan="2">{}</th></tr>'
TABLE = """<details{opened}><summary>{title}</summary>
<table class="parameters-table"><tbody>{rows}</tbody></table></details>"""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 50


class ParameterTable:
    """A table in HTML, in the place of scikit-learn's."""

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator = estimator

    def _repr_html_inner(self) -> str:
        values = self.estimator.get_params(deep=False)
        changed = [name for name in values if _is_changed(self.estimator, name)]
        rows: list[str] = []
        for group, names in groups_of(type(self.estimator)).items():
            left = [_row(name, values[name], "default") for name in names if name not in changed]
            rows += [HEADING.format(html.escape(group)), *left] if left else []
        kind = "clce-classifier" if hasattr(self.estimator, "predict") else ""
        set_here = [_row(name, values[name], "user-set") for name in changed]
        tables = _table("Parameters that are set", set_here, " open") if set_here else ""
        tables += _table("Parameters at their defaults", rows)
        return f'{STYLE}<div class="estimator-table clce-parameters {kind}">{tables}</div>'


class TableMixin(BaseEstimator):
    """Gives an estimator a table of its parameters by group."""

    def _get_params_html(self, *args: Any, **kwargs: Any) -> ParameterTable:
        return ParameterTable(self)


def groups_of(cls: type) -> dict[str, list[str]]:
    """Return the names of parameters by the headings of the docstring; one group without any."""
    names = list(inspect.signature(cls).parameters)
    section = re.compile(r"^Parameters\n-+\n(.*?)\n\n\S+\n-+\n", re.DOTALL | re.MULTILINE)
    found = section.search(inspect.getdoc(cls) or "")
    groups: dict[str, list[str]] = {}
    heading = "Defaults"
    for line in found[1].splitlines() if found else ():
        if match := re.match(r"(\w+(?:, \w+)*) : ", line):
            groups.setdefault(heading, []).extend(match[1].split(", "))
        elif line and not line.startswith(" "):
            heading = line
    return groups if sorted(chain(*groups.values())) == sorted(names) else {heading: names}


def _is_changed(estimator: BaseEstimator, name: str) -> bool:
    default = inspect.signature(type(estimator)).parameters[name].default
    return repr(getattr(estimator, name)) != repr(default)


def _table(title: str, rows: list[str], opened: str = "") -> str:
    return TABLE.format(title=title, rows="\n".join(rows), opened=opened)


def _row(name: str, value: Any, kind: str) -> str:
    return ROW.format(kind=kind, name=name, value=html.escape(_short.repr(value)))
