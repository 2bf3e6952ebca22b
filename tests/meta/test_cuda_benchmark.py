"""The benchmark of CUDA devices: run without a device, reported, packed for one."""

import json
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from docutils.core import publish_doctree
from packaging.requirements import Requirement

from benchmarks.cuda import __main__ as command
from benchmarks.cuda import marked_tests, wheels
from benchmarks.cuda.plan import BUNDLED, make_plan
from benchmarks.cuda.report import goals, page, tables
from benchmarks.cuda.synchronisation import MESSAGE, waits, waits_of_a_step
from benchmarks.tables import directive, text
from sklearn_clce import CLCEClassifier
from sklearn_clce._head.layers import Standardize

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def measured_page(monkeypatch):
    """The function of the documentation's extension that turns a folder into a page."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import measured

    return measured.cuda_section


MESSY = "1 is *not\n  2\n\n  - {'cpu'} ``"


@pytest.fixture
def example():
    """Made-up results of a GPU."""
    speed = {"backbone": "beit", "weights": "random", "precision": "bfloat16"}
    speed |= {"images_per_second": 512.0, "speed_against_loop": 0.97, "pipeline_share": 0.4}
    row = {"n": 2048, "ms": {"criterion": 2.0, "matrix": 2.0}, "peak_mib": {"criterion": 90.0}}
    row |= {"time_against": {"pytorch-metric-learning": 0.4, "bare products": 1.75}}
    row |= {"left_out": {"matrix": "out of memory"}, "synchronisations": {}}
    sections = {
        "tests": {"passed": 9, "skipped": 0, "failed": [{"test": "a::b", "message": MESSY}]},
        "criterion": {
            "width": 768,
            "rows": [row, row | {"n": 64, "time_against": {"bare products": 9.0}}],
            "blocks_from": 4096,
            "blocks_faster_at": [8192],
        },
        "fit": {
            "rows": [speed, speed | {"speed_against_loop": 0.5}],
            "synchronisations": {"all": {"net.py:1": 3.0}, "head": {}},
        },
        "predict": {"rows": [speed]},
    }
    machine = {"gpu": "a card", "gpu_gib": 80.0, "driver": "580.1", "cuda": "13.0"}
    machine |= {"cpu": "an abacus", "cores": 8, "versions": {"torch": "2.11.0"}}
    return {
        "schema": 1,
        "date": "2026-01-02",
        "quick": True,
        "machine": machine,
        "sections": {name: {"seconds": 1.0, "result": one} for name, one in sections.items()}
        | {"head_grid": {"seconds": 0.0, "error": "ValueError: no images"}},
    }


def test_goals_use_worst_row_of_large_batches(example):
    found = {goal.text: (goal.value, goal.met) for goal in goals(example)}
    assert found == {
        "tests marked cuda that fail": (1, False),
        "time of the criterion to pytorch-metric-learning, from 2,048 rows on": (0.4, True),
        "time of the criterion to bare products, from 2,048 rows on": (1.75, False),
        "synchronisations in the criterion": (0, True),
        "images per second, fit to loop": (0.5, False),
        "synchronisations in a step (all)": (3.0, False),
        "synchronisations in a step (head)": (0, True),
        "images per second, predict to loop": (0.97, True),
    }


def test_page_names_gpu_and_shows_every_section(example):
    written = page(example)
    assert "a card with 80.0 GiB, driver 580.1, CUDA 13.0" in written
    assert "on 2026-01-02 by ``python -m benchmarks.cuda --quick``" in written
    for shown in ("out of memory", "net.py:1", "ValueError: no images", "1 is *not 2 - {'cpu'} `"):
        assert shown in written
    assert read(written).count("<table") == len(list(tables(example)))


def read(written):
    """Parse a page as Sphinx does, with warnings as errors."""
    document = str(publish_doctree(written, settings_overrides={"warning_stream": False}))
    assert "system_message" not in document
    return document


def test_table_prints_in_terminal_and_page(example):
    goal_table = next(iter(tables(example)))
    assert len({len(line) for line in text(goal_table).splitlines()[1:]}) == 1
    assert 'bare products, from 2,048 rows on",1.75,at most 1.5,missed' in directive(goal_table)


def test_page_without_measurement_is_one_line(measured_page, tmp_path):
    assert measured_page(tmp_path).startswith("Not measured yet: ``python -m")
    assert measured_page(tmp_path).count("\n") == 1


def test_committed_results_are_on_the_page(measured_page):
    folder = ROOT / "benchmarks" / "results"
    text = measured_page(folder)
    read(text)
    for file in folder.glob("cuda*.json"):
        assert json.loads(file.read_text())["machine"]["gpu"] in text


def test_failed_section_does_not_stop_others(monkeypatch, measured_page, tmp_path, capsys):
    plan = replace(make_plan(CPU, quick=True), criterion_sizes=(8, 16))
    monkeypatch.setitem(command.SECTIONS, "head_grid", lambda plan: {}["grid"])
    file = tmp_path / "cuda.json"
    measured = command.measure(plan, ["head_grid", "criterion"], quick=True, file=file)
    assert json.loads(file.read_text()) == measured
    sections = measured["sections"]
    assert sections["head_grid"]["error"] == "KeyError: 'grid'"
    first, second = sections["criterion"]["result"]["rows"]
    assert (first["n"], second["n"]) == (8, 16)
    assert second["peak_mib"]["matrix"] > first["peak_mib"]["matrix"] > 0
    assert set(first["ms"]) == {
        "criterion",
        "criterion, positives='mean'",
        "matrix",
        "blocks",
        "pytorch-metric-learning",
        "bare products",
    }
    assert "Criterion: peak memory of a step, MiB" in measured_page(tmp_path)
    assert "KeyError" in capsys.readouterr().err


def test_command_without_device_names_cpu_option(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        command.main([])
    assert "device='cuda': there is no CUDA device; --device cpu --quick" in capsys.readouterr().err


@pytest.mark.slow
def test_command_runs_on_cpu(measured_page, tmp_path):
    file = tmp_path / "cuda.json"
    assert command.main(["--device", "cpu", "--quick", "--json", str(file)]) == 0
    sections = json.loads(file.read_text())["sections"]
    assert list(sections) == list(command.SECTIONS)
    assert sections["tests"]["result"]["skipped"] > 5
    fits = sections["fit"]["result"]["rows"]
    assert [row["backbone"] for row in fits] == [BUNDLED, "beit"]
    assert [row["weights"] for row in fits] == ["bundled", "random"]
    assert all(0 < row["pipeline_share"] < 1 for row in fits)
    assert sections["two_processes"]["result"]["largest_difference"] == 0
    assert "A search with two processes" in measured_page(tmp_path)


@pytest.fixture
def modes(monkeypatch):
    """The modes that torch's debugging of synchronisations is set to."""
    modes = ["default"]
    monkeypatch.setattr("torch.cuda.set_sync_debug_mode", modes.append)
    return modes


def wait(modes):
    if modes[-1] == "warn":
        warnings.warn(MESSAGE, stacklevel=2)


def test_waits_are_counted_by_source_line(modes):
    def work():
        wait(modes)
        for _ in range(3):
            wait(modes)

    assert sorted(waits(work).values()) == [1, 3]
    assert all(place.startswith("meta/test_cuda_benchmark.py:") for place in waits(work))
    assert modes[-1] == "default"


def test_waits_are_counted_within_steps(modes, monkeypatch):
    transform = Standardize.forward

    def waiting(self, features):
        wait(modes)
        return transform(self, features)

    def fit(steps):
        X = np.random.default_rng(0).normal(size=(12, 3))
        CLCEClassifier(
            "precomputed", batch_size=4, max_epochs=2, sampler="shuffle", callbacks=[steps]
        ).fit(X, np.arange(12) % 2)

    monkeypatch.setattr(Standardize, "forward", waiting)  # also before and after training
    assert list(waits_of_a_step(fit).values()) == [1]
    assert modes[-1] == "default"


def test_failed_fit_resets_sync_debug_mode(modes):
    with pytest.raises(ZeroDivisionError):
        waits(lambda: 1 / 0)
    assert modes == ["default", "warn", "default"]


def test_outcomes_of_marked_tests_are_counted():
    cases = ElementTree.fromstring(
        "<suite><testcase classname='a' name='b'/><testcase name='c'><skipped/></testcase>"
        "<testcase classname='d' name='e'><failure message='no'/></testcase></suite>"
    )
    failed = [{"test": "d::e", "message": "no"}]
    assert marked_tests.outcomes(list(cases)) == {"passed": 1, "skipped": 1, "failed": failed}


@pytest.fixture
def index(monkeypatch):
    """A package index with requirements; returns the names fetched from it."""
    packages = {"skorch": ["numpy", "tqdm>=4"], "tqdm": ["colorama; sys_platform == 'win32'"]}
    fetched = []

    def download(requirements, folder):
        for one in requirements:
            fetched.append(one.name)
            with zipfile.ZipFile(folder / f"{one.name}-1.0-py3-none-any.whl", "w") as archive:
                needs = "".join(f"Requires-Dist: {need}\n" for need in packages.get(one.name, []))
                archive.writestr(f"{one.name}-1.0.dist-info/METADATA", f"Name: x\n{needs}\n")
                archive.writestr("weights", bytes(2**20))
                archive.writestr("copied/other-1.0.dist-info/METADATA", "Name: other\n")

    monkeypatch.setattr(wheels, "build", lambda folder: download([Requirement("ours")], folder))
    monkeypatch.setattr(wheels, "download", download)
    monkeypatch.setattr(wheels, "roots", lambda: [Requirement("skorch>=1"), Requirement("torch")])
    return fetched


def test_wheels_are_those_missing_on_the_machine(index, tmp_path, capsys):
    wheels.main([str(tmp_path / "wheels"), "--has", "torch", "numpy"])
    assert index == ["ours", "skorch", "tqdm"]
    assert len(list((tmp_path / "wheels").glob("*.whl"))) == 3
    with pytest.raises(SystemExit):
        wheels.main([str(tmp_path / "wheels")])
    assert "the folder is not empty; choose another one" in capsys.readouterr().err


def test_wheels_beyond_limit_are_rejected(index, tmp_path):
    with pytest.raises(SystemExit, match=r"MiB are more than --limit 0.001: name more"):
        wheels.main([str(tmp_path / "wheels"), "--limit", "0.001"])
    assert not (tmp_path / "wheels").exists()


def test_wheels_cover_imports_of_marked_tests():
    names = {one.name for one in wheels.roots()}
    assert "fastai" not in names  # which only the accuracy benchmark uses
    names |= set(wheels.HAS) | {"packaging"}
    of_import = {"PIL": "pillow", "sklearn": "scikit-learn"}
    here = {path.stem for path in (ROOT / "tests" / "helpers").glob("*.py")}
    ours = here | {"benchmarks", "sklearn_clce"} | sys.stdlib_module_names
    assert len(marked_tests.files()) > 4
    for path in marked_tests.files():
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        imported = {line[1].split(".")[0] for line in lines if line[:1] in (["import"], ["from"])}
        assert {of_import.get(name, name) for name in imported - ours} <= names, path.name
