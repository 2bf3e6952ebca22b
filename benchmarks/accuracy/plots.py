"""Plots of the page of results, as SVG files that are the same for the same lines."""

from .comparison import difference
from .tables import METHODS, POINTS, case_cells

COLOURS = {"ce": "#555555", "supcon": "#1b7fb5", "clce": "#d1541f"}
LEGENDS = {
    "ce": "cross-entropy (CE)",
    "supcon": "CE + supervised contrastive term (SupCon)",
    "clce": "CLCE: the same, hard negatives weighted",
}
LEGEND = {"ncols": 1, "frameon": False}  # above, where it covers nothing
STYLE = {"svg.hashsalt": "sklearn-clce", "svg.fonttype": "none", "font.size": 9}


def save(figure, path):
    """Write a figure without the date, so that nothing but the numbers changes it."""
    figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")


def plot_differences(plain, path):
    """Draw differences to cross-entropy with their intervals, one row for each case.

    Parameters
    ----------
    plain : dict of Case to dict of str to Entry
        See :func:`~.tables.plain_entries`.
    path : path
        File to write.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 1.2 + 0.45 * len(plain)))
        axes = figure.subplots()
        for shift, method in ((-0.12, "supcon"), (0.12, "clce")):
            rows, estimates = [], []
            for row, methods in enumerate(plain.values()):
                estimate = method in methods and difference(methods[method], methods["ce"])
                if estimate:
                    rows.append(row + shift)
                    estimates.append(estimate)
            if not estimates:
                continue
            axes.errorbar(
                [one.mean * POINTS for one in estimates],
                rows,
                xerr=[one.half * POINTS for one in estimates],
                fmt="o",
                capsize=3,
                color=COLOURS[method],
                label=LEGENDS[method],
            )
        axes.axvline(0, color=COLOURS["ce"], linewidth=1)
        names = [", ".join(case_cells(case)[:3]) for case in plain]
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(
            "accuracy minus that of CE, points, 95 % interval over seeds; right of 0 is better"
        )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), **LEGEND)
        save(figure, path)


def plot_batch_sizes(plain, path):
    """Draw accuracy and memory by batch size, one column for each data set.

    Parameters
    ----------
    plain : dict of Case to dict of str to Entry
        See :func:`~.tables.plain_entries`.
    path : path
        File to write.
    """
    import matplotlib
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(case._replace(batch_size=None) for case in plain))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4 * len(cases), 5.5))
        panels = figure.subplots(2, len(cases), squeeze=False, sharex=True)
        for column, pictures in enumerate(cases):
            for method in METHODS:
                series = [
                    (case.batch_size, methods[method])
                    for case, methods in sorted(plain.items(), key=lambda pair: pair[0].batch_size)
                    if case._replace(batch_size=None) == pictures and method in methods
                ]
                _draw_series(panels[:, column], series, method)
            panels[0, column].set_title(case_cells(pictures)[0])
            panels[1, column].set_xlabel("batch size")
        panels[0, 0].set_ylabel("accuracy, per cent, 95 % interval")
        panels[1, 0].set_ylabel("memory of the fit, MiB")
        panels[0, 0].legend(loc="lower left", bbox_to_anchor=(0, 1.1), **LEGEND)
        save(figure, path)


def _draw_series(panels, series, method):
    sizes = [size for size, _ in series]
    means = [entry.mean() for _, entry in series]
    style = {"color": COLOURS[method], "label": LEGENDS[method], "marker": "o"}
    shift = 1 + 0.06 * (METHODS.index(method) - 1)  # so that intervals do not cover each other
    panels[0].errorbar(
        [size * shift for size in sizes],
        [one.mean * POINTS for one in means],
        yerr=[one.half * POINTS for one in means],
        capsize=3,
        **style,
    )
    known = [(size, entry.cost("fit_memory")) for size, entry in series]
    known = [(size, memory) for size, memory in known if memory is not None]
    panels[1].plot([size for size, _ in known], [memory for _, memory in known], **style)
    for panel in panels:
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, sizes)
