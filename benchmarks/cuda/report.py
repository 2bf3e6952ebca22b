"""What was measured as tables, in a terminal and on the performance page."""

from __future__ import annotations

from collections.abc import Iterator

from ..tables import Goal, Table, directive, goal_table, literal, number

COUNTED_FROM = 2048  # rows from which the criterion has goals
COMMAND = "python -m benchmarks.cuda"


def page(measured: dict) -> str:
    """Write the section of the performance page, in reStructuredText."""
    machine = measured["machine"]
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    return "\n".join(
        [
            f"{machine['gpu']} with {machine['gpu_gib']} GiB, driver {machine['driver']}, CUDA "
            f"{machine['cuda']}, {machine['cores']} cores of {machine['cpu']}; {versions}. "
            f"Measured on {measured['date']} by ``{COMMAND}{' --quick' * measured['quick']}``.\n",
            *map(directive, tables(measured)),
        ]
    )


def tables(measured: dict) -> Iterator[Table]:
    """Make the table of goals, and one or more for each section that is there."""
    found = goals(measured)
    if found:
        yield goal_table("Goals", found)
    for name, section in measured["sections"].items():
        if "error" in section:
            yield Table(f"{name}: failed", ["error"], [[literal(section["error"])]])
        else:
            yield from TABLES[name](section["result"])


def goals(measured: dict) -> list[Goal]:
    """Hold what was measured against what was aimed at; the worst row counts."""
    results = {
        name: section["result"]
        for name, section in measured["sections"].items()
        if "result" in section
    }
    found = []
    if "tests" in results:
        found.append(Goal("tests marked cuda that fail", len(results["tests"]["failed"]), 0))
    if "criterion" in results:
        found += _goals_of_criterion(results["criterion"]["rows"])
    for name in ("fit", "predict"):
        if name in results:
            worst = min(row["speed_against_loop"] for row in results[name]["rows"])
            text = f"images per second, {name} to loop"
            found.append(Goal(text, worst, 0.95, at_most=False))
    if results.get("fit", {}).get("synchronisations"):
        for trains, places in results["fit"]["synchronisations"].items():
            found.append(Goal(f"synchronisations in a step ({trains})", sum(places.values()), 0))
    if "two_processes" in results:
        found += [
            Goal("failed fits of two processes", results["two_processes"]["failed_fits"], 0),
            Goal(
                "difference of scores, two processes to one",
                results["two_processes"]["largest_difference"],
                0,
            ),
        ]
    return found


def _goals_of_criterion(rows: list[dict]) -> list[Goal]:
    found = []
    for other, bound in (("pytorch-metric-learning", 0.5), ("bare products", 1.5)):
        ratios = [
            row["time_against"][other]
            for row in rows
            if row["n"] >= COUNTED_FROM and other in row["time_against"]
        ]
        if ratios:
            text = f"time of the criterion to {other}, from {COUNTED_FROM:,} rows on"
            found.append(Goal(text, max(ratios), bound))
    counted = [row["synchronisations"] for row in rows if row["synchronisations"] is not None]
    if counted:
        waits = max(sum(places.values()) for places in counted)
        found.append(Goal("synchronisations in the criterion", waits, 0))
    return found


def _tests(result: dict) -> Iterator[Table]:
    counts = [str(result["passed"]), str(len(result["failed"])), str(result["skipped"])]
    yield Table("Tests marked cuda", ["passed", "failed", "skipped"], [counts])
    if result["failed"]:
        rows = [[literal(one["test"]), literal(one["message"])] for one in result["failed"]]
        yield Table("Tests that failed", ["test", "message"], rows)


def _criterion(result: dict) -> Iterator[Table]:
    rows = result["rows"]
    names = list(dict.fromkeys(name for row in rows for name in [*row["ms"], *row["left_out"]]))
    for title, key in (
        (f"Criterion, {result['width']} wide, forward and backward: milliseconds", "ms"),
        ("Criterion: peak memory of a step, MiB", "peak_mib"),
    ):
        cells = [[f"{row['n']:,}", *(_cell(row, key, name) for name in names)] for row in rows]
        yield Table(title, ["rows", *names], cells)
    others = list(dict.fromkeys(name for row in rows for name in row["time_against"]))
    cells = [
        [f"{row['n']:,}", *(number(row["time_against"].get(name)) for name in others)]
        for row in rows
    ]
    yield Table("Time of the criterion to", ["rows", *others], cells)
    faster = ", ".join(f"{n:,}" for n in result["blocks_faster_at"]) or "none"
    cells = [[f"{result['blocks_from']:,}", faster]]
    yield Table("Blocks", ["start at", "are faster at"], cells)


def _cell(row: dict, key: str, name: str) -> str:
    return row["left_out"].get(name) or number(row[key].get(name))


def _speeds(kind: str, result: dict) -> Iterator[Table]:
    header = [
        "backbone",
        "weights",
        "precision",
        "images/s",
        "to loop",
        "pipeline's share",
    ]
    rows = [
        [
            row["backbone"],
            row["weights"],
            row["precision"],
            f"{row['images_per_second']:.0f}",
            number(row["speed_against_loop"]),
            number(row["pipeline_share"]),
        ]
        for row in result["rows"]
    ]
    yield Table(f"Speed of {kind}", header, rows)


def _fit(result: dict) -> Iterator[Table]:
    yield from _speeds("fit", result)
    places = [
        [trains, place, number(n)]
        for trains, found in (result["synchronisations"] or {}).items()
        for place, n in found.items()
    ]
    if places:
        yield Table("Synchronisations in a step", ["trains", "place", "times"], places)


def _predict(result: dict) -> Iterator[Table]:
    yield from _speeds("predict_proba", result)


def _head_grid(result: dict) -> Iterator[Table]:
    rows = [
        ["search to one pass over the images", number(result["against_one_pass"])],
        ["search without a store to it", number(result["faster_than_without_store"])],
        [
            "search over kept features to LogisticRegression's",
            number(result["search_again_against_logistic_regression"]),
        ],
    ]
    yield Table(f"A grid of 12 heads x 5 folds, {result['images']} images", ["time", ""], rows)


def _two_processes(result: dict) -> Iterator[Table]:
    header = ["fits", "failed", "largest difference of scores", "same best", "time to one process"]
    cells = [
        str(result["fits"]),
        str(result["failed_fits"]),
        number(result["largest_difference"]),
        "yes" if result["same_best"] else "no",
        number(result["time_against_one_process"]),
    ]
    yield Table("A search with two processes on one device", header, [cells])


TABLES = {
    "tests": _tests,
    "criterion": _criterion,
    "fit": _fit,
    "predict": _predict,
    "head_grid": _head_grid,
    "two_processes": _two_processes,
}
