"""From lines of results to data frames, and to differences that are paired by draw."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from .groups import GROUPS, MOST_DRAWS
from .results import finished

CONFIDENCE = 0.95
FEWEST = 3  # values that an interval takes
POINTS = 100  # accuracy is shown in per cent
CASE = ["data", "shots", "backbone", "batch_size"]
COSTS = ["fit_seconds", "fit_processor_seconds", "epoch_seconds", "seconds_a_picture", "trainable"]
COLUMNS = [
    "group",
    "task",
    *CASE,
    "method",
    "seed",
    "accuracy",
    "log_loss",
    *COSTS,
    "epochs",
    "steps",
]
MAP = "mean_average_precision"  # of several labels, or of embeddings
METHODS = {
    "clce": "CLCEClassifier()",
    "ce": "cross-entropy (weight=0)",
    "supcon": "hardness=0",
    "head": 'trainable="head"',
    "head_ce": "a head, weight=0",
    "each_5": '"each", weight .5',
    "each_9": '"each", weight .9',
    "mean_5": '"mean", weight .5',
    "mean_9": '"mean", weight .9',
    "supcon_5": "SupCon, weight .5",
    "supcon_9": "SupCon, weight .9",
    "authors_ce": "the authors' recipe, weight 0",
    "authors_mean_9": "the authors' recipe",
    "vote": "vote of the default and a head",
    "logistic": "LogisticRegression()",
    "logistic_cv": "the same, C by grid search",
    "neighbours": "nearest neighbours",
    "discriminant": "shrunken discriminant",
    "svc": "SVC, C by cross-validation",
    "class_mean": "nearest class mean",
    "fastai": "fastai, fine_tune",
    "script": "BEiT's script",
}


class Estimate(NamedTuple):
    """A mean, and half its 95 % interval after Student's t; NaN of fewer than three values."""

    mean: float
    half: float

    @property
    def low(self):
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self):
        """Upper end of the interval."""
        return self.mean + self.half

    def __str__(self):
        return format(self)

    def __format__(self, spec):
        spec = spec or ".1f"
        half = "" if np.isnan(self.half) else f" ± {self.half:{spec}}"
        return f"{self.mean:+{spec}}{half}"


def frame_of(lines):
    """Make a row for each finished run of each group.

    The batch size of a group is that of methods without one, too.
    """
    done = finished(lines)
    rows = [
        row_of(name, run, done[run.key], group.batch_size)
        for name, group in GROUPS.items()
        for run in group.runs(MOST_DRAWS)
        if run.key in done
    ]
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=list(dict.fromkeys([*COLUMNS, *frame.columns, MAP])))


def row_of(group, run, line, batch_size):
    """Put what was run and measured side by side, accuracy in per cent."""
    metrics = line["metrics"]
    costs = {name: line.get(name) for name in COSTS}
    if line["machine"]["gpu"]:  # whose time no processor counts
        costs["fit_processor_seconds"] = None
    shares = {name: value * POINTS for name, value in metrics.items() if name != "log_loss"}
    return {
        "group": group,
        **{
            name: getattr(run, name)
            for name in ("task", "data", "shots", "backbone", "method", "seed")
        },
        "batch_size": dict(run.parameters).get("batch_size", batch_size),
        **metrics,
        **shares,
        **costs,
        **{name: line.get("budget", {}).get(name) for name in ("epochs", "steps")},
    }


def differences(runs, one, other, metric="accuracy"):
    """Subtract one method from another, case by case and draw by draw.

    Shapes: Series of (case, draw), those that both were measured on.
    """
    draws = [
        runs[runs["method"] == method].set_index([*CASE, "seed"])[metric].astype(float)
        for method in (one, other)
    ]
    return (draws[0] - draws[1]).dropna()


def estimate(values):
    """Estimate the mean of independent values."""
    values = np.asarray(values, dtype=float)
    if len(values) < FEWEST:
        return Estimate(float(values.mean()), float("nan"))
    half = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / len(values) ** 0.5
    return Estimate(float(values.mean()), float(half))


def by_set(found):
    """Estimate differences for each set of pictures, over draws.

    Several differences of one draw, such as those of two backbones, are averaged first.
    """
    draws = found.groupby(level=["data", "seed"], sort=False).mean()
    return {name: estimate(part) for name, part in draws.groupby(level="data", sort=False)}


def over_sets(found):
    """Estimate the mean of differences over sets; None where there is none.

    The interval is that over sets, or that over draws where it is wider: a few sets may agree
    by chance better than their draws allow.
    """
    sets = by_set(found)
    if not sets:
        return None
    mean, half = estimate([one.mean for one in sets.values()])
    of_draws = np.linalg.norm([one.half for one in sets.values()]) / len(sets)
    return Estimate(mean, float(np.fmax(half, of_draws)) if half == half else half)


def best_and_worst(found):
    """Name the sets with the highest and the lowest mean difference."""
    sets = by_set(found)
    ranked = sorted(sets, key=lambda name: sets[name].mean)
    return (ranked[-1], sets[ranked[-1]]), (ranked[0], sets[ranked[0]])


def select(frame, group, **values):
    """Take the runs of a group that have these values."""
    chosen = frame["group"] == group
    for name, value in values.items():
        chosen &= frame[name] == value
    return frame[chosen]


def better_script(runs):
    """Name the better of those that fine-tune otherwise, on what both were measured on.

    Where that is nothing, the one that was measured more often.
    """
    lead = over_sets(differences(runs, "fastai", "script"))
    if lead is None:
        counts = runs["method"].value_counts()
        return max(("script", "fastai"), key=lambda name: counts.get(name, 0))
    return "fastai" if lead.mean > 0 else "script"
