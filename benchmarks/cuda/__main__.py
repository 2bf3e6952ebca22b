"""Measure everything that a CUDA device must show; ``--device cpu --quick`` tries the command."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import torch

from ..tables import goal_table, text
from . import criterion, fit, machine, marked_tests, predict, searches
from .plan import Plan, make_plan
from .report import goals, tables

SCHEMA = 1
SECTIONS: dict[str, Callable[[Plan], dict]] = {
    "tests": marked_tests.measure,
    "criterion": criterion.measure,
    "fit": fit.measure,
    "predict": predict.measure,
    "head_grid": searches.measure_head_grid,
    "two_processes": searches.measure_two_processes,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 if every section ran and no test failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller measurements")
    parser.add_argument("--json", type=Path, help="written after each section")
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error(
            f"device={str(options.device)!r}: there is no CUDA device; --device cpu --quick tries "
            "the command without one"
        )
    plan = make_plan(options.device, options.quick)
    measured = measure(plan, options.only, quick=options.quick, file=options.json)
    failed = [name for name, section in measured["sections"].items() if "error" in section]
    tests = measured["sections"].get("tests", {}).get("result", {"failed": []})
    return 1 if failed or tests["failed"] else 0


def measure(plan: Plan, sections: Iterable[str], *, quick: bool, file: Path | None) -> dict:
    """Measure sections in turn; one that fails is noted and does not stop the others."""
    measured = {
        "schema": SCHEMA,
        "date": date.today().isoformat(),
        "quick": quick,
        "device": str(plan.device),
        "machine": machine.describe(plan.device),
        "sections": {},
    }
    for name in sections:
        start = time.perf_counter()
        try:
            section = {"result": SECTIONS[name](plan)}
        except Exception as error:
            traceback.print_exc()
            section = {"error": f"{type(error).__name__}: {error}"}
        section["seconds"] = round(time.perf_counter() - start, 1)
        measured["sections"][name] = section
        show(name, section)
        if file is not None:
            file.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(text(goal_table("Goals", goals(measured))))
    return measured


def show(name: str, section: dict) -> None:
    """Print the tables of a section, without the goals."""
    print(f"== {name}: {section['seconds']} s", flush=True)
    for table in tables({"sections": {name: section}}):
        if table.title != "Goals":
            print(text(table), "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
