"""The page of results: a verdict, plots and narrow tables, all made from the lines."""

import csv
import io
import textwrap
from collections import Counter

from .configuration import TRAINED
from .criterion_report import MEASURES, SHOWN, few_shot_tables, transfer_rows, worth_table
from .frames import (
    METHODS,
    best_and_worst,
    better_script,
    by_set,
    differences,
    frame_of,
    over_sets,
    select,
)
from .goals import goals_of
from .groups import GROUPS, LITE0, TWO_BACKBONES, VIT_TINY
from .multilabel_report import multilabel_tables
from .pictures import COLLECTIONS, TEST_IMAGES
from .plots import plot_group
from .results import failed, finished

# What is shown of a second backbone: its name, and how it is written.
ADDED = {
    "accuracy": ("mean", ".1f"),
    "log_loss": ("mean log-loss", ".3f"),
    "seconds_a_picture": ("seconds an image", ".3f"),
}
PAGE, FOLDER = "results.rst", "results"
COMMAND = "python -m benchmarks.accuracy run --groups {} --data FOLDER --weights FOLDER"
ABOUT = f"""
A draw fixes classes (seven at most, but where a group says how many), images and seeds; differences
are paired by draw and averaged over sets of pictures. Intervals are 95 % intervals after Student's
t, of three values or more: over draws, and in the mean over sets, or over draws where that is
wider. Of each class {TEST_IMAGES} images at most are for test. Runs have one thread; seconds are
medians over runs, of processor time where it was noted. Those on a GPU have all threads, and their
seconds are by the clock. *LogisticRegression()* is scikit-learn's at its defaults on the features
of the same frozen backbone. Eight sets are photographs of one kind:
flowers, textures, waste, MRI slices, satellite, histology, line drawings and hands.

fastai runs ``vision_learner(...).fine_tune(20)`` in batches of 16; the script is the recipe of
BEiT's fine-tuning at its defaults, in batches of 32 (``benchmarks/accuracy/beit_script.py``).
AutoGluon MultiModal 1.6 is not here: it asks for another timm than this library works with.

The eight sets of photographs are files of ``--data FOLDER`` that are not part of this repository
(``benchmarks/accuracy/pictures.py`` names them, ``sources.py`` beside it says what is in them);
torchvision brings the other three, which ``--sets cifar100 caltech101 omniglot`` measures alone.

What was measured at earlier defaults, at 64 pixels, is history, and not on this page:
``benchmarks/results/accuracy_earlier.jsonl``.
"""


def write_report(lines, docs):
    """Write page, plots, goals, and a file with every run."""
    (docs / FOLDER).mkdir(parents=True, exist_ok=True)
    frame = frame_of(lines)
    drawn = [
        name
        for name in frame["group"].unique()
        if plot_group(name, select(frame, name), docs / FOLDER / f"{name}.svg")
    ]
    frame.round(5).to_csv(docs / FOLDER / "runs.csv", index=False, lineterminator="\n")
    (docs / PAGE).write_text(page(lines, frame, drawn), encoding="utf-8")
    (docs / FOLDER / "goals.inc").write_text(goal_table(frame), encoding="utf-8")


def page(lines, frame, drawn=()):
    """Write the page in reStructuredText; ``drawn`` are the groups that have a plot."""
    measured = {name: GROUPS[name] for name in frame["group"].unique()}
    parts = [
        heading("Results", "="),
        verdict(frame) or "Nothing is measured at today's defaults yet.\n",
        worth_table(lines, frame, table),
        *(f"**{GROUPS[n].title}.** {GROUPS[n].about}\n\n{picture(n, GROUPS[n])}" for n in drawn),
        heading("What was measured, and how") + ABOUT,
        f"\n:download:`Every run <{FOLDER}/runs.csv>` is in one file.\n",
        *(section(name, group, select(frame, name), lines) for name, group in measured.items()),
        provenance(lines, measured),
    ]
    return "\n".join(part for part in parts if part)


def heading(text, line="-"):
    """Write a heading."""
    return f"{text}\n{line * len(text)}\n"


def picture(name, group):
    """Refer to the plot of a group."""
    return f".. image:: {FOLDER}/{name}.svg\n   :alt: {group.title}\n"


def table(title, header, rows):
    """Write a table."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    content = textwrap.indent(file.getvalue(), "   ")
    return f".. csv-table:: {title}\n   :header-rows: 1\n\n{content}"


def verdict(frame):
    """Say in three sentences what the estimator gives; of what was measured."""
    sentences = [verdict_on_heads(frame), verdict_on_league(frame), verdict_on_criterion(frame)]
    return "".join(f"- {one}\n" for one in sentences if one)


def verdict_on_heads(frame):
    """Hold heads against logistic regression."""
    told = []
    for backbone in (LITE0, VIT_TINY):
        leads = {
            shots: differences(
                select(frame, "head", backbone=backbone, shots=shots), "clce", "logistic"
            )
            for shots in (5, 15)
        }
        told += [
            f"{over_sets(lead)} on {backbone} with {shots} images a class "
            f"(worst set {worst_of(lead)})"
            for shots, lead in leads.items()
            if len(lead)
        ]
    return told and f"A head on frozen features minus ``LogisticRegression()``: {'; '.join(told)}."


def verdict_on_league(frame):
    """Hold the default against everyone else."""
    league = select(frame, "league")
    told = [
        f"minus {METHODS[other]}: {over_sets(lead)} on {len(by_set(lead))} sets "
        f"(best {best_of(lead)}, worst {worst_of(lead)})"
        for other in ("logistic", better_script(league))
        if len(lead := differences(league, "clce", other))
    ]
    if not told:
        return ""
    return f"``CLCEClassifier()`` with 10 images a class, {'; '.join(told)}."


def verdict_on_criterion(frame):
    """Hold the contrastive term, and hardness, against the same recipe without."""
    told = []
    for what, group, other in (
        ("fine-tuned", "league", "ce"),
        ("on frozen features", "head", "ce"),
        ("of its hardness, fine-tuned", "league", "supcon"),
    ):
        lead = differences(select(frame, group), "clce", other)
        if len(lead):
            told.append(
                f"{over_sets(lead)} {what} (on {len(by_set(lead))} sets: best {best_of(lead)}, "
                f"worst {worst_of(lead)})"
            )
    return told and f"What the contrastive term is worth, in points: {'; '.join(told)}."


def best_of(lead):
    """Name the best set."""
    (name, best), _ = best_and_worst(lead)
    return f"{COLLECTIONS[name].title} {best.mean:+.1f}"


def worst_of(lead):
    """Name the worst set."""
    _, (name, worst) = best_and_worst(lead)
    return f"{COLLECTIONS[name].title} {worst.mean:+.1f}"


def section(name, group, runs, lines):
    """Write the tables of a group."""
    parts = [heading(group.title), f"{group.about}\n"]
    if name == "new_classes":
        parts.append(episode_table(runs))
    elif name.startswith("few_shot"):
        parts += few_shot_tables(lines, GROUPS[name], table)
    elif name == "multilabel":
        parts += multilabel_tables(runs, table, cell)
    elif name == "two_backbones":
        parts.append(two_backbones_table(runs))
    elif name == "transfer":
        header = ["", *(MEASURES[name][0] for name in SHOWN)]
        parts.append(table("Means over sets", header, transfer_rows(runs)))
    elif "clce" not in set(runs["method"]):
        parts.append(standings(runs))
    else:
        parts += [
            case_table(runs) or standings(runs),
            set_table(runs, references(runs)),
            set_table(runs, references(runs, TRAINED)),
        ]
    parts.append(f"Reproduce: ``{COMMAND.format(name)}``\n")
    return "\n".join(part for part in parts if part)


def standings(runs):
    """Show everyone: accuracy, log-loss, and what it took; who lacks sets or draws is marked."""
    rows, n_sets = [], runs["data"].nunique()
    draws = runs.groupby(["method", "data"])["seed"].nunique()
    most = draws.groupby("data").max()
    for method, title in METHODS.items():
        part = runs[runs["method"] == method]
        if len(part):
            accuracy, loss = part.groupby("data")[["accuracy", "log_loss"]].mean().mean()
            seconds = part["fit_processor_seconds"].fillna(part["fit_seconds"]).median()
            steps = part["steps"].mean()
            steps = "" if steps != steps else f"{steps:.0f}"
            lacks = []
            if part["data"].nunique() < n_sets:
                sets = ", ".join(COLLECTIONS[one].title for one in part["data"].unique())
                lacks.append(f"only {sets}")
            if (draws[method] < most[draws[method].index]).any():
                low, high = draws[method].min(), draws[method].max()
                number = f"{low}" if low == high else f"{low} to {high}"
                lacks.append(f"{number} draw{'' if high == 1 else 's'}")
            if lacks:
                title = f"{title} ({'; '.join(lacks)})"
            rows.append([title, f"{accuracy:.1f}", f"{loss:.3f}", steps, f"{seconds:.3g}"])
    return table("Means over sets", ["", "accuracy, %", "log-loss", "steps", "fit, s"], rows)


def case_table(runs):
    """Show the mean leads of each backbone, number of images and batch size; empty of one."""
    words = {"backbone": "{}", "shots": "{} a class", "batch_size": "batches of {}"}
    names = [name for name in words if runs[name].nunique() > 1]
    if not names:
        return ""
    others = references(runs)
    rows = []
    for values, part in runs.groupby(names, sort=False):
        case = ", ".join(words[name].format(one) for name, one in zip(names, values, strict=True))
        ours = part[part["method"] == "clce"].groupby("data")["accuracy"].mean()
        leads = [cell(over_sets(differences(part, "clce", other))) for other in others]
        rows.append([case, f"{ours.mean():.1f}", *leads])
    header = ["", "CLCE, %", *(f"minus {METHODS[other]}" for other in others)]
    return table("Accuracy of CLCE, and points that it is ahead, means over sets", header, rows)


def set_table(runs, others):
    """Show the leads of CLCE over others set by set, and in the mean."""
    found = {other: differences(runs, "clce", other) for other in others}
    if not found:
        return ""
    sets = {other: by_set(lead) for other, lead in found.items()}
    names = [name for name in COLLECTIONS if any(name in of_other for of_other in sets.values())]
    rows = [
        [COLLECTIONS[name].title, *(cell(of_other.get(name)) for of_other in sets.values())]
        for name in names
    ]
    rows.append(["**mean**", *(cell(over_sets(lead)) for lead in found.values())])
    header = ["", *(f"minus {METHODS[other]}" for other in found)]
    return table("Points that CLCE is ahead, set by set", header, rows)


def two_backbones_table(runs):
    """Show what a second backbone adds to a head on the first, set by set and in the mean."""
    cases = [(both, shots) for both in TWO_BACKBONES for shots in sorted(set(runs["shots"]))]
    found = {metric: [added(runs, *case, metric) for case in cases] for metric in ADDED}
    sets = [by_set(lead) for lead in found["accuracy"]]
    names = [name for name in COLLECTIONS if any(name in of_case for of_case in sets)]
    rows = [
        [COLLECTIONS[name].title, *(cell(of_case.get(name)) for of_case in sets)] for name in names
    ]
    for metric, (title, spec) in ADDED.items():
        means = [over_sets(lead) for lead in found[metric]]
        rows.append([f"**{title}**", *("" if mean is None else f"{mean:{spec}}" for mean in means)])
    header = ["", *(f"with {both.split('+')[1]}, {shots} a class" for both, shots in cases)]
    return table(f"Points that a second backbone adds to a head on {LITE0}", header, rows)


def added(runs, both, shots, metric):
    """Subtract a head on the first backbone from one on both: Series of (case, draw)."""
    chosen = runs[(runs["shots"] == shots) & runs["backbone"].isin([LITE0, both])]
    return differences(chosen.assign(method=chosen["backbone"], backbone=""), both, LITE0, metric)


def references(runs, others=("logistic", "ce", "supcon", "vote")):
    """Name what CLCE is held against: those of the runs that were measured beside it."""
    return [one for one in others if len(differences(runs, "clce", one))]


def cell(found):
    """Write a difference; one whose interval leaves 0 out is bold."""
    if found is None:
        return ""
    return f"**{found}**" if found.low * found.high > 0 else str(found)


def episode_table(runs):
    """Show how well new classes are learned, from features and from embeddings."""
    columns = [name for name in runs.columns if name.endswith("_shot")]
    floor = "features_{}"
    rows = []
    for column in columns:
        space, learner = column.split("_", 1)
        if not runs[column].notna().any():
            continue
        for method in ("clce", "ce", "supcon"):
            part = runs.copy()
            part.loc[part["method"] == "logistic", column] = part[floor.format(learner)]
            lead = differences(part, method, "logistic", column)
            if len(lead):
                words = learner.replace("_", " ")
                rows.append([METHODS[method], space, words, cell(over_sets(lead))])
    title = "Points minus the same learner on features of the backbone as it was"
    return table(title, ["fine-tuned by", "space", "learner", "points"], rows)


def goal_table(frame):
    """Hold the results against what was aimed at."""
    rows = [[one.what, one.wanted, one.measured, one.word] for one in goals_of(frame)]
    return table("Goals, in points, and what was measured", ["", "goal", "measured", ""], rows)


def provenance(lines, measured):
    """Say how much of each group is done, on which machines, and how to do it again."""
    done, broken = finished(lines), failed(lines)
    rows = [
        [group.title, sum(one.key in done for one in group.runs()), len(group.runs())]
        for group in GROUPS.values()
    ]
    of_groups = {one.key for group in GROUPS.values() for one in group.runs()}
    machines = Counter(machine_of(line) for key, line in done.items() if key in of_groups)
    on_a_cpu = [name for name in measured if not GROUPS[name].needs_gpu]
    parts = [
        heading("What was run, and where"),
        table("Runs", ["group", "finished", "of"], rows),
        *(f"- {name}: {count} runs.\n" for name, count in sorted(machines.items())),
        *(f"- Failed: ``{line['error']}``\n" for line in broken.values()),
        ".. code-block:: console\n",
        '   python -m pip install -e ".[benchmarks]"',
        f"   {COMMAND.format(' '.join(on_a_cpu) or 'league')}",
        "   python -m benchmarks.accuracy report\n",
        "Finished runs are skipped; ``--plan`` says what is missing and how long it takes.\n",
    ]
    return "\n".join(parts)


def machine_of(line):
    """Describe in words where a run was made."""
    machine, versions = line["machine"], line["versions"]
    on = (
        machine["gpu"]
        or f"{machine['cpu']} ({machine['instructions']}, {machine['threads']} thread)"
    )
    return f"{on}, torch {versions['torch']}, timm {versions['timm']}"
