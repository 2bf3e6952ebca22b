"""The results page matches the result lines that it is made from."""

import csv
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.accuracy import report
from benchmarks.accuracy.__main__ import RESULTS
from benchmarks.accuracy.criterion_report import (
    TERMS,
    episode_parts,
    few_shot_rows,
    part_differences,
    worth_rows,
)
from benchmarks.accuracy.frames import (
    CASE,
    best_and_worst,
    by_set,
    differences,
    estimate,
    frame_of,
    over_sets,
    select,
)
from benchmarks.accuracy.goals import goals_of
from benchmarks.accuracy.groups import GROUPS, LITE0, SETS, TWO_BACKBONES
from benchmarks.accuracy.pictures import COLLECTIONS
from benchmarks.accuracy.plots import plot_group
from benchmarks.accuracy.report import FOLDER, PAGE, write_report
from benchmarks.accuracy.results import read_lines

DOCS = Path(__file__).parents[2] / "docs"
ACCURACIES = {
    "logistic": 0.70,
    "ce": 0.74,
    "clce": 0.76,
    "supcon": 0.76,
    "fastai": 0.6,
    "mean_9": 0.78,
}
METRICS_OF_SETS = ("accuracy", "mean_average_precision", "log_loss")
MACHINE = {"cpu": "an abacus", "instructions": "beads", "cores": 2, "gpu": None, "threads": 1}


def line_of(run, accuracy, **changes):
    """Make up a line of results."""
    return {
        "configuration": json.loads(run.key),
        "metrics": {"accuracy": accuracy, "log_loss": 1 - accuracy, "calibration_error": 0.1},
        "fit_seconds": 12.0,
        "epoch_seconds": 10.0,
        "seconds": 15.0,
        "seconds_a_picture": 0.02 if run.backbone == LITE0 else 0.05,
        "budget": {"epochs": 20, "steps": 60, "batch_size": 32},
        "trainable": 12,
        "machine": MACHINE,
        "versions": {"torch": "2.0", "timm": "1.0"},
    } | changes


def transfer_metrics(accuracy):
    """Make up what else is measured of a fine-tuned classifier."""
    return {
        "accuracy": accuracy,
        "log_loss": 1 - accuracy,
        "recall_at_1": accuracy,
        "mean_average_precision": accuracy / 2,
        "noise_accuracy": accuracy - 0.3,
        "blur_accuracy": accuracy - 0.1,
    }


def few_shot_line(run, accuracy):
    """Make up a line of episodes; parts differ, and equally for all methods."""
    spaces = ["features"] if run.method == "logistic" else ["features", "embedding"]
    parts = {
        f"{space}_{k}_shot": [accuracy + 0.002 * part + 0.1 * (k == 5) for part in range(30)]
        for space in spaces
        for k in (1, 5)
    }
    metrics = {name: float(np.mean(values)) for name, values in parts.items()}
    return line_of(run, accuracy, metrics=metrics, episodes=parts)


def lines_of(*groups, gain=lambda run: 0.0, draws=3):
    """Make up whole groups: accuracy by method, plus the same for each split."""
    runs = dict.fromkeys(run for name in groups for run in GROUPS[name].runs(draws))
    accuracies = {
        run: ACCURACIES.get(run.method, 0.5) + gain(run) + 0.02 * (run.seed % 3) for run in runs
    }
    return [made_up(run, accuracy) for run, accuracy in accuracies.items()]


def made_up(run, accuracy):
    """Make up a line of a run of any task."""
    if run.task == "few_shot":
        return few_shot_line(run, accuracy)
    if run.task == "multilabel":
        metrics = transfer_metrics(accuracy)
        return line_of(run, accuracy, metrics={name: metrics[name] for name in METRICS_OF_SETS})
    if run.task == "transfer":
        return line_of(run, accuracy, metrics=transfer_metrics(accuracy))
    return line_of(run, accuracy)


def lead_on(name, points):
    """Give CLCE some more points on a set."""
    return lambda run: points / 100 * (run.data == name and run.method == "clce")


def test_interval_matches_scipy():
    values = [61.0, 58.0, 66.0, 63.0]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert np.isnan(estimate([50.0, 60.0]).half)
    assert str(estimate([1.0])) == "+1.0"


def page(lines, drawn=()):
    """Write the page of lines."""
    return report.page(lines, frame_of(lines), drawn)


def found_of(table):
    """Make differences of a table of (set, backbone, seed, points)."""
    rows = [(data, 10, backbone, 0, seed, points) for data, backbone, seed, points in table]
    columns = [*CASE, "seed", "points"]
    return pd.DataFrame(rows, columns=columns).set_index([*CASE, "seed"])["points"]


def test_mean_over_sets_counts_each_set_once():
    found = found_of([("a", "x", 0, 1), ("a", "y", 0, 3), ("b", "x", 0, 6), ("c", "x", 0, 7)])
    assert over_sets(found) == estimate([2.0, 6.0, 7.0])
    assert best_and_worst(found)[0][0] == "c"
    worst, value = best_and_worst(found)[1]
    assert (worst, value.mean) == ("a", 2.0)


def test_interval_is_not_narrowed_by_agreeing_sets():
    draws = [-1.0, 0.0, 1.3]
    found = found_of([(name, "x", seed, draws[seed]) for name in "abcd" for seed in range(3)])
    assert over_sets(found).mean == pytest.approx(0.1)
    assert over_sets(found).half == pytest.approx(estimate(draws).half / 2)  # of four


def test_differences_are_paired_by_split():
    lines = lines_of("league", gain=lambda run: 0.2 * (run.seed == 1))
    league = select(frame_of(lines), "league")
    lead = differences(league, "clce", "ce")
    assert len(lead) == 3 * len(SETS)
    np.testing.assert_allclose(lead, 2.0)
    lost = next(one for one in lines if one["configuration"]["method"] == "ce")
    rest = [one for one in lines if one is not lost]
    lead = differences(select(frame_of(rest), "league"), "clce", "ce")
    assert len(lead) == 3 * len(SETS) - 1  # a split that one of them lacks is left out


def test_gpu_frame_uses_wall_time_and_batch_size():
    lines = [
        line | {"fit_processor_seconds": 99.0, "machine": MACHINE | {"gpu": "a loom"}}
        for line in lines_of("large", draws=1)
    ]
    frame = select(frame_of(lines), "large", backbone=LITE0)
    assert frame["fit_processor_seconds"].isna().all()
    assert set(frame["batch_size"]) == {128}
    np.testing.assert_allclose(differences(frame, "clce", "logistic"), 6.0)
    assert set(frame_of(lines_of("league", draws=1))["batch_size"]) == {0}


def test_other_methods_are_compared_set_by_set():
    lines = lines_of("league", gain=lead_on("waste", 10))
    tables = page(lines).split("CLCE minus others, percentage points per data set")[1:]
    of_ours, of_others = (table.strip().splitlines() for table in tables)
    assert "minus LogisticRegression()" in of_ours[2]
    assert of_others[2].strip() == ',"minus fastai, fine_tune",minus BEiT\'s script'
    rows = dict(row.strip().split(",", 1) for row in of_others[3:14])
    assert list(rows) == [COLLECTIONS[name].title for name in SETS]
    assert rows["waste"].startswith("**+26.0 ± 0.0**")


def test_lines_of_other_recipe_are_ignored():
    lines = lines_of("league", draws=1)
    frame = frame_of(lines)
    for line in lines:
        if line["configuration"]["recipe"] is not None:
            line["configuration"]["recipe"] -= 1
    assert set(frame_of(lines)["method"]) == set(frame["method"]) - {"clce", "ce", "supcon", "head"}


def words_of(frame):
    """Return by name whether goals are met."""
    return {goal.what: goal.word for goal in goals_of(frame)}


def test_goals_are_checked_against_results():
    words = words_of(frame_of(lines_of("league", "head", "multilabel")))
    assert words["CLCEClassifier() minus LogisticRegression(), 10 a class: mean"] == "met"
    assert words["CLCE minus weight=0, fine-tuned: mean"] == "met"
    assert words["CLCE minus weight=0, fine-tuned: best set"] == "MISSED"
    assert words["log-loss of CLCEClassifier() minus that of weight=0: mean"] == "met"
    assert words["time of the default fit, of that of its epochs"] == "met"
    assert set(words.values()) == {"met", "MISSED"}
    worse = words_of(frame_of(lines_of("league", "head", gain=lead_on("waste", -30))))
    assert worse["CLCEClassifier() minus LogisticRegression(), 10 a class: worst set"] == "MISSED"
    assert worse["CLCE minus weight=0, fine-tuned: mean"] == "MISSED"
    assert worse["CLCE minus weight=0, frozen: worst set"] == "MISSED"
    assert worse["log-loss of CLCEClassifier() minus that of weight=0: mean"] == "MISSED"
    better = words_of(frame_of(lines_of("league", gain=lead_on("hands", 4))))
    assert better["CLCE minus weight=0, fine-tuned: best set"] == "met"
    assert better["CLCE minus weight=0, frozen: mean"] == "not measured"
    slow = [line | {"fit_seconds": 16.0} for line in lines_of("league", draws=1)]
    assert words_of(frame_of(slow))["time of the default fit, of that of its epochs"] == "MISSED"


def test_uncertain_worst_set_meets_goal():
    def gain(run):
        draw = (-0.15, 0.05, 0.0)[run.seed]
        return (draw - 0.02) * (run.data == "waste" and run.method == "clce")

    frame = frame_of(lines_of("league", gain=gain))
    assert by_set(differences(frame, "clce", "ce"))["waste"].mean < -0.5
    assert words_of(frame)["CLCE minus weight=0, fine-tuned: worst set"] == "met"
    few = frame_of(lines_of("league", gain=gain, draws=1))  # no interval: it counts as it is
    assert words_of(few)["CLCE minus weight=0, fine-tuned: worst set"] == "MISSED"


def test_page_begins_with_a_verdict_three_figures_and_a_table():
    text = page(lines_of("league", "head", gain=lead_on("hands", 4)), ["league", "league_time"])
    first, second, third, *_ = re.findall(r"^- (.*)$", text[: text.index("Comparison with")], re.M)
    assert "``CLCEClassifier()`` is 6.4 ± 0.8 percentage points above" in first
    assert "averaged over 11 data sets. The difference is largest on hands (+10.0)" in first
    assert "It is 16.4 ± 0.8 percentage points above fastai, fine_tune (11 data sets)." in first
    assert "6.4 ± 0.8 percentage points above ``LogisticRegression()`` with 5 images" in second
    assert "it adds +2.4 ± 0.8 percentage points of accuracy. In a head, it adds +2.4" in third
    assert "Its hardness adds +0.4 ± 0.8 percentage points of accuracy, within the noise" in third
    shown = text[: text.index("All results")]
    assert shown.count(".. image::") == 2
    assert shown.index(".. image::") < shown.index("Means over data sets")
    assert "Goals" not in text
    lower = over_sets(found_of([("a", "x", 0, -1.0)]))
    assert report.above(lower) == "1.0 percentage points below"


def test_everything_else_is_folded():
    text = page(lines_of("league", "head", "lite"))
    folded = text[text.index(".. details::") :].splitlines()
    titles = [line for line in folded if line[:1] not in ("", " ")]
    assert len(titles) == 2 + 5  # "head_criteria" and "two_backbones" share runs
    assert all(line.startswith(".. details:: ") for line in titles)


def test_significant_differences_are_bold():
    text = page(lines_of("league", gain=lead_on("waste", -2)))
    assert "waste,**+4.0 ± 0.0**,+0.0 ± 0.0," in text
    assert "satellite,**+6.0 ± 0.0**,**+2.0 ± 0.0**," in text
    assert "cross-entropy (weight=0),76.0,0.240,60,12" in text


def test_scripts_are_ranked_on_shared_sets():
    lines = [
        line
        for line in lines_of("league", gain=lambda run: 0.3 * (run.data == "hands"))
        if line["configuration"]["method"] != "script"
        or line["configuration"]["data"] == "hands"  # an easy one
    ]
    text = page(lines)
    assert "BEiT's script (only hands),82.0" in text
    assert "It is 16.0 ± 0.0 percentage points above fastai, fine_tune" in text  # better there
    alone = [line for line in lines if line["configuration"]["method"] != "fastai"]
    assert "It is 26.0 percentage points above BEiT's script (1 data sets)" in page(alone)


def test_methods_with_fewer_splits_are_marked():
    def kept(configuration):
        method, data, seed = (configuration[name] for name in ("method", "data", "seed"))
        n_draws = {"fastai": 1, "script": data == "hands", "ce": 3 - (data == "waste")}
        return seed < n_draws.get(method, 3)

    text = page([line for line in lines_of("league") if kept(line["configuration"])])
    assert '"fastai, fine_tune (1 split)",' in text
    assert "BEiT's script (only hands; 1 split)," in text
    assert "cross-entropy (weight=0) (2 to 3 splits)," in text
    assert "   CLCEClassifier(),78.0," in text  # it has all
    assert "split)" not in page(lines_of("league", draws=1))  # so have all of them


def test_group_table_has_a_row_per_case():
    text = page(lines_of("head", "batch_size", "lite"))
    for case in ("vit_tiny, 15 per class", "efficientnet_lite0, 2 per class"):
        assert f'"{case}",78.0,**+6.0 ± 0.0**,**+2.0 ± 0.0**' in text
    assert "batches of 256,78.0,+2.0\n" in text
    assert "efficientnet_lite2,78.0,**+6.0 ± 0.0**" in text


def test_new_classes_are_compared_with_pretrained_features():
    lines = []
    for run in GROUPS["new_classes"].runs(3):
        spaces = ["features"] if run.method == "logistic" else ["features", "embedding"]
        accuracy = {"logistic": 0.6, "clce": 0.55}.get(run.method, 0.7)
        metrics = {
            f"{space}_regression_5_shot": accuracy + 0.1 * (space == "embedding")
            for space in spaces
        }
        lines.append(line_of(run, 0) | {"metrics": metrics})
    text = page(lines)
    assert "CLCEClassifier(),features,regression 5 shot,-5.0" in text
    assert "CLCEClassifier(),embedding,regression 5 shot,+5.0" in text
    assert "cross-entropy (weight=0),embedding,regression 5 shot,+20.0" in text


def test_page_shows_what_a_second_backbone_adds():
    def gain(run):
        return 0.03 * (run.backbone == TWO_BACKBONES[0]) * (1 + (run.shots == 10))

    text = page(lines_of("two_backbones", gain=gain, draws=1))
    assert "Points that a second backbone adds to a head on efficientnet_lite0" in text
    assert "flowers,+3.0,+6.0,+0.0,+0.0" in text
    assert "**mean**,+3.0 ± 0.0,+6.0 ± 0.0,+0.0 ± 0.0,+0.0 ± 0.0" in text
    assert "**mean log-loss**" in text


def test_tables_have_at_most_five_columns():
    text = page(lines_of(*GROUPS, draws=1))
    tables = re.findall(r"\.\. csv-table::.*\n.*\n\n((?:   .*\n)+)", text)
    assert len(tables) > 8
    for table in tables:
        widths = {len(row) for row in csv.reader(line.strip() for line in table.splitlines())}
        assert len(widths) == 1
        assert widths.pop() <= 5


@pytest.mark.parametrize("n_lines", [0, 1, 7, 40])
def test_page_is_written_from_partial_results(n_lines, tmp_path):
    lines = lines_of("league", "new_classes")[:n_lines]
    lost = {"configuration": asdict(GROUPS["head"].runs()[0]), "error": "MemoryError: none left"}
    write_report([*lines, lost], tmp_path)
    text = (tmp_path / PAGE).read_text()
    assert f"Comparison with 10 images per class,{n_lines},396\n" in text
    assert "- Failed: ``MemoryError: none left``\n" in text
    assert ("Nothing is measured" in text) == (n_lines <= 1)
    assert ("an abacus" in text) == (n_lines > 0)


def test_plot_shows_mean_below_every_set(tmp_path):
    lines = [
        line
        for line in lines_of("many_classes", draws=1)
        if line["configuration"]["data"] == "cifar100"
        or line["configuration"]["method"] != "logistic"
    ]
    plot_group("many_classes", select(frame_of(lines), "many_classes"), tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert drawn.index("CIFAR-100") < drawn.index("Omniglot") < drawn.index(">mean<")


def test_report_writes_page_plots_goals_and_runs(tmp_path):
    lines = lines_of("league", "head", "batch_size", "lite", draws=1)
    write_report(lines, tmp_path)
    drawn = {path.stem for path in (tmp_path / FOLDER).glob("*.svg")}
    assert drawn == {"league", "league_time", "head", "batch_size", "lite"}
    text = (tmp_path / PAGE).read_text()
    assert all(f".. image:: {FOLDER}/{name}.svg" in text for name in drawn)
    runs = pd.read_csv(tmp_path / FOLDER / "runs.csv")  # a line may be of two groups
    assert (~runs["group"].isin(["head_criteria", "two_backbones"])).sum() == len(lines)
    assert "met" in (tmp_path / FOLDER / "goals.inc").read_text()


def test_plot_is_reproducible(tmp_path):
    runs = select(frame_of(lines_of("league", draws=1)), "league")
    assert all(plot_group("league", runs, tmp_path / name) for name in ("first", "second"))
    first = (tmp_path / "first").read_bytes()
    assert b"minus LogisticRegression()" in first
    assert (tmp_path / "second").read_bytes() == first


def test_committed_page_matches_committed_results(tmp_path):
    write_report(read_lines(RESULTS), tmp_path)
    for name in (PAGE, f"{FOLDER}/goals.inc"):
        assert (DOCS / name).read_text() == (tmp_path / name).read_text(), (
            "python -m benchmarks.accuracy report"
        )
    plots = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert {path.name for path in (DOCS / FOLDER).iterdir()} == plots


def test_worth_table_subtracts_cross_entropy():
    lines = lines_of("transfer", "few_shot", draws=2)
    frame = frame_of(lines)
    found = {row[0]: row[1:] for row in worth_rows(lines, frame)}
    mean_9 = TERMS.index("mean_9")
    assert found["accuracy, points"][mean_9] == "**+4.0 ± 0.0**"
    assert found["log-loss"][mean_9] == "**-0.040 ± 0.000**"
    assert found["mean average precision of embeddings, points"][mean_9] == "**+2.0 ± 0.0**"
    assert found["accuracy on corrupted images, points"][mean_9] == "**+4.0 ± 0.0**"
    assert (
        found["CIFAR-FS, 5-shot, embeddings (minus features), points"][mean_9] == "**+4.0 ± 0.0**"
    )
    assert "a head: log-loss" not in found  # no head was measured


def test_few_shot_table_has_intervals_over_episodes():
    lines = lines_of("few_shot", draws=1)
    rows = {row[0]: row[1:] for row in few_shot_rows(episode_parts(lines, "fc100"))}
    half = 100 * estimate(0.002 * np.arange(30)).half
    assert rows["frozen backbone"] == [f"72.9 ± {half:.1f}", f"82.9 ± {half:.1f}", "", ""]
    assert rows['"mean", weight .9'][3] == f"90.9 ± {half:.1f}"


def test_few_shot_differences_are_paired_by_episode():
    lines = lines_of("few_shot", draws=2)
    parts = episode_parts(lines, "cifar_fs")
    found = part_differences(parts, "mean_9", "ce", "embedding_1_shot", "features_1_shot")
    np.testing.assert_allclose(found, 4.0)  # parts vary by six points, what is paired does not
    assert part_differences(parts, "mean_9", "script", "embedding_1_shot") is None
