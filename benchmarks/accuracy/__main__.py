"""The command: ``run`` measures what is missing, ``report`` writes the page of results."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from .configuration import FROZEN, OURS, TRAINED, VOTE, from_record
from .groups import GROUPS
from .pictures import COLLECTIONS
from .results import append, failed, finished, read_lines
from .sources import VARIABLE

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "accuracy.jsonl"


def main(arguments=None):
    """Run the command with its arguments; None: those of the command line."""
    options = make_parser().parse_args(arguments)
    options.action(options)


def make_parser():
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="file of results (JSON lines)"
    )
    actions = parser.add_subparsers(required=True)
    run = actions.add_parser("run", help="measure what is not measured yet")
    run.set_defaults(action=run_missing)
    usual = [name for name, group in GROUPS.items() if not group.needs_gpu]
    run.add_argument("--groups", nargs="+", choices=GROUPS, default=usual)
    run.add_argument("--draws", type=int, help="of classes and images; default: the group's own")
    run.add_argument("--sets", nargs="+", choices=COLLECTIONS, help="of pictures; default: all")
    run.add_argument("--methods", nargs="+", choices=[*OURS, VOTE, *FROZEN, *TRAINED])
    run.add_argument("--jobs", type=int, default=1, help="runs at a time")
    run.add_argument("--threads", type=int, default=1, help="of each run; 0: torch's own number")
    run.add_argument(
        "--plan", "--dry-run", action="store_true", help="say what is missing, and how long"
    )
    run.add_argument("--data", help=f"folder of the npz files of pictures; default: ${VARIABLE}")
    run.add_argument("--weights", help="folder of weights; default: timm's own sources")
    run.add_argument("--device", default="auto")
    report = actions.add_parser("report", help="write the page of results and its plots")
    report.set_defaults(action=report_all)
    report.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder to write to")
    return parser


def run_missing(options):
    """Measure the configurations that have no finished line, group by group and draw by draw."""
    lines = read_lines(options.results)
    done = finished(lines)
    wanted = {name: chosen_runs(GROUPS[name], options) for name in options.groups}
    for name, runs in wanted.items():
        print(describe(name, runs, lines))
    runs = dict.fromkeys(one for of_group in wanted.values() for one in of_group)
    missing = [one for one in runs if one.key not in done]
    seconds, unknown = estimate(missing, lines)
    print(
        f"{len(missing)} runs remain: {len(missing) - unknown} of them take about "
        f"{duration(seconds / options.jobs)} with --jobs {options.jobs}; of {unknown} nothing "
        "like it is finished"
    )
    if not options.plan and missing:
        measure_missing(missing, options)


def chosen_runs(group, options):
    """Return the runs of a group that were asked for."""
    return [
        one
        for one in group.runs(options.draws)
        if (not options.sets or one.data in options.sets)
        and (not options.methods or one.method in options.methods)
    ]


def measure_missing(missing, options):
    """Do runs and write their lines."""
    from sklearn_clce._system import resolve_device

    from .models import Surroundings
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
            threads=options.threads or None,
        )
        for number, line in enumerate(measure_all(missing, surroundings, options.jobs), start=1):
            append(options.results, line)
            print(
                f"[{number}/{len(missing)}, {duration(time.monotonic() - start)}]",
                told(line),
                flush=True,
            )


def report_all(options):
    """Write the page of results."""
    from .report import PAGE, write_report

    write_report(read_lines(options.results), options.docs)
    print(f"wrote {options.docs / PAGE}")


def told(line):
    """Say in one row what came out of a run."""
    run = from_record(line["configuration"])
    changed = "".join(f" {name}={value}" for name, value in run.parameters)
    name = (
        f"{run.data} {run.backbone} {run.task} {run.method}{changed} shots={run.shots} "
        f"seed={run.seed}"
    )
    if "error" in line:
        return f"{name}: failed, {line['error']}"
    metrics = ", ".join(f"{key} {value:.3f}" for key, value in line["metrics"].items())
    return f"{name}: {metrics} ({line['seconds']:.1f} s)"


def describe(name, runs, lines):
    """Say in one row how far the runs of a group are."""
    done, broken = finished(lines), failed(lines)
    missing = [one for one in runs if one.key not in done]
    n_broken = sum(one.key in broken for one in missing)
    seconds, unknown = estimate(missing, lines)
    return (
        f"{name:<12} {len(runs) - len(missing):5} of {len(runs):5} finished, {n_broken} failed "
        f"before; {duration(seconds)} of one process left, and {unknown} runs without estimate"
    )


def estimate(missing, lines):
    """Estimate the seconds of runs from finished ones, and count those that nothing is like.

    Runs of the same method, and backbone at the same size, take as long as they have training
    images, more or less.
    """
    known = {}
    for line in finished(lines).values():
        run = from_record(line["configuration"])
        known.setdefault(cost_of(run), []).append(line["seconds"] / images_of(run))
    an_image = {cost: statistics.median(seconds) for cost, seconds in known.items()}
    seconds = [an_image.get(cost_of(one), 0.0) * images_of(one) for one in missing]
    return sum(seconds), sum(cost_of(one) not in an_image for one in missing)


def cost_of(run):
    """Return what of a configuration the time of an image depends on."""
    return run.task, run.backbone, run.image_size, run.method, run.parameters


def images_of(run):
    """Return the number of training images."""
    return run.n_classes * run.shots


def duration(seconds):
    """Write a time in hours and minutes, such as "2 h 05 min"."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


if __name__ == "__main__":
    main()
