"""The tables in the guide match the committed measurements."""

import json
from pathlib import Path

import pytest

from benchmarks import backbones, fit_time
from sklearn_clce import backbone_aliases

TABLES = Path(__file__).parents[2] / "docs" / "tables"


@pytest.mark.parametrize(
    ("benchmark", "name"), [(backbones, "backbones.csv"), (fit_time, "fit_time.csv")]
)
def test_table_matches_measurements(benchmark, name, tmp_path):
    benchmark.write_table(json.loads(benchmark.RESULTS.read_text()), tmp_path / name)
    assert (TABLES / name).read_text() == (tmp_path / name).read_text()


def test_every_backbone_alias_is_measured():
    measured = json.loads(backbones.RESULTS.read_text())["backbones"]
    assert {row["backbone"] for row in measured} == set(backbone_aliases())
