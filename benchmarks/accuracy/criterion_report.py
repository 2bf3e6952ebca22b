"""Tables of the criteria: few-shot as the paper prints it, and where the term is worth it."""

import numpy as np

from .configuration import CRITERIA, RECIPE_OF_AUTHORS
from .few_shot import SHOTS
from .frames import METHODS, differences, estimate, over_sets, select
from .groups import GROUPS, SETS
from .pictures import COLLECTIONS
from .results import finished

# What the measurements say about the claims of the paper: paragraphs for the top of the page.
ON_PAPER = """
**The paper's claims.**

- It holds here that features trained with CLCE classify new classes better than those of
  cross-entropy: on CIFAR-FS, with one image of each class.
- These do not hold here: a clear gain with five images or on FC100, a gain in accuracy after
  fine-tuning on ten images per class, and a larger gain in small batches.
- These could not be tried without a GPU: the paper's backbone, its full data sets, and its 50 to
  100 epochs. :ref:`The recipe <paper-recipe>` is there for those who can.

"""
TERMS = ("each_5", "mean_9", "supcon_9", "each_9")  # that the table on top compares
CELLS = [(space, k_shot) for space in ("features", "embedding") for k_shot in SHOTS]
SPACES = {"features": "features", "embedding": "embeddings (minus features)"}
HEADER = [f"{space}, {k_shot}-shot" for space, k_shot in CELLS]
MEASURES = {  # of the transfer group: in words, and how it is written
    "accuracy": ("accuracy, points", ".1f"),
    "log_loss": ("log-loss", ".3f"),
    "recall_at_1": ("recall@1 of embeddings, points", ".1f"),
    "mean_average_precision": ("mean average precision of embeddings, points", ".1f"),
    "corrupted": ("accuracy on corrupted images, points", ".1f"),
}
OF_HEADS = {
    "accuracy": ("a head: accuracy, points", ".1f"),
    "log_loss": ("a head: log-loss", ".3f"),
    "recall_at_1": ("a head: recall@1 of embeddings, points", ".1f"),
}
SHOWN = [name for name in MEASURES if name != "recall_at_1"]  # five columns fit a page


ABOUT_WORTH = """
Bold differences are beyond their 95 % interval. For the log-loss, lower is better.

"""


def episode_parts(lines, data, group=GROUPS["few_shot"]):
    """Collect the means of parts of the episodes: method -> cell -> seed -> (n_parts,) in %."""
    done = finished(lines)
    found = {}
    for run in group.runs():
        if run.data == data and run.key in done:
            for name, parts in done[run.key]["episodes"].items():
                by_seed = found.setdefault(run.method, {}).setdefault(name, {})
                by_seed[run.seed] = 100 * np.array(parts)
    return found


def part_differences(parts, one, other, name, name_of_other=None):
    """Subtract one method from another, paired by part and by seed: mean over seeds, (n_parts,)."""
    left = parts.get(one, {}).get(name, {})
    right = parts.get(other, {}).get(name_of_other or name, {})
    seeds = sorted(left.keys() & right.keys())
    return np.mean([left[seed] - right[seed] for seed in seeds], axis=0) if seeds else None


def few_shot_rows(parts):
    """Write accuracy with its interval over episodes, a row for each method that was measured."""
    rows = []
    for method in ("logistic", *CRITERIA, *RECIPE_OF_AUTHORS):
        if method in parts:
            cells = (parts[method].get(f"{space}_{k}_shot") for space, k in CELLS)
            rows.append([title_of(method), *map(mean_cell, cells)])
    return rows


def mean_cell(by_seed):
    """Write a mean over seeds and episodes, with half its 95 % interval over episodes."""
    if not by_seed:
        return ""
    found = estimate(np.mean(list(by_seed.values()), axis=0))
    return f"{found.mean:.1f} ± {found.half:.1f}"


def lead_rows(parts):
    """Write how far each criterion is ahead of cross-entropy, paired by episodes."""
    rows = []
    for method in CRITERIA:
        if method != "ce":
            found = [
                part_differences(parts, method, "ce", f"{space}_{k}_shot", f"features_{k}_shot")
                for space, k in CELLS
            ]
            if any(one is not None for one in found):
                cells = ["" if one is None else bold(estimate(one)) for one in found]
                rows.append([title_of(method), *cells])
    return rows


def bold(found):
    """Write an estimate; one whose interval leaves 0 out is bold."""
    return f"**{found}**" if found.low * found.high > 0 else str(found)


def title_of(method):
    """Name a method; the frozen backbone has no criterion."""
    return "frozen backbone" if method == "logistic" else METHODS[method]


def few_shot_tables(lines, group, table):
    """Write the tables of both few-shot benchmarks on the backbone of a group."""
    texts = []
    for data in ("cifar_fs", "fc100"):
        parts = episode_parts(lines, data, group)
        name = COLLECTIONS[data].title
        if parts:
            texts.append(table(f"{name}: accuracy, %", ["", *HEADER], few_shot_rows(parts)))
        if rows := lead_rows(parts):
            title = f"{name}: percentage points above features of cross-entropy"
            texts.append(table(title, ["", *HEADER], rows))
    return texts


def with_corrupted(runs):
    """Add the mean accuracy over all corruptions."""
    names = [name for name in runs.columns if name.endswith("_accuracy") and "mean" not in name]
    return runs.assign(corrupted=runs[names].mean(axis=1))


def transfer_rows(runs):
    """Write the mean of each measure over sets, a row for each criterion."""
    runs = with_corrupted(runs)
    means = runs.groupby(["method", "data"])[list(MEASURES)].mean().groupby("method").mean()
    return [
        [METHODS[method], *(f"{means.loc[method, name]:{MEASURES[name][1]}}" for name in SHOWN)]
        for method in CRITERIA
        if method in means.index
    ]


def worth_rows(lines, frame):
    """Write what each term is worth beside cross-entropy: a row for each use."""
    rows = [
        [f"{what}{on_few_sets(runs)}", *(set_cell(runs, term, name, spec) for term in TERMS)]
        for runs, measures in (
            (with_corrupted(select(frame, "transfer")), MEASURES),
            (select(frame, "head_criteria"), OF_HEADS),
        )
        for name, (what, spec) in measures.items()
        if name in runs
    ]
    for data in ("cifar_fs", "fc100"):
        parts = episode_parts(lines, data)
        for space, k_shot in CELLS:
            found = [
                part_differences(
                    parts, term, "ce", f"{space}_{k_shot}_shot", f"features_{k_shot}_shot"
                )
                for term in TERMS
            ]
            cells = ["" if one is None else bold(estimate(one)) for one in found]
            rows.append(
                [f"{COLLECTIONS[data].title}, {k_shot}-shot, {SPACES[space]}, points", *cells]
            )
    return [row for row in rows if any(row[1:])]


def on_few_sets(runs):
    """Say on how many sets runs were made, unless it was on all."""
    n_sets = runs["data"].nunique()
    return "" if n_sets in (0, len(SETS)) else f" ({n_sets} of {len(SETS)} sets)"


def set_cell(runs, term, measure, spec):
    """Write how far a term is ahead of cross-entropy, in the mean over sets."""
    mean = over_sets(differences(runs, term, "ce", measure))
    if mean is None:
        return ""
    return f"**{mean:{spec}}**" if mean.low * mean.high > 0 else f"{mean:{spec}}"


def worth_section(lines, frame, heading, table):
    """Write the table by which a user decides whether to set ``weight=0``; empty of nothing."""
    rows = worth_rows(lines, frame)
    shown = [i for i in range(len(TERMS)) if any(cells[i] for _, *cells in rows)]
    header = ["", *(METHODS[TERMS[i]] for i in shown)]
    title = "Each criterion minus cross-entropy alone (weight=0)"
    found = [[what, *(cells[i] for i in shown)] for what, *cells in rows]
    return f"{heading('Where CLCE is worth it')}{ABOUT_WORTH}{table(title, header, found)}" * bool(
        found
    )
