"""Spoilt model files: each raises a ValueError, or predicts exactly as before."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fuzz_model_file import SECONDS, SPARE_BYTES
from model_file_mutations import MUTATIONS
from sklearn_clce import CLCEClassifier

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
HELPERS = Path(__file__).parents[1] / "helpers"
FILES = 2004


@pytest.fixture(scope="module")
def outcome():
    command = [sys.executable, "fuzz_model_file.py", "--files", str(FILES), "--seed", "0"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=HELPERS)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_spoilt_files_fail_or_load(outcome):
    assert outcome["bad"] == []
    kinds = ("rejected", "same", "another model")
    assert sum(sum(outcome[kind].values()) for kind in kinds) == outcome["files"] == FILES


def test_mutations_of_each_kind_are_mostly_rejected(outcome):
    assert outcome["rejected"].keys() == {mutate.__name__ for mutate in MUTATIONS}
    assert min(outcome["rejected"].values()) > FILES / len(MUTATIONS) / 2


def test_loads_take_little_time_and_memory(outcome):
    assert outcome["longest_seconds"] < SECONDS / 2
    assert outcome["most_bytes_above_twice_the_file"] < SPARE_BYTES


def test_fuzzer_detects_careless_loads(tmp_path):
    command = [sys.executable, "careless_loads.py", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, cwd=HELPERS)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert len(said) == 9
    may_be_another = said.pop("predicts_otherwise")[0]  # in a quarter of the mutations
    assert may_be_another >= 15
    assert all(n_bad == min(n_files, 20) for n_bad, n_files in said.values()), said


def test_valid_file_takes_at_most_twice_its_size_in_memory(tmp_path):
    script = (
        "import sys, fuzz_model_file as fuzz\n"
        "from sklearn_clce import CLCEClassifier\n"
        "small, large = sys.argv[1:]\n"
        "CLCEClassifier.load(small)  # everything is imported now\n"
        "fuzz.reset_peak()\n"
        "before = fuzz.peak()\n"
        "clf = CLCEClassifier.load(large)\n"
        "print(fuzz.peak() - before)\n"
    )
    X = np.random.default_rng(0).normal(size=(8, 5000))
    paths = [tmp_path / "small.safetensors", tmp_path / "large.safetensors"]
    for path, width in zip(paths, (2, 2000), strict=True):
        clf = CLCEClassifier("precomputed", projection_dim=width, max_epochs=1)
        clf.fit(X, [0, 1] * 4).save(path)
    size = paths[1].stat().st_size
    assert size > 50e6
    command = [sys.executable, "-c", script, *paths]
    result = subprocess.run(command, capture_output=True, text=True, cwd=HELPERS)
    assert result.returncode == 0, result.stderr
    assert size / 2 < int(result.stdout) <= 2 * size + 8 * 2**20
