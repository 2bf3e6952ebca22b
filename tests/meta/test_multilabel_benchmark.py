"""The benchmark of several labels an image: metrics, draws, runs and tables."""

import io

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from benchmarks.accuracy import report
from benchmarks.accuracy.configuration import configure
from benchmarks.accuracy.frames import frame_of
from benchmarks.accuracy.goals import goals_of
from benchmarks.accuracy.groups import GROUPS
from benchmarks.accuracy.measure import measure
from benchmarks.accuracy.models import Surroundings
from benchmarks.accuracy.multilabel import drawn_images, multilabel_metrics
from benchmarks.accuracy.pictures import COLLECTIONS

MACHINE = {"cpu": "an abacus", "instructions": "beads", "cores": 2, "gpu": None, "threads": 1}
PRECISIONS = {"logistic": 0.60, "head": 0.615, "head_ce": 0.61, "clce": 0.66, "ce": 0.65}
BRIEF = {"data": "apparel", "task": "multilabel", "n_classes": 6, "image_size": 32}


def test_metrics_match_hand_example():
    y = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    probabilities = np.array([[0.9, 0.2, 0.1], [0.6, 0.7, 0.2], [0.8, 0.4, 0.4]])
    found = multilabel_metrics(y, probabilities)
    assert found["mean_average_precision"] == 1.0  # of the labels that an image has
    assert found["accuracy"] == pytest.approx(1 / 3)  # the second and the third have a label wrong
    right = [[0.9, 0.8, 0.9], [0.4, 0.7, 0.8], [0.8, 0.4, 0.6]]
    assert found["log_loss"] == pytest.approx(-np.log(right).mean())
    worse = probabilities.copy()
    worse[2, 0] = 0.5  # behind the second image, which lacks the label
    found = multilabel_metrics(y, worse)
    assert found["mean_average_precision"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


@pytest.fixture
def folder(tmp_path):
    """A file of 24 training and 6 test photographs, red if they have the first label."""
    rng = np.random.default_rng(0)
    targets = (rng.random((30, 6)) < 0.4).astype(np.uint8)
    targets[:2] = [[0] * 6, [1] * 6]
    files = []
    for row in targets:
        file = io.BytesIO()
        Image.new("RGB", (50, 40), (220 * int(row[0]), 90, 90)).save(file, "JPEG")
        files.append(np.frombuffer(file.getvalue(), dtype=np.uint8))
    np.savez(
        tmp_path / "multilabel_apparel.npz",
        jpeg=np.concatenate(files),
        offsets=np.cumsum([0, *map(len, files)]),
        targets=targets,
        split=["train"] * 24 + ["test"] * 6,
        label_names=list("abcdef"),
    )
    return tmp_path


def test_fewer_images_are_some_of_more(folder):
    surroundings = Surroundings(data=str(folder))
    few, all_of_them = (
        drawn_images(configure(**BRIEF, shots=n, seed=3), surroundings) for n in (8, 400)
    )
    assert_array_equal(few[0], all_of_them[0][:8])
    assert_array_equal(few[1], all_of_them[1][:8])
    assert all_of_them[1].shape == (24, 6)
    assert_array_equal(all_of_them[2][:, 16, 16, 0] > 120, all_of_them[3][:, 0] == 1)
    other = drawn_images(configure(**BRIEF, shots=8, seed=4), surroundings)
    assert not np.array_equal(few[1], other[1])


@pytest.mark.parametrize("method", ["logistic", "head", "ce"])
def test_run_measures_everything(method, folder, tmp_path):
    surroundings = Surroundings(data=str(folder), features=str(tmp_path / "features"))
    parameters = {} if method == "logistic" else {"max_epochs": 1}
    line = measure(configure(**BRIEF, shots=400, method=method, **parameters), surroundings)
    assert "error" not in line
    assert set(line["metrics"]) == {"accuracy", "mean_average_precision", "log_loss"}
    assert line["images"] == [24, 6]
    assert (line.get("trainable") == "head") == (method == "head")


def made_up(gain=lambda run: 0.0, draws=3):
    """Make up lines: precision by method, plus the same for each split."""
    return [
        {
            "configuration": {**run.__dict__, "parameters": list(run.parameters)},
            "metrics": {
                "accuracy": 0.3,
                "mean_average_precision": PRECISIONS[run.method] + 0.01 * run.seed + gain(run),
                "log_loss": 0.4,
            },
            "fit_seconds": 9.0,
            "fit_processor_seconds": 8.0,
            "seconds": 10.0,
            "machine": MACHINE,
            "versions": {"torch": "2.0", "timm": "1.0"},
        }
        for run in GROUPS["multilabel"].runs(draws)
    ]


def test_tables_show_precision_and_leads_case_by_case():
    lines = made_up(lambda run: 0.02 * (run.data == "coco12" and run.method == "clce"))
    text = report.page(lines, frame_of(lines))
    assert "CLCEClassifier(),68.0,30.0,0.400,8\n" in text
    assert '"clothes, 100 images",**+6.0 ± 0.0**,**+1.0 ± 0.0**,**+1.5 ± 0.0**,**+0.5' in text
    assert '"COCO, all images",**+8.0 ± 0.0**,**+3.0 ± 0.0**,' in text
    assert "**mean**,+7.0,+2.0,+1.5,+0.5\n" in text  # two sets make no interval


def test_standings_count_what_everyone_has():
    """A method that lacks the harder images would look better."""
    lines = [
        line
        for line in made_up(lambda run: -0.2 * (run.shots == 100))
        if (line["configuration"]["method"], line["configuration"]["shots"]) != ("clce", 100)
    ]
    text = report.page(lines, frame_of(lines))
    assert "CLCEClassifier(),67.0,30.0,0.400,8\n" in text
    assert "LogisticRegression(),61.0,30.0,0.400,8\n" in text


@pytest.mark.parametrize(("gain", "word"), [(0.0, "met"), (-0.08, "MISSED")])
def test_goals_are_checked(gain, word):
    lines = made_up(lambda run: gain * (run.method in ("clce", "head")))
    words = {goal.what: goal.word for goal in goals_of(frame_of(lines))}
    for name in ("CLCEClassifier()", 'trainable="head"'):
        for what in ("mean", "worst set"):
            assert words[f"{name} minus LogisticRegression(), several labels: {what}"] == word


def test_collections_name_what_is_missing(tmp_path):
    for name in ("apparel", "coco12"):
        with pytest.raises(FileNotFoundError, match=f"multilabel_{name}.npz"):
            COLLECTIONS[name].load(tmp_path)
