"""What the page of results says in words, with every number from the lines."""

from .comparison import difference, differences, mean_over_data
from .configuration import DEFAULT_METHOD
from .pictures import COLLECTIONS
from .tables import number, short_name

PAIR = (DEFAULT_METHOD, "ce")


def findings(plain_of):
    """Say in words what the differences to cross-entropy depend on.

    Parameters
    ----------
    plain_of : dict of str to dict
        By name of the group, see :func:`~.tables.plain_entries`.

    Returns
    -------
    str
        A list, with every number from the lines; empty where nothing was measured.
    """
    items = [
        lead_by_group(plain_of),
        lead_by_batch_size(plain_of.get("batch_size", {})),
        lead_by_budget(plain_of.get("transfer", {})),
        lead_by_choice(
            plain_of, "two_views", "with one view of each image", "with two views, for CE too"
        ),
        lead_by_choice(
            plain_of,
            "random_start",
            "from a classifier of zeros",
            "from one that starts at random",
        ),
    ]
    return "".join(f"- {item}\n" for item in items if item)


def lead_by_group(plain_of):
    """Compare CLCE with cross-entropy where the estimator trains on the classes that it names."""
    names = {
        "few_labels": "fine-tuned on few labels",
        "transfer": "fine-tuned on all labels",
        "frozen": "on a frozen backbone",
    }
    found = {name: differences(plain_of.get(name, {}), *PAIR) for name in names}
    found = {names[name]: cases for name, cases in found.items() if cases}
    if not found:
        return ""
    leads = [f"{points(mean_over_data(cases))} {name}" for name, cases in found.items()]
    cases = [case for of_group in found.values() for case in of_group.values()]
    better, worse = sum(one.low > 0 for one in cases), sum(one.high < 0 for one in cases)
    return (
        f"CLCE less CE, in the mean over data sets: {', '.join(leads)}. Of these {len(cases)} "
        f"cases {better} are clearly better and {worse} clearly worse."
    )


def lead_by_batch_size(plain):
    """Compare the smallest and the largest batches."""
    leads = {}
    for size in sorted({case.batch_size for case in plain}):
        of_size = {case: methods for case, methods in plain.items() if case.batch_size == size}
        if cases := differences(of_size, *PAIR):
            leads[size] = mean_over_data(cases)
    if len(leads) < 2:
        return ""
    told = [f"{points(lead)} at {size}" for size, lead in leads.items()]
    return (
        f"With the same epochs, CLCE less CE by batch size: {', '.join(told)}. The larger the "
        "batch, the fewer steps the same epochs make."
    )


def lead_by_budget(plain):
    """Show the case whose difference changes most with the budget."""
    spans = {}
    for case, methods in plain.items():
        if set(PAIR) <= methods.keys():
            common = methods["ce"].by_budget.keys() & methods[DEFAULT_METHOD].by_budget.keys()
            spans[case] = {
                budget: difference(*(methods[one].at(budget) for one in PAIR))
                for budget in sorted(common)
            }
    spans = {case: of_case for case, of_case in spans.items() if len(of_case) > 1}
    if not spans:
        return ""
    case, leads = max(spans.items(), key=lambda pair: span(pair[1]))
    told = [f"{points(lead)} after {e} epochs at {rate}" for (e, rate), lead in leads.items()]
    return f"Most depends on the budget for {short_name(case)}: {', '.join(told)}."


def span(leads):
    """Return how far the means of differences lie apart."""
    means = [lead.mean for lead in leads.values()]
    return max(means) - min(means)


def lead_by_choice(plain_of, name, usual, other):
    """Compare what all methods have in a group with what they have in that of few labels."""
    changed, usually = plain_of.get(name, {}), plain_of.get("few_labels", {})
    budgets = {case: methods["ce"].budget for case, methods in changed.items() if case in usually}
    if not budgets:
        return ""

    def lead(plain):
        same = {case: [plain[case][one].at(budgets[case]) for one in PAIR] for case in budgets}
        return points(mean_over_data({case: difference(*pair) for case, pair in same.items()}))

    data = ", ".join(COLLECTIONS[name].title for name in dict.fromkeys(c.data for c in budgets))
    told = f"{lead(usually)} {usual}, {lead(changed)} {other}"
    return f"CLCE less CE with the same budget on {data}: {told}."


def points(estimate):
    """Write a difference in points with its interval."""
    return number(estimate, signed=True)
