"""The performance page shows ratios from the files that the benchmarks wrote."""

import json
from pathlib import Path

import pytest
from docutils.core import publish_doctree

from benchmarks import record as recording
from benchmarks.ratios import RATIOS, page

ROOT = Path(__file__).parents[2]
MACHINE = {"cpu": "an abacus", "cores": 2}


def recorded(name, result, folder):
    content = {"command": f"python benchmarks/{name}.py", "date": "2026-01-02", "machine": MACHINE}
    content |= {"load": 0.5, "versions": {"torch": "2.6"}, "result": result}
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_page_shows_only_measured_ratios(tmp_path):
    assert page(tmp_path).startswith("Not measured yet: ``python -m benchmarks.record")
    recorded("import_time", {"ratio": 1.3, "goal": 1.2}, tmp_path)
    written = page(tmp_path)
    assert '``import torch, sklearn, skorch``",1.3,at most 1.2,missed' in written
    assert '``python benchmarks/import_time.py``,2026-01-02,"an abacus, 2 cores",0.5,2.6' in written
    assert "hand-written loop" not in written
    document = publish_doctree(written, settings_overrides={"report_level": 5})
    assert "system_message" not in str(document)


def test_loss_ratios_are_shown_by_batch_size(tmp_path):
    ratios = {"time_to_metric_learning": 0.5, "time_to_products": 2.0}
    sizes = [
        {"n": n, "ratios": {"hardness=1": ratios}, "goals": {**goals, "time_to_products": None}}
        for n, goals in ((64, {"time_to_metric_learning": 0.6}), (512, {}))
    ]
    recorded("loss_speed", {"results": sizes}, tmp_path)
    written = page(tmp_path)
    assert "pytorch-metric-learning's, 64 rows\",0.5,at most 0.6,met" in written
    assert "512 rows" not in written


def test_loading_ratios_are_shown_by_epoch_and_workers(tmp_path):
    speeds = {"first": {"ratio": 1.6, "goal": 1.5}, "later": {"ratio": 7.0, "goal": 8.0}}
    recorded("pipeline", {"workers=0": speeds, "photos": 300, "load": 0.1}, tmp_path)
    written = page(tmp_path)
    assert 'torchvision loop, first epoch, 0 workers",1.6,at least 1.5,met' in written
    assert 'later epochs, 0 workers",7,at least 8,missed' in written


def test_committed_ratios_are_shown():
    folder = ROOT / "benchmarks" / "results"
    written = page(folder)
    modules = {name: (f"benchmarks/{name}.py", f"-m benchmarks.{name}") for name in RATIOS}
    shown = [name for name in RATIOS if any(command in written for command in modules[name])]
    assert shown == [name for name in RATIOS if (folder / f"{name}.json").exists()]


@pytest.mark.slow
def test_benchmark_is_recorded(tmp_path):
    file = recording.record("import_time", "--runs", "1", folder=tmp_path)
    assert json.loads(file.read_text())["command"] == "python benchmarks/import_time.py --runs 1"
    assert "import_time.py --runs 1" in page(tmp_path)
