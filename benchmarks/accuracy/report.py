"""The page of results: a verdict, three figures, one table, and the rest folded."""

import csv
import io
import textwrap
from collections import Counter

from .configuration import TRAINED
from .criterion_report import (
    MEASURES,
    ON_PAPER,
    SHOWN,
    few_shot_tables,
    transfer_rows,
    worth_section,
)
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
from .groups import GROUPS, LITE0, TWO_BACKBONES
from .multilabel_report import multilabel_tables
from .pictures import COLLECTIONS, TEST_IMAGES
from .plots import FIGURES, plot_figure, plot_group
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
- A random split fixes classes, images and seeds. There are at most seven classes, unless a
  comparison names another number, and at most {TEST_IMAGES} test images per class.
- Differences are paired by split and averaged over data sets. Intervals are 95 % intervals after
  Student's t, from three values or more.
- *LogisticRegression()* is that of scikit-learn at its defaults, on features of the same frozen
  backbone.
- Eight data sets are photographs of one kind: flowers, textures, waste, MRI slices, satellite,
  histology, line drawings and hands. They are not part of the repository
  (``benchmarks/accuracy/sources.py``). torchvision brings the other three, which
  ``--sets cifar100 caltech101 omniglot`` measures alone.
- Runs on a CPU have one thread, and seconds are medians of processor time. Runs on a GPU have all
  threads, and seconds are by the clock.
- fastai runs ``vision_learner(...).fine_tune(20)`` in batches of 16. The script has the recipe of
  BEiT's fine-tuning at its defaults, in batches of 32 (``benchmarks/accuracy/beit_script.py``).
  AutoGluon MultiModal 1.6 needs another timm than this library, so it is missing.
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
    drawn += [
        name
        for name, figure in FIGURES.items()
        if name not in drawn
        and figure.group in drawn
        and plot_figure(figure, frame, docs / FOLDER / f"{name}.svg")
    ]
    frame.round(5).to_csv(docs / FOLDER / "runs.csv", index=False, lineterminator="\n")
    (docs / PAGE).write_text(page(lines, frame, drawn), encoding="utf-8")
    (docs / FOLDER / "goals.inc").write_text(goal_table(frame), encoding="utf-8")


def page(lines, frame, drawn=()):
    """Write the page in reStructuredText; ``drawn`` are the groups and figures with a plot."""
    measured = {name: GROUPS[name] for name in frame["group"].unique()}
    parts = [
        heading("Results", "="),
        verdict(frame) or "Nothing is measured at today's defaults yet.\n",
        ON_PAPER,
        worth_section(lines, frame, heading, table),
        comparison(frame, drawn),
        heading("All results"),
        f":download:`Every run <{FOLDER}/runs.csv>` is in one file.\n",
        folded("How it was measured", ABOUT),
        *(
            folded(group.title, section(name, group, select(frame, name), lines, drawn))
            for name, group in measured.items()
        ),
        folded("Runs, machines and commands", provenance(lines, measured)),
    ]
    return "\n".join(part for part in parts if part)


def comparison(frame, drawn):
    """Show the figures that a reader sees first, and who is how good; empty of nothing."""
    figures = [
        f"**{figure.title}** {figure.about}\n\n{picture(name, figure.title)}"
        for name, figure in FIGURES.items()
        if name in drawn
    ]
    league = select(frame, "league")
    standing = [standings(league)] if "clce" in set(league["method"]) else []
    return "\n".join([heading("Comparison with other methods"), *figures, *standing])


def folded(title, content):
    """Fold a part of the page, until a reader opens it."""
    return f".. details:: {title}\n\n{textwrap.indent(content.strip(), '   ')}"


def heading(text, line="-"):
    """Write a heading."""
    return f"{text}\n{line * len(text)}\n"


def picture(name, title):
    """Refer to a plot."""
    return f".. image:: {FOLDER}/{name}.svg\n   :alt: {title}\n   :class: dark-light\n"


def table(title, header, rows):
    """Write a table."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    content = textwrap.indent(file.getvalue(), "   ")
    return f".. csv-table:: {title}\n   :header-rows: 1\n\n{content}"


def verdict(frame):
    """Say in a few sentences what was found; of what was measured."""
    sentences = [verdict_on_league(frame), verdict_on_heads(frame), verdict_on_criterion(frame)]
    return "".join(f"- {one}\n" for one in sentences if one)


def verdict_on_league(frame):
    """Hold the default against everyone else."""
    league = select(frame, "league")
    lead = differences(league, "clce", "logistic")
    script = better_script(league)
    found = []
    if len(lead):
        (best, most), (worst, least) = best_and_worst(lead)
        found.append(
            f"**Accuracy.** With 10 images per class, ``CLCEClassifier()`` is "
            f"{above(over_sets(lead))} ``LogisticRegression()`` on features of the same backbone, "
            f"averaged over {len(by_set(lead))} data sets. The difference is largest on "
            f"{COLLECTIONS[best].title} ({most.mean:+.1f}) and smallest on "
            f"{COLLECTIONS[worst].title} ({least.mean:+.1f})."
        )
    if len(lead := differences(league, "clce", script)):
        found.append(
            f"It is {above(over_sets(lead))} {METHODS[script]} ({len(by_set(lead))} data sets)."
        )
    return " ".join(found)


def verdict_on_heads(frame):
    """Hold heads against logistic regression."""
    leads = {
        shots: differences(select(frame, "head", backbone=LITE0, shots=shots), "clce", "logistic")
        for shots in (5, 15)
    }
    found = [
        f"{above(over_sets(lead))} ``LogisticRegression()`` with {shots} images per class"
        for shots, lead in leads.items()
        if len(lead)
    ]
    return found and f'**A head.** ``trainable="head"`` is {", and ".join(found)}.'


def verdict_on_criterion(frame):
    """Hold the contrastive term, and hardness, against the same recipe without."""
    found = []
    for what, group, other in (
        ("With 10 images per class, it", "league", "ce"),
        ("In a head, it", "head", "ce"),
        ("Its hardness", "league", "supcon"),
    ):
        lead = differences(select(frame, group), "clce", other)
        if len(lead):
            mean = over_sets(lead)
            doubt = "" if mean.low > 0 else ", within the noise"
            found.append(f"{what} adds {mean:.1f} percentage points of accuracy{doubt}.")
    return found and f"**The contrastive term.** {' '.join(found)}"


def above(mean):
    """Say how far above or below another one is."""
    half = "" if mean.half != mean.half else f" ± {mean.half:.1f}"
    return f"{abs(mean.mean):.1f}{half} percentage points {'above' if mean.mean >= 0 else 'below'}"


def section(name, group, runs, lines, drawn=()):
    """Write the plot and the tables of a group."""
    folded_plots = set(drawn) - FIGURES.keys()
    parts = [f"{group.about}\n", picture(name, group.title) if name in folded_plots else ""]
    if name == "new_classes":
        parts.append(episode_table(runs))
    elif name.startswith("few_shot"):
        parts += few_shot_tables(lines, GROUPS[name], table)
    elif name == "multilabel":
        parts += multilabel_tables(runs, table, cell)
    elif name == "kinds":
        parts.append(kinds_table(runs))
    elif name == "two_backbones":
        parts.append(two_backbones_table(runs))
    elif name == "transfer":
        header = ["", *(MEASURES[name][0] for name in SHOWN)]
        parts.append(table("Means over data sets", header, transfer_rows(runs)))
    elif "clce" not in set(runs["method"]):
        parts.append(standings(runs))
    else:
        parts += [
            case_table(runs) or standings(runs),
            set_table(runs, references(runs)),
            set_table(runs, references(runs, TRAINED)),
        ]
    parts.append(f"Command: ``{COMMAND.format(name)}``\n")
    return "\n".join(part for part in parts if part)


def standings(runs):
    """Show everyone: accuracy, log-loss and cost; who lacks sets or splits is marked."""
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
                lacks.append(f"{number} split{'' if high == 1 else 's'}")
            if lacks:
                title = f"{title} ({'; '.join(lacks)})"
            rows.append([title, f"{accuracy:.1f}", f"{loss:.3f}", steps, f"{seconds:.3g}"])
    return table("Means over data sets", ["", "accuracy, %", "log-loss", "steps", "fit, s"], rows)


def case_table(runs):
    """Show the mean leads of each backbone, number of images and batch size; empty of one."""
    words = {"backbone": "{}", "shots": "{} per class", "batch_size": "batches of {}"}
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
    return table(
        "Accuracy of CLCE, and percentage points above others, means over data sets", header, rows
    )


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
    return table("CLCE minus others, percentage points per data set", header, rows)


def kinds_table(runs):
    """Show accuracy and log-loss of each kind and data set."""
    methods = [name for name in METHODS if name in set(runs["method"])]
    rows = []
    for (task, data), part in runs.groupby(["task", "data"], sort=False):
        means = part.groupby("method")[["accuracy", "log_loss"]].mean()
        cells = [
            f"{means.accuracy[name]:.1f} ({means.log_loss[name]:.2f})"
            if name in means.index
            else ""
            for name in methods
        ]
        rows.append([f"{task.replace('_', ' ')}: {COLLECTIONS[data].title}", *cells])
    return table("Accuracy, % (log-loss)", ["", *(METHODS[name] for name in methods)], rows)


def two_backbones_table(runs):
    """Show what a second backbone adds to a head on the first, by data set and on average."""
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
    title = "Percentage points above the same learner on features of the pretrained backbone"
    return table(title, ["fine-tuned with", "space", "learner", "points"], rows)


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
        table("Runs", ["group", "finished", "of"], rows),
        *(f"- {name}: {count} runs.\n" for name, count in sorted(machines.items())),
        *(f"- Failed: ``{line['error']}``\n" for line in broken.values()),
        ".. code-block:: console\n",
        '   python -m pip install -e ".[benchmarks]"',
        f"   {COMMAND.format(' '.join(on_a_cpu) or 'league')}",
        "   python -m benchmarks.accuracy report\n",
        "Finished runs are skipped. ``--plan`` prints what is missing and how long it takes.\n",
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
