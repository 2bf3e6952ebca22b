"""Plots of the page of results, as SVG files that are the same for the same lines."""

from functools import partial

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .frames import MAP, METHODS, by_set, differences, over_sets
from .pictures import COLLECTIONS

STYLE = {"svg.hashsalt": "sklearn-clce", "svg.fonttype": "none", "font.size": 9}
COLOURS = {
    "clce": "#d1541f",
    "ce": "#1b7fb5",
    "supcon": "#3a8f4d",
    "mean_5": "#c9a227",
    "mean_9": "#7a5c00",
    "vote": "#8452a3",
    "logistic": "#555555",
}
WIDTH = 5  # inches, which a phone shows without shrinking it much


def plot_group(name, runs, path):
    """Draw a group in the way that suits it, and say whether there was anything to draw."""
    draw = OF_GROUP.get(name, lead_by_set)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.2))
        if not draw(figure, runs):
            return False
        figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return True


def lead_by_set(figure, runs, metric="accuracy"):
    """Draw how far CLCE is ahead of what, on each set and in the mean."""
    axes = figure.subplots()
    others = "logistic", "ce", "vote"
    leads = {other: differences(runs, "clce", other, metric) for other in others}
    leads = {other: lead for other, lead in leads.items() if len(lead)}
    if not leads:
        return False
    sets = {other: by_set(lead) for other, lead in leads.items()}
    names = [*dict.fromkeys(name for found in sets.values() for name in found), "mean"]
    for shift, (other, found) in zip((-0.15, 0.15), sets.items(), strict=False):
        found = found | {"mean": over_sets(leads[other])}
        axes.errorbar(
            [one.mean for one in found.values()],
            [names.index(name) + shift for name in found],
            xerr=[np.nan_to_num(one.half) for one in found.values()],
            fmt="o",
            capsize=2,
            color=COLOURS[other],
            label=f"minus {METHODS[other]}",
        )
    figure.set_figheight(1.2 + 0.35 * len(names))
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), [*(COLLECTIONS[name].title for name in names[:-1]), "mean"])
    axes.invert_yaxis()
    axes.set_xlabel("points; right of 0 CLCE is better; 95 % intervals")
    _legend(axes)
    return True


def by_shots(figure, runs):
    """Draw the mean lead by images a class, for each backbone."""
    axes = figure.subplots()
    drawn = False
    for style, (backbone, of_backbone) in zip("-:", runs.groupby("backbone"), strict=False):
        for other in ("logistic", "ce"):
            lead = differences(of_backbone, "clce", other)
            if not len(lead):
                continue
            found = {
                shots: over_sets(part) for shots, part in lead.groupby(level="shots", sort=True)
            }
            axes.errorbar(
                list(found),
                [one.mean for one in found.values()],
                yerr=[np.nan_to_num(one.half) for one in found.values()],
                fmt=f"o{style}",
                capsize=2,
                color=COLOURS[other],
                label=f"{backbone}, minus {METHODS[other]}",
            )
            drawn = True
    axes.axhline(0, color="black", linewidth=0.8)
    _scale_by_doubling(axes, runs["shots"])
    axes.set(xlabel="images a class", ylabel="points, mean over sets")
    _legend(axes)
    return drawn


def by_batch_size(figure, runs):
    """Draw accuracy by batch size."""
    axes = figure.subplots()
    for method, part in runs.groupby("method"):
        means = part.groupby("batch_size")["accuracy"].mean()
        axes.plot(means.index, means, "o-", color=COLOURS[method], label=METHODS[method])
    _scale_by_doubling(axes, runs["batch_size"])
    axes.set(xlabel="batch size", ylabel="accuracy, per cent")
    _legend(axes)
    return True


def by_time(figure, runs):
    """Draw accuracy by the time that the features of a picture take."""
    axes = figure.subplots()
    for method, part in runs.groupby("method"):
        means = part.groupby("backbone")[["seconds_a_picture", "accuracy"]].mean()
        milliseconds = 1000 * means["seconds_a_picture"]
        axes.plot(
            milliseconds, means["accuracy"], "o-", color=COLOURS[method], label=METHODS[method]
        )
        for name, x, y in zip(means.index, milliseconds, means["accuracy"], strict=True):
            axes.annotate(name[-5:], (x, y), textcoords="offset points", xytext=(4, -10))
    axes.set(
        xlabel="milliseconds of one core for the features of a picture",
        ylabel="accuracy, per cent",
    )
    _legend(axes)
    return True


def _scale_by_doubling(axes, column):
    values = sorted(column.unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, values)


def _legend(axes):
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, frameon=False)


OF_GROUP = {
    "batch_size": by_batch_size,
    "lite": by_time,
    "head": by_shots,
    "multilabel": partial(lead_by_set, metric=MAP),
}
