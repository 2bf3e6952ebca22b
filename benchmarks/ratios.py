"""The measured ratios of the performance page, from what ``record.py`` kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .tables import Goal, Table, directive, goal_table, number


def page(folder: Path) -> str:
    """Write the ratios that were measured and where, in reStructuredText."""
    found = {name: json.loads(_read(folder / f"{name}.json")) for name in RATIOS}
    found = {name: recorded for name, recorded in found.items() if recorded is not None}
    if not found:
        return "Not measured yet: ``python -m benchmarks.record NAME`` does it.\n"
    goals = [goal for name, recorded in found.items() for goal in RATIOS[name](recorded["result"])]
    return "\n".join(map(directive, [goal_table("Measured ratios", goals), machines(found)]))


def machines(found: dict[str, dict]) -> Table:
    """Say by which command each was measured, when, and on what machine."""
    rows = [
        [
            f"``{recorded['command']}``",
            recorded["date"],
            f"{recorded['machine']['cpu']}, {recorded['machine']['cores']} cores",
            number(recorded["load"]),
            recorded["versions"]["torch"],
        ]
        for recorded in found.values()
    ]
    return Table(
        "Where they were measured", ["command", "date", "processor", "load", "torch"], rows
    )


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else "null"


def _import_time(result: dict) -> list[Goal]:
    return [
        Goal(
            "time of ``import sklearn_clce`` to ``import torch, sklearn, skorch``",
            result["ratio"],
            result["goal"],
        )
    ]


def _fit_overhead(result: dict) -> list[Goal]:
    return [
        Goal(
            "images per second in an epoch, ``fit`` to a hand-written loop",
            result["fit_speed_against_loop"],
            result["goal_speed"],
            at_most=False,
        ),
        Goal(
            "time of an epoch, CLCE to cross-entropy",
            result["clce_epoch_against_ce_epoch"],
            result["goal_cost"],
        ),
    ]


def _predict_throughput(result: dict) -> list[Goal]:
    return [
        Goal(
            "images per second, ``predict_proba`` to a bare timm loop",
            result["predict_speed_against_loop"],
            result["goal_speed"],
            at_most=False,
        ),
        Goal(
            "peak memory of predicting 4,000 files to 1,000",
            result["peak_ratio"],
            result["goal_peak_ratio"],
        ),
    ]


def _pipeline(result: dict) -> list[Goal]:
    epochs = {"first": "first epoch", "later": "later epochs"}
    return [
        Goal(
            f"images per second from JPEG files, ``fit`` to a torchvision loop, {epochs[part]}, "
            f"{name.removeprefix('workers=')} workers",
            speeds[part]["ratio"],
            speeds[part]["goal"],
            at_most=False,
        )
        for name, speeds in result.items()
        if name.startswith("workers=")
        for part in epochs
    ]


def _search_cost(result: dict) -> list[Goal]:
    return [
        Goal(
            "time of a search over heads, 12 x 5, to one pass over the images",
            result["against_one_pass"],
            result["goal_against_one_pass"],
        ),
        Goal(
            "time of that search, features cached, to one pass",
            result["search_again_against_one_pass"],
            result["goal_search_again_against_one_pass"],
        ),
        Goal(
            "time of that search without cached features to it",
            result["faster_than_without_store"],
            result["goal_faster_than_without_store"],
            at_most=False,
        ),
        Goal(
            "time of that search, features cached, to LogisticRegression's",
            result["search_again_against_logistic_regression"],
            result["goal_against_logistic_regression"],
        ),
    ]


def _loss_speed(result: dict) -> list[Goal]:
    what = {
        "time_to_metric_learning": "time of the contrastive term to pytorch-metric-learning's",
        "time_to_products": "time of the contrastive term to the bare matrix products",
        "memory_to_metric_learning": "memory of the contrastive term to pytorch-metric-learning's",
    }
    return [
        Goal(f"{what[name]}, {size['n']:,} rows", size["ratios"]["hardness=1"][name], bound)
        for size in result["results"]
        for name, bound in size["goals"].items()
        if name in what and bound is not None
    ]


RATIOS: dict[str, Callable[[dict], list[Goal]]] = {
    "import_time": _import_time,
    "fit_overhead": _fit_overhead,
    "predict_throughput": _predict_throughput,
    "pipeline": _pipeline,
    "search_cost": _search_cost,
    "loss_speed": _loss_speed,
}
