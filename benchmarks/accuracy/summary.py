"""Goals, and how often which method is better."""

from .comparison import differences, mean_over_data
from .configuration import DEFAULT_METHOD
from .tables import (
    COMPARED,
    METRICS,
    POINTS,
    change,
    minus,
    number,
    short_name,
    table,
    without_a_say,
)

BEST, WORSE = 5.0, 0.3  # points that are asked of the best and the worst case
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
        for one, other in (*COMPARED, ("clce", "logistic")):
            if cases := differences(plain, one, other):
                cells = [
                    summary_cell(differences(plain, one, other, name), name) for name in SCORES
                ]
                rows.append([title, minus((one, other)), str(len(cases)), *cells])
    header = ["", "", "cases", *(name for name, _, _ in SCORES.values())]
    title = (
        "Differences in the mean over data sets; in brackets the number of cases that are "
        "clearly better and clearly worse"
    )
    return table(title, header, rows) if rows else ""


def summary_cell(cases, name):
    """Write the mean difference of a metric, and count the cases that leave no doubt."""
    if not cases:
        return ""
    _, scale, decimals = SCORES[name]
    above = sum(one.low > 0 for one in cases.values())
    below = sum(one.high < 0 for one in cases.values())
    better, worse = (below, above) if name in LOWER_IS_BETTER else (above, below)
    mean = change(mean_over_data(cases), scale, decimals)
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
    cases = differences(plain, DEFAULT_METHOD, "ce")
    if not cases:
        return []
    mean, others = mean_over_data(cases), without_a_say(cases)
    best_case, best = max(cases.items(), key=lambda pair: pair[1].mean)
    worst_case, worst = min(cases.items(), key=lambda pair: pair[1].mean)
    worse = [one for one in cases.values() if one.mean * POINTS < -WORSE and one.high < 0]
    best_name, worst_name = (short_name(case) for case in (best_case, worst_case))
    wanted_mean = f"at least {goal:+g}"
    asked = [
        ("mean over data sets", wanted_mean, mean, mean.mean * POINTS >= goal),
        (f"best case ({best_name})", f"at least {BEST:+g}", best, best.mean * POINTS >= BEST),
        (f"worst case ({worst_name})", f"not clearly below {-WORSE:+g}", worst, not worse),
    ]
    if 0 < len(others) < len(cases):
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
    cases = differences(plain, "clce", "supcon")
    if not cases:
        return []
    mean = mean_over_data(cases)
    clear = mean.low * mean.high > 0
    verdict = ("helps" if mean.mean > 0 else "harms") if clear else "no clear difference"
    what = "hard-negative weighting (CLCE minus CE + SupCon), mean over data sets"
    return [[f"{title}: {what}", "", number(mean, signed=True), verdict]]
