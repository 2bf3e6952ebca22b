"""Plots of the page of results, as SVG files that are the same for the same lines."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from .frames import MAP, METHODS, by_set, differences, over_sets, select
from .pictures import COLLECTIONS

INK = "#808080"  # which light and dark pages show
STYLE = {"svg.hashsalt": "sklearn-clce", "svg.fonttype": "none", "font.size": 9}
STYLE |= dict.fromkeys(
    ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK
)
STYLE |= dict.fromkeys(["figure.facecolor", "axes.facecolor", "savefig.facecolor"], "none")
COLOURS = {
    "clce": "#d1541f",
    "ce": "#1b7fb5",
    "supcon": "#3a8f4d",
    "mean_5": "#c9a227",
    "mean_9": "#a67c00",
    "vote": "#8452a3",
    "logistic": INK,
    "neighbours": "#b0907a",
    "fastai": "#e377c2",
    "script": "#7fa8d9",
}
BY_TIME = ("clce", "head", "logistic", "neighbours", "svc", "fastai", "script")  # others are close
WIDTH = 5  # inches, which a phone shows without shrinking it much


class Figure(NamedTuple):
    """A figure that a reader of the page sees first: of which group, and its words."""

    group: str
    draw: Callable
    title: str
    about: str


def plot_figure(figure, frame, path):
    """Draw a figure, and return whether there was anything to draw."""
    return save(figure.draw, select(frame, figure.group), path)


def plot_group(name, runs, path):
    """Draw a group in the way that suits it, and return whether there was anything to draw."""
    return save(OF_GROUP.get(name, lead_by_set), runs, path)


def save(draw, runs, path):
    """Save what a function draws as SVG, and return whether there was anything to draw."""
    with matplotlib.rc_context(STYLE):
        figure = Canvas(figsize=(WIDTH, 3.2))
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
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(names)), [*(COLLECTIONS[name].title for name in names[:-1]), "mean"])
    axes.invert_yaxis()
    axes.set_xlabel("percentage points (right of 0: CLCE is better), 95 % intervals")
    _legend(axes)
    return True


def by_shots(figure, runs):
    """Draw the mean lead by images per class, for each backbone."""
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
    axes.axhline(0, color=INK, linewidth=0.8)
    _scale_by_doubling(axes, runs["shots"])
    axes.set(xlabel="images per class", ylabel="percentage points, mean over data sets")
    _legend(axes)
    return drawn


def by_batch_size(figure, runs):
    """Draw accuracy by batch size."""
    axes = figure.subplots()
    for method, part in runs.groupby("method"):
        means = part.groupby("batch_size")["accuracy"].mean()
        axes.plot(means.index, means, "o-", color=COLOURS[method], label=METHODS[method])
    _scale_by_doubling(axes, runs["batch_size"])
    axes.set(xlabel="batch size", ylabel="accuracy, %")
    _legend(axes)
    return True


def by_time(figure, runs):
    """Draw accuracy by the time that the features of an image take."""
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
        xlabel="milliseconds of one core for the features of an image",
        ylabel="accuracy, %",
    )
    _legend(axes)
    return True


def by_seconds(figure, runs):
    """Draw accuracy by the time of a fit, a point for each method."""
    axes = figure.subplots()
    complete = runs.groupby("method")["data"].nunique() == runs["data"].nunique()
    for method in [name for name in BY_TIME if complete.get(name)]:
        part = runs[runs["method"] == method]
        seconds = part["fit_processor_seconds"].fillna(part["fit_seconds"]).median()
        accuracy = part.groupby("data")["accuracy"].mean().mean()
        axes.plot(seconds, accuracy, "o", color=COLOURS.get(method, INK))
        place = {"xytext": (6, -3)} if seconds < 50 else {"xytext": (-6, -3), "ha": "right"}
        axes.annotate(METHODS[method], (seconds, accuracy), textcoords="offset points", **place)
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.1)
    axes.set(xlabel="seconds of one core for a fit", ylabel="accuracy, %")
    return True


def _scale_by_doubling(axes, column):
    values = sorted(column.unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, values)


def _legend(axes):
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, frameon=False)


def nothing(figure, runs):
    """Draw nothing."""
    return False


OF_GROUP = {
    "batch_size": by_batch_size,
    "lite": by_time,
    "head": by_shots,
    "multilabel": partial(lead_by_set, metric=MAP),
    "kinds": nothing,  # a table says it
}
FIGURES = {
    "league": Figure(
        "league",
        lead_by_set,
        "How much better is it, data set by data set?",
        "``CLCEClassifier()`` minus two others, with 10 images per class.",
    ),
    "league_time": Figure(
        "league",
        by_seconds,
        "How good is it for its time?",
        "Means over all data sets, with 10 images per class.",
    ),
    "head": Figure(
        "head",
        by_shots,
        "How good is a head?",
        '``trainable="head"`` minus two others, by the number of images per class.',
    ),
}
