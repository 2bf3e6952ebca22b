"""Sphinx extension: what the performance page shows, from the JSON that the benchmarks wrote."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def cuda_section(folder):
    """Return what is known of CUDA devices, a file of each, and one line where there is none."""
    from benchmarks.cuda.report import COMMAND, page

    files = sorted(folder.glob("cuda*.json"))
    if not files:
        return f"Not measured yet: ``{COMMAND} --json benchmarks/results/cuda.json`` does it.\n"
    return "\n".join(page(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def ratios_section(folder):
    """Return the ratios that were measured on processors."""
    from benchmarks.ratios import page

    return page(folder)


def write(app):
    target = Path(app.srcdir) / "generated"
    target.mkdir(exist_ok=True)
    (target / "cuda.inc").write_text(cuda_section(RESULTS), encoding="utf-8")
    (target / "ratios.inc").write_text(ratios_section(RESULTS), encoding="utf-8")


def setup(app):
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
