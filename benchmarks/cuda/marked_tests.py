"""The tests that need a CUDA device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from .plan import Plan

MARK = re.compile(r"^ *@pytest\.mark\.cuda$", re.MULTILINE)
BAD = ("failure", "error")  # tags of JUnit's XML
# of settings that want what the machine may lack, or that packages of its own fall foul of
FREE = ("-o", "addopts=", "-o", "filterwarnings=default")
ROOT = Path(__file__).parents[2]


def files() -> list[Path]:
    """Find the files that have such tests; others may need packages that are not there."""
    return [p for p in sorted(ROOT.glob("tests/*/test_*.py")) if MARK.search(p.read_text("utf-8"))]


def measure(plan: Plan) -> dict:
    """Run the tests marked ``cuda``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
        command += [*FREE, *map(str, files())]
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if plan.device.type == "cpu" else {}
        result = subprocess.run(
            [*command, f"--junit-xml={report}"],
            cwd=ROOT,
            env=os.environ | hidden,
            capture_output=True,
            text=True,
        )
        if not report.exists():
            raise RuntimeError(f"pytest did not run: {(result.stdout + result.stderr)[-2000:]}")
        return outcomes(list(ElementTree.parse(report).iter("testcase")))


def outcomes(cases: list[ElementTree.Element]) -> dict:
    """Count what passed and was skipped, and keep the names and messages of what failed."""
    failed = []
    for case in cases:
        messages = [found.get("message", "") for tag in BAD for found in case.findall(tag)]
        if messages:
            name = f"{case.get('classname')}::{case.get('name')}"
            failed.append({"test": name, "message": messages[0][:500]})
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - skipped - len(failed), "skipped": skipped, "failed": failed}
