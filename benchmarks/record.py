"""Run a benchmark and keep what it prints, for the performance page.

Run ``python -m benchmarks.record NAME [ARGUMENT ...]``, such as ``record loss_speed --rounds 3``.
What ``python benchmarks/NAME.py ARGUMENT ... --json`` prints goes to
``benchmarks/results/NAME.json``, with the date, the machine, its load before, and the versions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def record(name: str, *arguments: str, folder: Path = RESULTS) -> Path:
    """Run a benchmark; return the file of its result."""
    from .accuracy.measure import machine, versions
    from .accuracy.models import Surroundings

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    command = [f"benchmarks/{name}.py", *arguments, "--json"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    recorded = {
        "command": " ".join(["python", *command[:-1]]),
        "date": date.today().isoformat(),
        "machine": machine(Surroundings(device="cpu")),
        "load": load,
        "versions": versions(),
        "result": json.loads(run.stdout.splitlines()[-1]),
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    return file


if __name__ == "__main__":
    print(record(*sys.argv[1:]))
