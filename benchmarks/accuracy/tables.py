"""Tables of the page of results, in reStructuredText."""

import csv
import io
import math
import textwrap

from .comparison import (
    METHOD_NAMES,
    USUAL,
    at_budget,
    budgets_of,
    difference,
    differences,
    mean_over_data,
)
from .groups import TUNING_DATA
from .pictures import COLLECTIONS

METHODS = ("ce", "supcon", "clce")
COMPARED = (("supcon", "ce"), ("clce", "ce"), ("clce", "supcon"))
POINTS = 100  # shares are shown in per cent
PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
METRICS = {
    "log_loss": ("log-loss", 1, 3),
    "calibration_error": ("calibration error", POINTS, 1),
    "recall_at_1": ("recall@1", POINTS, 1),
    "class_mean_accuracy": ("class-mean accuracy", POINTS, 1),
}


def table(title, header, rows):
    """Write a table.

    Parameters
    ----------
    title : str
        Above it.
    header : list of str
        Names of the columns.
    rows : list of list of str
        Cells.

    Returns
    -------
    str
        A directive.
    """
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    content = textwrap.indent(file.getvalue(), "   ")
    return f".. csv-table:: {title}\n   :header-rows: 1\n\n{content}"


def number(estimate, scale=POINTS, decimals=1, *, signed=False):
    """Write an estimate.

    Parameters
    ----------
    estimate : Estimate or None
        None gives an empty cell.
    scale : float, default=100
        Factor.
    decimals : int, default=1
        Digits behind the point.
    signed : bool, default=False
        Write a plus sign.

    Returns
    -------
    str
        Mean and half width of the interval, such as "+1.2 ± 0.4", on one line.
    """
    if estimate is None:
        return ""
    mean = f"{estimate.mean * scale:{'+' if signed else ''}.{decimals}f}"
    if math.isnan(estimate.half):
        return mean
    return f"{mean}{PLUS_MINUS}{estimate.half * scale:.{decimals}f}"


def change(estimate, scale=POINTS, decimals=1):
    """Write a difference; one whose interval leaves 0 out is bold."""
    text = number(estimate, scale, decimals, signed=True)
    clear = estimate is not None and estimate.low * estimate.high > 0
    return f"**{text}**" if clear else text


def case_cells(case):
    """Describe a case in four cells: pictures, shots, backbone, batch size."""
    shots = "all" if case.shots is None else str(case.shots)
    trained = {"all": "", "head": ", frozen"}.get(case.trainable, f", last {case.trainable}")
    return [
        f"{COLLECTIONS[case.data].title}, {case.n_classes} classes",
        shots,
        f"{case.backbone}, {case.image_size} px{trained}",
        "" if case.batch_size is None else str(case.batch_size),
    ]


def short_name(case):
    """Name a case in a sentence."""
    pictures, shots, backbone, _ = case_cells(case)
    return f"{pictures}, {shots} images of each, {backbone}"


CASE_HEADER = ["pictures", "images a class", "backbone", "batch"]


class CaseColumns:
    """The columns in which cases differ; what they share is said once, above the table.

    Parameters
    ----------
    cases : iterable of Case
        All that the table shows.
    """

    def __init__(self, cases):
        cells = [case_cells(case) for case in cases]
        differ = [len(set(column)) > 1 for column in zip(*cells, strict=True)]
        self.shown = [number for number, one in enumerate(differ) if one or number == 0]
        self.header = [CASE_HEADER[number] for number in self.shown]
        shared = [number for number in range(len(CASE_HEADER)) if number not in self.shown]
        facts = [f"{CASE_HEADER[n]}: {cells[0][n]}" for n in shared if cells[0][n]]
        self.shared = "".join(f"; {fact}" for fact in facts)

    def cells(self, case):
        """Describe a case."""
        cells = case_cells(case)
        return [cells[number] for number in self.shown]

    def title(self, text):
        """Begin the row of a summary."""
        return [text, *[""] * (len(self.shown) - 1)]


def plain_entries(entries, usual=None):
    """Find the methods at the estimator's defaults.

    Parameters
    ----------
    entries : list of Entry
        Of a group.
    usual : dict, default=None
        Settings that all methods of the group have instead of the defaults.

    Returns
    -------
    dict of Case to dict of str to Entry
        By case and method; only cases where cross-entropy was measured.
    """
    usual, found = USUAL | (usual or {}), {}
    for entry in entries:
        if not entry.variant.changes(usual):
            found.setdefault(entry.case, {})[entry.variant.method] = entry
    floors = {case: methods["logistic"] for case, methods in found.items() if "logistic" in methods}
    for case, methods in found.items():
        if case.floor in floors:
            methods["logistic"] = floors[case.floor]
    return {case: methods for case, methods in found.items() if "ce" in methods}


def method_table(plain):
    """Compare the methods at their defaults, case by case and in the mean over data sets.

    Parameters
    ----------
    plain : dict of Case to dict of str to Entry
        See :func:`plain_entries`.

    Returns
    -------
    str
        A table.
    """
    columns_of_case = CaseColumns(plain)
    columns = {pair: differences(plain, *pair) for pair in compared(plain)}
    has_floor = any("logistic" in methods for methods in plain.values())
    header = [*columns_of_case.header, *[METHOD_NAMES["logistic"]] * has_floor, "CE"]
    header += [*map(minus, columns), "seeds"]
    rows = []
    for case, methods in plain.items():
        floor = methods.get("logistic")
        seeds = min(len(methods[one].by_seed) for one in METHODS if one in methods)
        cells = columns_of_case.cells(case)
        cells += [number(floor.mean()) if floor else ""] * has_floor
        cells += [number(methods["ce"].mean())]
        cells += [change(column.get(case)) for column in columns.values()]
        rows.append([*cells, str(seeds)])
    for text, means in mean_rows(list(columns.values())):
        rows.append([*columns_of_case.title(text), *[""] * has_floor, "", *means, ""])
    title = "Accuracy in per cent, and differences in points, with 95 % intervals"
    return table(title + columns_of_case.shared, header, rows)


def compared(plain):
    """List the pairs of methods that were measured."""
    return [pair for pair in COMPARED if differences(plain, *pair)]


def minus(pair):
    """Name the difference of two methods."""
    one, other = pair
    return f"{METHOD_NAMES[one]} minus {METHOD_NAMES[other]}"


def budget_table(plain):
    """Compare the methods with the same epochs and learning rate, budget by budget.

    Parameters
    ----------
    plain : dict of Case to dict of str to Entry
        See :func:`plain_entries`.

    Returns
    -------
    str
        A table; empty where no case has several budgets.
    """
    varied = {case: methods for case, methods in plain.items() if len(methods["ce"].by_budget) > 1}
    if not varied:
        return ""
    columns_of_case, pairs, rows = CaseColumns(varied), compared(varied), []
    for case, methods in varied.items():
        for budget in budgets_of({case: methods}):
            same = at_budget({case: methods}, budget)
            found = [differences(same, *pair).get(case) for pair in pairs]
            accuracy = number(same[case]["ce"].mean())
            cells = [*columns_of_case.cells(case), budget_cell(budget), accuracy]
            rows.append([*cells, *map(change, found)])
    header = [*columns_of_case.header, "epochs, rate", "CE", *map(minus, pairs)]
    title = "All methods with the same epochs and learning rate: accuracy in per cent, and points"
    return table(title + columns_of_case.shared, header, rows)


def batch_table(plain):
    """Show what each batch size gives and costs, in the mean over data sets.

    Parameters
    ----------
    plain : dict of Case to dict of str to Entry
        See :func:`plain_entries`.

    Returns
    -------
    str
        A table; empty where there is one batch size.
    """
    by_size = by_batch_size(plain)
    if len(by_size) < 2:
        return ""
    pairs, rows = compared(plain), []
    for size, of_size in by_size.items():
        found = [differences(of_size, *pair) for pair in pairs]
        memory = [mean_cost(of_size, method, "fit_memory") for method in METHODS]
        means = [change(mean_over_data(one)) if one else "" for one in found]
        rows.append([str(size), *means, *memory])
    header = ["batch", *map(minus, pairs), *(f"{METHOD_NAMES[one]}, MiB" for one in METHODS)]
    return table("Points and memory by batch size, in the mean over data sets", header, rows)


def by_batch_size(plain):
    """Divide cases by batch size, the smallest first."""
    return {
        size: {case: methods for case, methods in plain.items() if case.batch_size == size}
        for size in sorted({case.batch_size for case in plain})
    }


def mean_cost(plain, method, name):
    """Write what a method costs in the mean over cases."""
    costs = [methods[method].cost(name) for methods in plain.values() if method in methods]
    costs = [cost for cost in costs if cost is not None]
    return f"{sum(costs) / len(costs):.0f}" if costs else ""


def budget_cell(budget):
    """Write epochs and learning rate."""
    return ", ".join(f"{value}" for value in budget if value is not None)


def mean_rows(columns):
    """Write the means of columns of differences over data sets.

    Parameters
    ----------
    columns : list of dict of Case to Estimate
        Differences, column by column.

    Returns
    -------
    list of (str, list of str)
        Title and cells; one over all data sets, another over those that no default was
        chosen on, where there are both kinds.
    """
    others = [without_a_say(column) for column in columns]
    rows = [("**mean over data sets**", columns)]
    if any(others) and others != columns:
        rows.append(("**mean over those without a say in the defaults**", others))
    return [
        (title, [change(mean_over_data(column)) if column else "" for column in of_row])
        for title, of_row in rows
    ]


def without_a_say(estimates):
    """Keep the data sets that no default was chosen on."""
    return {case: one for case, one in estimates.items() if case.data not in TUNING_DATA}


def metric_table(plain):
    """Show calibration and embedding beside accuracy.

    Parameters
    ----------
    plain : dict of Case to dict of str to Entry
        See :func:`plain_entries`.

    Returns
    -------
    str
        A table; empty where nothing but accuracy was measured.
    """
    shown = [
        name
        for name in METRICS
        if any(entry.values(name) for methods in plain.values() for entry in methods.values())
    ]
    columns_of_case = CaseColumns(plain)
    rows = []
    for case, methods in plain.items():
        for method in METHODS:
            if method in methods:
                cells = [metric_cell(methods, method, name) for name in shown]
                rows.append([*columns_of_case.cells(case), METHOD_NAMES[method], *cells])
    measured = [method for method in METHODS[1:] if differences(plain, method, "ce")]
    for method in measured:
        cells = [metric_mean(plain, method, name) for name in shown]
        name = f"{METHOD_NAMES[method]} minus CE"
        rows.append([*columns_of_case.title("**mean over data sets**"), name, *cells])
    header = [*columns_of_case.header, "method", *(METRICS[name][0] for name in shown)]
    title = "Calibration and embedding; in brackets the difference to CE"
    return table(title + columns_of_case.shared, header, rows) if shown else ""


def metric_cell(methods, method, name):
    """Write a metric of one method, with its difference to cross-entropy."""
    _, scale, decimals = METRICS[name]
    entry, reference = methods[method], methods["ce"]
    if not entry.values(name):
        return ""
    text = number(entry.mean(name), scale, decimals)
    if method == "ce":
        return text
    return f"{text} ({change(difference(entry, reference, name), scale, decimals)})"


def metric_mean(plain, method, name):
    """Write the difference of a metric to cross-entropy in the mean over data sets."""
    _, scale, decimals = METRICS[name]
    found = differences(plain, method, "ce", name)
    return change(mean_over_data(found), scale, decimals) if found else ""


def variant_table(entries, plain):
    """Show every variant of a group.

    Parameters
    ----------
    entries : list of Entry
        Of a group.
    plain : dict of Case to dict of str to Entry
        See :func:`plain_entries`; each variant is compared with its cross-entropy.

    Returns
    -------
    str
        A table.
    """
    cases = list(dict.fromkeys(entry.case for entry in entries))
    columns_of_case = CaseColumns(cases)
    header = [*columns_of_case.header, "variant", "epochs, rate", "accuracy", "minus CE"]
    header += ["seconds", "MiB"]
    rows = [
        columns_of_case.cells(case) + variant_cells(entry, plain.get(case, {}).get("ce"))
        for case in cases
        for entry in entries
        if entry.case == case
    ]
    title = "All variants, each at its best epochs and rate"
    return table(title + columns_of_case.shared, header, rows)


def variant_cells(entry, reference):
    """Describe a variant, and what came out of it."""
    less_ce = difference(entry, reference) if reference not in (None, entry) else None
    cost = [entry.cost("fit_seconds"), entry.cost("fit_memory")]
    return [
        entry.variant.label,
        budget_cell(entry.budget),
        number(entry.mean()),
        change(less_ce),
        *("" if value is None else f"{value:.0f}" for value in cost),
    ]
