"""Time ``import sklearn_clce`` against ``import torch, sklearn, skorch``.

Each is a fresh interpreter; the two take turns, and the ratio is that of the medians.
The goal is a ratio of at most 1.2. Run ``python benchmarks/import_time.py [--json]``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

IMPORTS = {"sklearn_clce": "import sklearn_clce", "base": "import torch, sklearn, skorch"}


def seconds(statement):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    timings = {name: [] for name in IMPORTS}
    for run in range(options.runs + 1):
        for name, statement in IMPORTS.items():
            elapsed = seconds(statement)
            if run:  # the first warms the disk cache
                timings[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in timings.items()}
    ratio = medians["sklearn_clce"] / medians["base"]
    if options.json:
        print(json.dumps({"seconds": medians, "ratio": ratio, "goal": 1.2}))
    else:
        for name, median in medians.items():
            print(f"{IMPORTS[name]:<32} {median:6.2f} s")
        print(f"ratio {ratio:.2f} (goal: at most 1.20)")


if __name__ == "__main__":
    main()
