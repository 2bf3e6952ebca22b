"""What the page of results says in words, with every number from the lines."""

from .comparison import at_budget, budgets_of, differences, mean_over_data
from .configuration import DEFAULT_METHOD
from .pictures import COLLECTIONS
from .tables import POINTS, by_batch_size, number, short_name

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
    few = plain_of.get("few_labels", {})
    items = [
        lead_by_budget("with 20 images a class", few),
        lead_by_batch_size(plain_of.get("batch_size", {})),
        lead_by_budget("in batches of 256", plain_of.get("longer", {})),
        widest_by_budget(plain_of.get("transfer", {})),
        lead_by_choice(
            few,
            "with one view of each image",
            plain_of.get("two_views", {}),
            "with two views, for CE too",
        ),
        lead_by_choice(
            few,
            "from a classifier of zeros",
            plain_of.get("random_start", {}),
            "from one that starts at random",
        ),
    ]
    return "".join(f"- {item}\n" for item in items if item)


def verdict(plain_of):
    """Say in three sentences what the criterion gives, where that matters most, and of what it is.

    Parameters
    ----------
    plain_of : dict of str to dict
        By name of the group, see :func:`~.tables.plain_entries`.

    Returns
    -------
    str
        A list of at most three sentences, with every number from the lines.
    """
    items = [lead_by_group(plain_of), extremes(plain_of), hardness(plain_of)]
    return "".join(f"- {item}\n" for item in items if item)


def extremes(plain_of):
    """Name the widest lead, what more epochs leave of it, and the lead on classes that are new."""
    told = []
    of_size = by_batch_size(plain_of.get("batch_size", {}))
    if sizes := [size for size, plain in of_size.items() if leads(plain)]:
        lead = points(mean_over_data(leads(of_size[max(sizes)])))
        told.append(f"{lead} in batches of {max(sizes)} that leave few steps")
    longer = plain_of.get("longer", {})
    if budgets := [budget for budget in budgets_of(longer) if leads(at_budget(longer, budget))]:
        lead = points(mean_over_data(leads(at_budget(longer, max(budgets)))))
        told.append(f"{lead} in such batches {after(max(budgets))}")
    if new := leads(plain_of.get("few_shot", {})):
        told.append(
            f"{points(mean_over_data(new))} for new classes from a backbone that was fine-tuned on "
            "others"
        )
    return f"Where it matters most: {'; '.join(told)}." if told else ""


def hardness(plain_of):
    """Say whether hard-negative weighting makes a difference."""
    found = {
        name: mean_over_data(cases)
        for group, name in (("few_labels", "few labels"), ("transfer", "all labels"))
        if (cases := differences(plain_of.get(group, {}), "clce", "supcon"))
    }
    if not found:
        return ""
    clear = any(one.low * one.high > 0 for one in found.values())
    told = ", ".join(f"{points(one)} with {name}" for name, one in found.items())
    return (
        "Hard-negative weighting, which CLCE has beyond the supervised contrastive loss (CLCE "
        f"minus CE + SupCon): {told}; {'a' if clear else 'no'} clear difference."
    )


def lead_by_group(plain_of):
    """Compare CLCE with cross-entropy where the estimator trains on the classes that it names."""
    names = {
        "few_labels": "fine-tuned on few labels",
        "transfer": "fine-tuned on all labels",
        "frozen": "on a frozen backbone",
    }
    found = {name: leads(plain_of.get(name, {})) for name in names}
    found = {names[name]: cases for name, cases in found.items() if cases}
    if not found:
        return ""
    told = [f"{points(mean_over_data(cases))} {name}" for name, cases in found.items()]
    cases = [case for of_group in found.values() for case in of_group.values()]
    better, worse = sum(one.low > 0 for one in cases), sum(one.high < 0 for one in cases)
    return (
        f"CLCE minus CE, in the mean over data sets: {', '.join(told)}. Of these {len(cases)} "
        f"cases {better} are clearly better and {worse} clearly worse."
    )


def lead_by_batch_size(plain):
    """Compare batch sizes."""
    by_size = {f"at {size}": of_size for size, of_size in by_batch_size(plain).items()}
    return lead_by("CLCE minus CE with the same epochs, by batch size", by_size)


def lead_by_budget(where, plain):
    """Compare budgets, on the cases that were measured with all of them."""
    by_budget = {after(budget): at_budget(plain, budget) for budget in budgets_of(plain)}
    everywhere = [case for case in plain if all(case in leads(of) for of in by_budget.values())]
    same = {
        name: {case: of_budget[case] for case in everywhere}
        for name, of_budget in by_budget.items()
    }
    return lead_by(f"CLCE minus CE {where}, by budget", same)


def lead_by(what, plain_by):
    """Write the mean differences, and the accuracies of cross-entropy that they are to."""
    plain_by = {name: plain for name, plain in plain_by.items() if leads(plain)}
    if len(plain_by) < 2:
        return ""
    told = [f"{points(mean_over_data(leads(plain)))} {name}" for name, plain in plain_by.items()]
    levels = [
        mean_over_data({case: methods["ce"].mean() for case, methods in plain.items()}).mean
        for plain in plain_by.values()
    ]
    levels = ", ".join(f"{level * POINTS:.1f}" for level in levels)
    return f"{what}: {', '.join(told)}. CE itself is at {levels} % there."


def widest_by_budget(plain):
    """Show the case whose difference changes most with the budget."""
    by_case = {}
    for budget in budgets_of(plain):
        for case, lead in leads(at_budget(plain, budget)).items():
            by_case.setdefault(case, {})[budget] = lead
    if all(len(by_budget) < 2 for by_budget in by_case.values()):
        return ""
    case, by_budget = max(by_case.items(), key=lambda pair: span(pair[1]))
    told = [f"{points(lead)} {after(budget)}" for budget, lead in by_budget.items()]
    return f"Most depends on the budget for {short_name(case)}: {', '.join(told)}."


def span(by_budget):
    """Return how far the means of differences lie apart."""
    means = [lead.mean for lead in by_budget.values()]
    return max(means) - min(means)


def lead_by_choice(usually, usual, changed, other):
    """Compare what all methods have by default with what all of them have instead."""
    for budget in budgets_of(changed):
        found = [leads(at_budget(plain, budget)) for plain in (usually, changed)]
        both = [case for case in found[0] if case in found[1]]
        if both:
            data = ", ".join(dict.fromkeys(COLLECTIONS[case.data].title for case in both))
            told = [points(mean_over_data({case: one[case] for case in both})) for one in found]
            return f"CLCE minus CE {after(budget)} on {data}: {told[0]} {usual}, {told[1]} {other}."
    return ""


def leads(plain):
    """Estimate the differences of CLCE to cross-entropy."""
    return differences(plain, *PAIR)


def after(budget):
    """Write epochs and learning rate in a sentence."""
    epochs, rate = budget
    return f"after {epochs} epochs at {rate}"


def points(estimate):
    """Write a difference in points with its interval."""
    return number(estimate, signed=True)
