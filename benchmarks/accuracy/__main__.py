"""The command: ``run`` measures what is missing, ``report`` writes the page of results."""

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from .configuration import from_record
from .groups import GROUPS
from .results import append, failed, finished, read_lines
from .sources import VARIABLE

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "accuracy.jsonl"
OF_CRITERION = ("method", "weight", "temperature", "hardness", "learning_rate", "seed")


def main(arguments=None):
    """Run the command.

    Parameters
    ----------
    arguments : list of str, default=None
        Those of the command line.
    """
    options = make_parser().parse_args(arguments)
    options.action(options)


def make_parser():
    """Make the parser of the command line.

    Returns
    -------
    ArgumentParser
        With the actions ``run`` and ``report``.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="file of results (JSON lines)"
    )
    actions = parser.add_subparsers(required=True)
    run = actions.add_parser("run", help="measure what is not measured yet")
    run.set_defaults(action=run_missing)
    run.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    run.add_argument("--jobs", type=int, default=1, help="runs at a time, then of one thread each")
    run.add_argument("--dry-run", action="store_true", help="say what is missing, and how long")
    run.add_argument("--data", help=f"folder of the npz files of pictures; default: ${VARIABLE}")
    run.add_argument("--weights", help="folder of weights; default: timm's own sources")
    run.add_argument("--device", default="auto")
    report = actions.add_parser("report", help="write the page of results and its plots")
    report.set_defaults(action=report_all)
    report.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder to write to")
    return parser


def run_missing(options):
    """Measure the configurations that have no finished line.

    Parameters
    ----------
    options : Namespace
        Of the command line.
    """
    lines = read_lines(options.results)
    done = finished(lines)
    wanted = dict.fromkeys(c for name in options.groups for c in GROUPS[name].configurations)
    missing = sorted((c for c in wanted if c.key not in done), key=lambda c: c.seed)
    for name in options.groups:
        print(describe(name, lines))
    seconds, unknown = estimate(missing, lines)
    print(
        f"{len(missing)} runs remain: {len(missing) - unknown} of them take about "
        f"{duration(seconds / options.jobs)} with --jobs {options.jobs}; of {unknown} nothing "
        "like it is finished"
    )
    if not options.dry_run and missing:
        measure_missing(missing, options)


def measure_missing(missing, options):
    """Do runs and write their lines.

    Parameters
    ----------
    missing : list of Configuration
        What to run.
    options : Namespace
        Of the command line.
    """
    from sklearn_clce._validation import resolve_device

    from .measure import Surroundings
    from .processes import measure_all

    if options.jobs > 1 and resolve_device(options.device).type == "cuda":
        raise SystemExit(f"--jobs {options.jobs}: one process computes on a GPU, so --jobs 1")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as features:
        surroundings = Surroundings(
            data=options.data,
            weights=options.weights,
            features=features,
            device=options.device,
            threads=1 if options.jobs > 1 else None,
        )
        for number, line in enumerate(measure_all(missing, surroundings, options.jobs), start=1):
            append(options.results, line)
            print(
                f"[{number}/{len(missing)}, {duration(time.monotonic() - start)}]",
                told(line),
                flush=True,
            )


def report_all(options):
    """Write the page of results.

    Parameters
    ----------
    options : Namespace
        Of the command line.
    """
    from .report import PAGE, write_report

    write_report(read_lines(options.results), options.docs)
    print(f"wrote {options.docs / PAGE}")


def told(line):
    """Say what came out of a run.

    Parameters
    ----------
    line : dict
        Its line.

    Returns
    -------
    str
        One row of text.
    """
    run = from_record(line["configuration"])
    name = (
        f"{run.data} {run.backbone} {run.method} shots={run.shots} batch_size={run.batch_size} "
        f"max_epochs={run.max_epochs} learning_rate={run.learning_rate} seed={run.seed}"
    )
    if "error" in line:
        return f"{name}: failed, {line['error']}"
    metrics = ", ".join(f"{key} {value:.3f}" for key, value in line["metrics"].items())
    return f"{name}: {metrics} ({line['seconds']:.1f} s)"


def describe(name, lines):
    """Say how far a group is.

    Parameters
    ----------
    name : str
        The group.
    lines : list of dict
        Lines of results.

    Returns
    -------
    str
        One row of text.
    """
    runs = GROUPS[name].configurations
    done, broken = finished(lines), failed(lines)
    missing = [one for one in runs if one.key not in done]
    n_broken = sum(one.key in broken for one in missing)
    seconds, unknown = estimate(missing, lines)
    return (
        f"{name:<12} {len(runs) - len(missing):5} of {len(runs):5} finished, {n_broken} failed "
        f"before; {duration(seconds)} of one process left, and {unknown} runs without estimate"
    )


def estimate(missing, lines):
    """Estimate the time of runs from finished ones that cost the same.

    Parameters
    ----------
    missing : list of Configuration
        The runs.
    lines : list of dict
        Lines of results.

    Returns
    -------
    seconds : float
        Sum over those runs that something finished is like.
    unknown : int
        Number of the others.
    """
    known = {}
    for line in finished(lines).values():
        run = from_record(line["configuration"])
        known.setdefault(cost_of(run), []).append(line["seconds"])
    medians = {cost: statistics.median(seconds) for cost, seconds in known.items()}
    costs = [cost_of(one) for one in missing]
    return sum(medians.get(cost, 0.0) for cost in costs), sum(cost not in medians for cost in costs)


def cost_of(run):
    """Return what of a configuration its time depends on.

    Parameters
    ----------
    run : Configuration
        The run.

    Returns
    -------
    tuple
        The same for runs that take the same time.
    """
    settings = [value for name, value in asdict(run).items() if name not in OF_CRITERION]
    return (run.method == "logistic", *settings)


def duration(seconds):
    """Write a time in hours and minutes.

    Parameters
    ----------
    seconds : float
        The time.

    Returns
    -------
    str
        Such as "2 h 05 min".
    """
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


if __name__ == "__main__":
    main()
