"""Tables of several labels an image."""

from .frames import MAP, METHODS, by_set, differences, over_sets
from .groups import ALL_AT_HAND
from .pictures import COLLECTIONS

PAIRS = [("clce", "logistic"), ("clce", "ce"), ("head", "logistic"), ("head", "head_ce")]
CASES = ["data", "shots"]


def multilabel_tables(runs, table, cell):
    """Write who ranks how well, and how far ours are ahead case by case."""
    header = ["", "mean average precision, %", "all labels right, %", "log-loss", "fit, s"]
    leads = ["", *(f"{METHODS[one]} minus {METHODS[other]}" for one, other in PAIRS)]
    title = "Difference in mean average precision, percentage points"
    return [
        table("Means over data sets and numbers of images", header, standing_rows(runs)),
        table(title, leads, lead_rows(runs, cell)),
    ]


def standing_rows(runs):
    """Average each method over the cases that all methods were measured on."""
    shared = runs.groupby([*CASES, "seed"])["method"].transform("nunique")
    runs = runs[shared == runs["method"].nunique()]
    rows = []
    for method, title in METHODS.items():
        part = runs[runs["method"] == method]
        if len(part):
            values = part.groupby(CASES)[[MAP, "accuracy", "log_loss"]].mean().mean()
            precision, accuracy, loss = values
            seconds = part["fit_processor_seconds"].median()
            cells = f"{precision:.1f}", f"{accuracy:.1f}", f"{loss:.3f}", f"{seconds:.3g}"
            rows.append([title, *cells])
    return rows


def lead_rows(runs, cell):
    """Write a row for each set and number of images, and their mean."""
    found = [differences(runs, one, other, MAP) for one, other in PAIRS]
    rows = []
    for (data, shots), _ in runs.groupby(CASES, sort=False):
        cases = [of_case(lead, data, shots) for lead in found]
        if any(case is not None for case in cases):
            rows.append([f"{COLLECTIONS[data].title}, {images(shots)}", *map(cell, cases)])
    return [*rows, ["**mean**", *(cell(over_sets(lead)) for lead in found)]]


def of_case(lead, data, shots):
    """Estimate differences of one set and number of images, over draws; None without one."""
    chosen = lead[
        (lead.index.get_level_values("data") == data)
        & (lead.index.get_level_values("shots") == shots)
    ]
    return by_set(chosen).get(data)


def images(shots):
    """Name a number of training images."""
    return "all images" if shots == ALL_AT_HAND else f"{shots} images"
