"""What the page of results begins with: goals, and how often which method is better."""

from .comparison import METHOD_NAMES, difference, mean_over_data
from .configuration import DEFAULT_METHOD
from .groups import TUNING_DATA
from .tables import METRICS, POINTS, change, number, short_name, table

BEST, WORSE = 5.0, 0.3  # points that are asked of the best and the worst case
COMPARED = (("clce", "ce"), ("supcon", "ce"), ("clce", "supcon"), ("clce", "logistic"))
SCORES = {"accuracy": ("accuracy", POINTS, 1), **METRICS}
LOWER_IS_BETTER = ("log_loss", "calibration_error")


def summary_table(plain_of_groups):
    """Compare methods group by group, with the cases that leave no doubt counted.

    Parameters
    ----------
    plain_of_groups : dict of str to dict
        By title of the group, see :func:`~.tables.plain_entries`.

    Returns
    -------
    str
        A table; empty where nothing was measured.
    """
    rows = []
    for title, plain in plain_of_groups.items():
        for one, other in COMPARED:
            cases = [m for m in plain.values() if one in m and other in m]
            cells = [summary_cell(plain, one, other, name) for name in SCORES]
            if cells[0]:
                name = f"{METHOD_NAMES[one]} less {METHOD_NAMES[other]}"
                rows.append([title, name, str(len(cases)), *cells])
    header = ["", "", "cases", *(name for name, _, _ in SCORES.values())]
    title = (
        "Differences in the mean over data sets; in brackets the number of cases that are "
        "clearly better and clearly worse"
    )
    return table(title, header, rows) if rows else ""


def summary_cell(plain, one, other, name):
    """Write the mean difference of a metric, and count the cases that leave no doubt."""
    _, scale, decimals = SCORES[name]
    differences = [
        (case.data, difference(methods[one], methods[other], name))
        for case, methods in plain.items()
        if one in methods and other in methods
    ]
    differences = [pair for pair in differences if pair[1] is not None]
    if not differences:
        return ""
    sign = -1 if name in LOWER_IS_BETTER else 1
    better = sum(min(sign * d.low, sign * d.high) > 0 for _, d in differences)
    worse = sum(max(sign * d.low, sign * d.high) < 0 for _, d in differences)
    mean = change(mean_over_data(differences), scale, decimals)
    return f"{mean} ({better} better, {worse} worse)"


def goal_rows(title, goal, plain):
    """Hold the differences of a group against the goals.

    Parameters
    ----------
    title : str
        Of the group.
    goal : float
        Points that the mean over data sets should reach.
    plain : dict of Case to dict of str to Entry
        See :func:`plain_entries`.

    Returns
    -------
    list of list of str
        What was asked, what was measured, and whether that meets it.
    """
    differences = [
        (case, difference(methods[DEFAULT_METHOD], methods["ce"]))
        for case, methods in plain.items()
        if DEFAULT_METHOD in methods
    ]
    differences = [(case, one) for case, one in differences if one is not None]
    if not differences:
        return []
    pairs = [(case.data, one) for case, one in differences]
    mean = mean_over_data(pairs)
    others = [pair for pair in pairs if pair[0] not in TUNING_DATA]
    best_case, best = max(differences, key=lambda pair: pair[1].mean)
    worst_case, worst = min(differences, key=lambda pair: pair[1].mean)
    worse = [one for _, one in differences if one.mean * POINTS < -WORSE and one.high < 0]
    best_name, worst_name = (short_name(case) for case in (best_case, worst_case))
    wanted_mean = f"at least {goal:+g}"
    asked = [
        ("mean over data sets", wanted_mean, mean, mean.mean * POINTS >= goal),
        (f"best case ({best_name})", f"at least {BEST:+g}", best, best.mean * POINTS >= BEST),
        (f"worst case ({worst_name})", f"not clearly below {-WORSE:+g}", worst, not worse),
    ]
    if 0 < len(others) < len(pairs):
        mean = mean_over_data(others)
        what = "mean over those without a say in the defaults"
        asked.insert(1, (what, wanted_mean, mean, mean.mean * POINTS >= goal))
    rows = [
        [f"{title}: {what}", wanted, number(got, signed=True), "met" if is_met else "missed"]
        for what, wanted, got, is_met in asked
    ]
    return rows + hardness_rows(title, plain)


def hardness_rows(title, plain):
    """Say whether hard-negative weighting helped, which has no goal.

    Parameters
    ----------
    title : str
        Of the group.
    plain : dict of Case to dict of str to Entry
        See :func:`plain_entries`.

    Returns
    -------
    list of list of str
        One row, of the mean over data sets; none where it was not measured.
    """
    differences = [
        (case.data, difference(methods["clce"], methods["supcon"]))
        for case, methods in plain.items()
        if {"clce", "supcon"} <= methods.keys()
    ]
    differences = [pair for pair in differences if pair[1] is not None]
    if not differences:
        return []
    mean = mean_over_data(differences)
    clear = mean.low * mean.high > 0
    verdict = ("helps" if mean.mean > 0 else "harms") if clear else "no clear difference"
    what = "hard-negative weighting (CLCE less CE + SupCon), mean over data sets"
    return [[f"{title}: {what}", "", number(mean, signed=True), verdict]]
