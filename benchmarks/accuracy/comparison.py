"""From lines of results to comparisons that are paired by seed."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from .configuration import DEFAULTS, OF_TRAINING, Configuration

CONFIDENCE = 0.95
FEWEST = 3  # values that an interval takes
METHOD_NAMES = {
    "ce": "CE",
    "supcon": "CE + SupCon",
    "clce": "CLCE",
    "logistic": "logistic regression",
}
SETTING_NAMES = {
    "projection_dim": "projection",
    "n_views": "views",
    "classifier": "classifier starts at",
}
OF_CRITERION = ("weight", "temperature", "hardness")
WITHOUT_MEANING = {
    "ce": OF_CRITERION,
    "supcon": ("hardness",),
    "clce": (),
    "logistic": (*OF_TRAINING, "classifier"),
}
OF_VARIANT = (*OF_CRITERION, "projection_dim", "n_views", "sampler", "classifier")
USUAL = DEFAULTS | {"classifier": "zero"}


@dataclass(frozen=True)
class Estimate:
    """A mean with the half width of its 95 % interval, after Student's t.

    Parameters
    ----------
    mean : float
        The mean.
    half : float
        Half the width of its interval; NaN where there are fewer than three values.
    n : int
        Number of values.
    """

    mean: float
    half: float
    n: int

    @property
    def low(self):
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self):
        """Upper end of the interval."""
        return self.mean + self.half


def estimate_mean(values):
    """Estimate a mean.

    Parameters
    ----------
    values : sequence of float
        Independent values, such as those of seeds.

    Returns
    -------
    Estimate
        Mean and interval. The spread of two values says next to nothing, so that they
        have none.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < FEWEST:
        return Estimate(float(values.mean()), float("nan"), n)
    half = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(n)
    return Estimate(float(values.mean()), float(half), n)


class Case(NamedTuple):
    """What methods are compared on."""

    task: str
    data: str
    n_classes: int
    shots: int | None
    backbone: str
    image_size: int
    trainable: str | int
    batch_size: int | None

    @property
    def floor(self):
        """The same pictures and backbone for logistic regression, which has no batches."""
        return self._replace(trainable="head", batch_size=None)


class Variant(NamedTuple):
    """Method and criterion, without the budget."""

    method: str
    weight: float | None
    temperature: float | None
    hardness: float | None
    projection_dim: int | str | None
    n_views: int | None
    sampler: str | None
    classifier: str

    def changes(self, usual=USUAL):
        """Return the settings that differ from the usual ones, of those that the method has."""
        without = WITHOUT_MEANING[self.method]
        settings = {name: getattr(self, name) for name in OF_VARIANT if name not in without}
        return {name: value for name, value in settings.items() if value != usual[name]}

    @property
    def label(self):
        """Name of the method, and what is not the estimator's default."""
        changes = self.changes().items()
        changed = [f"{SETTING_NAMES.get(name, name)} {value}" for name, value in changes]
        return ", ".join([METHOD_NAMES[self.method], *changed])


@dataclass(frozen=True)
class Result:
    """What a run measured.

    Parameters
    ----------
    configuration : Configuration
        The run.
    metrics : dict of str to float
        By name.
    line : dict
        All that was written.
    """

    configuration: Configuration
    metrics: dict
    line: dict


@dataclass(frozen=True)
class Entry:
    """A variant on a case, at its best budget.

    Parameters
    ----------
    case : Case
        Pictures, backbone and batches.
    variant : Variant
        Method and criterion.
    budget : tuple of (int, float)
        Epochs and learning rate.
    by_seed : dict of int to Result
        The runs.
    by_budget : dict of tuple to dict of int to Result
        The runs of all budgets.
    """

    case: Case
    variant: Variant
    budget: tuple
    by_seed: dict
    by_budget: dict

    def at(self, budget):
        """Return the same variant at another budget."""
        return replace(self, budget=budget, by_seed=self.by_budget[budget])

    def values(self, metric="accuracy"):
        """Return a metric by seed, where it was measured."""
        results = self.by_seed.items()
        return {seed: one.metrics[metric] for seed, one in results if metric in one.metrics}

    def mean(self, metric="accuracy"):
        """Estimate the mean of a metric over seeds."""
        return estimate_mean(list(self.values(metric).values()))

    def cost(self, name):
        """Return the mean of what fitting took, such as ``fit_memory``; None if unknown."""
        costs = [one.line[name] for one in self.by_seed.values() if name in one.line]
        return float(np.mean(costs)) if costs else None


def results_of(configurations, done):
    """Collect the results of configurations.

    Parameters
    ----------
    configurations : iterable of Configuration
        The runs.
    done : dict of str to dict
        Finished lines by key.

    Returns
    -------
    list of Result
        Of those that are finished. A run that was scored with several shots gives a
        result for each.
    """
    results = []
    for one in configurations:
        if one.key in done:
            line = done[one.key]
            results += [Result(c, metrics, line) for c, metrics in by_shots(one, line["metrics"])]
    return results


def by_shots(configuration, metrics):
    """Take metrics such as ``accuracy_5_shot`` apart.

    Parameters
    ----------
    configuration : Configuration
        The run.
    metrics : dict of str to float
        What it measured.

    Returns
    -------
    list of (Configuration, dict)
        One for each number of shots; the arguments where there is none.
    """
    if configuration.task != "base":
        return [(configuration, metrics)]
    parts = {}
    for name, value in metrics.items():
        metric, shots, _ = name.rsplit("_", 2)
        parts.setdefault(int(shots), {})[metric] = value
    return [(replace(configuration, shots=shots), part) for shots, part in sorted(parts.items())]


def entries_of(results):
    """Put runs together by case and variant, each at its best budget.

    The best budget is the one with the highest mean accuracy among those that most
    seeds are finished of. It is chosen for every method in the same way, on the test
    images.

    Parameters
    ----------
    results : list of Result
        Runs.

    Returns
    -------
    list of Entry
        In the order of the runs.
    """
    table = {}
    for result in results:
        run = result.configuration
        place = tuple(getattr(run, name) for name in Case._fields)
        variant = Variant(run.method, *(getattr(run, name) for name in OF_VARIANT))
        budgets = table.setdefault((Case(*place), variant), {})
        budgets.setdefault((run.max_epochs, run.learning_rate), {})[run.seed] = result
    return [
        Entry(case, variant, *best_budget(budgets), budgets)
        for (case, variant), budgets in table.items()
    ]


def best_budget(budgets):
    """Choose epochs and learning rate.

    Parameters
    ----------
    budgets : dict of tuple to dict
        Runs by seed, by budget.

    Returns
    -------
    budget : tuple
        The best.
    by_seed : dict of int to Result
        Its runs.
    """

    def merit(item):
        accuracies = [result.metrics["accuracy"] for result in item[1].values()]
        return len(accuracies), np.mean(accuracies)

    return max(budgets.items(), key=merit)


def difference(entry, reference, metric="accuracy"):
    """Estimate the mean difference of two entries, paired by seed.

    Parameters
    ----------
    entry, reference : Entry
        What is compared.
    metric : str, default="accuracy"
        Which metric.

    Returns
    -------
    Estimate or None
        Of ``entry`` less ``reference``; None without a common seed.
    """
    ours, theirs = entry.values(metric), reference.values(metric)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    return estimate_mean([ours[seed] - theirs[seed] for seed in common])


def differences(plain, one, other, metric="accuracy"):
    """Compare two methods on every case that both were measured on.

    Parameters
    ----------
    plain : dict of Case to dict of str to Entry
        See :func:`~.tables.plain_entries`.
    one, other : str
        The methods.
    metric : str, default="accuracy"
        Which metric.

    Returns
    -------
    dict of Case to Estimate
        Of ``one`` less ``other``.
    """
    found = {
        case: difference(methods[one], methods[other], metric)
        for case, methods in plain.items()
        if one in methods and other in methods
    }
    return {case: estimate for case, estimate in found.items() if estimate is not None}


def budgets_of(plain):
    """List epochs and learning rates that cross-entropy was trained with, in order."""
    return sorted({budget for methods in plain.values() for budget in methods["ce"].by_budget})


def at_budget(plain, budget):
    """Take every method at one budget instead of its best.

    Parameters
    ----------
    plain : dict of Case to dict of str to Entry
        See :func:`~.tables.plain_entries`.
    budget : tuple
        Epochs and learning rate.

    Returns
    -------
    dict of Case to dict of str to Entry
        Cases and methods that were measured with it.
    """
    same = {
        case: {name: one.at(budget) for name, one in methods.items() if budget in one.by_budget}
        for case, methods in plain.items()
    }
    return {case: methods for case, methods in same.items() if methods}


def mean_over_data(estimates):
    """Estimate the mean of differences over data sets.

    Parameters
    ----------
    estimates : dict of Case to Estimate
        Differences; several of one data set, such as those of two backbones, are averaged
        first.

    Returns
    -------
    Estimate
        The interval is that over data sets, or that over seeds where it is wider: a few
        data sets may agree by chance better than their seeds allow.
    """
    by_data = {}
    for case, estimate in estimates.items():
        by_data.setdefault(case.data, []).append(estimate)
    over_data = estimate_mean([np.mean([one.mean for one in of]) for of in by_data.values()])
    if math.isnan(over_data.half):
        return over_data
    halves = [np.mean([one.half for one in of]) for of in by_data.values()]
    over_seeds = float(np.linalg.norm(halves) / len(halves))
    return replace(over_data, half=np.fmax(over_data.half, over_seeds))
