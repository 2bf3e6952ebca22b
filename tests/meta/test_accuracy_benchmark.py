"""The accuracy benchmark: metrics, data, runs, and resuming."""

import io
import json
import multiprocessing
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from torchvision import datasets

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import processes
from benchmarks.accuracy.beit_script import EPOCHS, LEAST_RATE, RATE, WARM_UP, BeitScript, rate_of
from benchmarks.accuracy.configuration import FROZEN, OURS, VOTE, configure, from_record, product
from benchmarks.accuracy.fastai_learner import FastaiLearner
from benchmarks.accuracy.few_shot import episode_scores
from benchmarks.accuracy.groups import GROUPS, SETS, Group
from benchmarks.accuracy.kinds import imbalanced, with_wrong_labels
from benchmarks.accuracy.measure import measure
from benchmarks.accuracy.metrics import (
    calibration_error,
    classification_metrics,
    embedding_metrics,
    retrieval_metrics,
)
from benchmarks.accuracy.models import Surroundings, make_model
from benchmarks.accuracy.pictures import COLLECTIONS, Collection, draw, resize_once
from benchmarks.accuracy.results import append, failed, finished, read_lines
from benchmarks.accuracy.sources import CALTECH_TEST, CALTECH_TRAIN, CIFAR_FS, FC100, VARIABLE
from benchmarks.accuracy.transfer import CORRUPTIONS, corrupt
from sklearn_clce import CLCEClassifier, few_shot_score
from sklearn_clce.backbones import BackboneConfig, load_backbone

ROOT = Path(__file__).parents[2]
TINY = {"data": "digits", "n_classes": 2, "shots": 4, "image_size": 32}
BRIEF = TINY | {"max_epochs": 1}


def line_of(configuration, accuracy, **metrics):
    """Make up a line of results."""
    return {
        "configuration": json.loads(configuration.key),
        "metrics": {"accuracy": accuracy, **metrics},
        "seconds": 10.0,
        "fit_seconds": 9.0,
        "fit_memory": 100.0,
        "machine": {
            "cpu": "an abacus",
            "instructions": "beads",
            "cores": 2,
            "gpu": None,
            "threads": 1,
        },
        "versions": {"torch": "2.0", "timm": "1.0", "scikit-learn": "1.7"},
    }


def test_calibration_error_matches_hand_example():
    classes = np.array(["cat", "dog"])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    y = np.array(["cat", "dog", "dog", "dog"])
    # two bins: below and from 0.5 on; all four are in the second: confidence 0.7375, 3 of 4 right
    assert calibration_error(classes, y, probabilities, n_bins=2) == pytest.approx(0.0125)
    # four bins: 0.9 and 0.8 in the last (0.85 against 1/2), 0.7 and 0.55 in the third (0.625
    # against 1), each half of the images
    expected = 0.5 * 0.35 + 0.5 * 0.375
    assert calibration_error(classes, y, probabilities, n_bins=4) == pytest.approx(expected)
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(classes, classes, sure) == 0
    assert calibration_error(classes, classes[::-1], sure) == 1


def test_classification_metrics_match_hand_example():
    classes, y = np.array([3, 5]), np.array([3, 5, 5])
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]], dtype=np.float32)
    metrics = classification_metrics(classes, y, probabilities)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["log_loss"] == pytest.approx(-np.log([0.5, 0.25, 0.75]).mean())


def test_embedding_metrics_match_angles():
    def at(*degrees):
        return np.column_stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    train, y_train = at(0, 20, 90, 110), np.array([0, 0, 1, 1])
    test, y = at(5, 12, 50, 70), np.array([0, 0, 0, 1])  # class means lie at 10 and 100 degrees
    metrics = embedding_metrics(train, y_train, test, y)
    assert metrics["class_mean_accuracy"] == 1.0
    assert metrics["recall_at_1"] == 0.5  # 5 and 12 find each other; 50 and 70 are of two classes


def test_configurations_of_equal_runs_are_equal():
    plain = configure(data="digits", method="ce", max_epochs=3, weight_decay=0.1)
    assert plain == configure(data="digits", method="ce", weight_decay=0.1, max_epochs=3)
    assert plain.key != replace(plain, seed=1).key
    assert plain.key != configure(data="digits", method="ce").key
    floors = product(data=["digits"], method=["logistic"], max_epochs=[1, 2])
    assert len(floors) == 1
    assert floors[0].recipe is None  # it doesn't depend on our defaults
    assert from_record(json.loads(json.dumps(asdict(plain)))) == plain


@pytest.mark.parametrize("name", GROUPS)
def test_group_compares_methods_on_equal_splits(name):
    runs = GROUPS[name].runs()
    assert len(set(runs)) == len(runs)
    by_method = {}
    for one in runs:
        same = (one.data, one.shots, one.n_classes, one.backbone, one.seed)
        by_method.setdefault(one.method, set()).add(same)
    assert len({frozenset(pictures) for pictures in by_method.values()}) == 1
    assert {one.seed for one in GROUPS[name].runs(2)} == {0, 1}


def test_league_covers_all_sets_with_seven_classes():
    runs = GROUPS["league"].runs()
    assert {one.data for one in runs} == set(SETS)
    assert max(one.n_classes for one in runs) == 7
    assert {one.shots for one in runs} == {10}


@pytest.fixture
def collection():
    """Images that hold their own index, 5 classes with 6 images each."""
    labels = np.repeat(np.arange(5), 6)
    images = np.arange(30, dtype=np.uint8)[:, None, None]
    return Collection("rows", 5, lambda folder: (images, labels, images + 100, labels))


def test_seed_fixes_classes_and_images(collection):
    first = draw(collection, n_classes=3, shots=4, seed=1)
    for one, other in zip(first, draw(collection, n_classes=3, shots=4, seed=1), strict=True):
        assert_array_equal(one, other)
    x_train, y_train, x_test, y_test = first
    assert_array_equal(np.unique(y_train, return_counts=True)[1], [4, 4, 4])
    assert_array_equal(np.unique(y_train), np.unique(y_test))
    assert_array_equal(x_train.ravel() // 6, y_train)
    assert_array_equal((x_test.ravel() - 100) // 6, y_test)
    fewer, more = (draw(collection, n_classes=3, shots=s, seed=1)[0].ravel() for s in (2, None))
    assert set(fewer) < set(x_train.ravel()) < set(more)
    classes = {
        tuple(np.unique(draw(collection, n_classes=3, shots=1, seed=s)[1])) for s in range(9)
    }
    assert len(classes) > 1


@pytest.fixture
def offline(monkeypatch):
    """No folder is set, and torchvision can't download."""

    def download(root, **options):
        raise OSError("no route to host")

    monkeypatch.delenv(VARIABLE, raising=False)
    for name in ("CIFAR100", "Caltech101", "Omniglot", "FashionMNIST"):
        monkeypatch.setattr(datasets, name, download)


def test_photographs_are_cropped_to_central_squares(tmp_path):
    files = []
    for number in range(4):
        file = io.BytesIO()
        Image.new("RGB", (300, 280), (60 * number, 0, 0)).save(file, "JPEG")
        files.append(np.frombuffer(file.getvalue(), dtype=np.uint8))
    np.savez(
        tmp_path / "trashnet6.npz",
        jpeg=np.concatenate(files),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=[0, 1, 1, 0],
        split=["train", "train", "test", "test"],
    )
    x_train, y_train, x_test, y_test = COLLECTIONS["waste"].load(tmp_path)
    assert_array_equal(y_train, [0, 1])
    assert_array_equal(y_test, [1, 0])
    images = x_test[np.arange(2)]
    assert images.shape == (2, 256, 256, 3)
    np.testing.assert_allclose(images[:, 128, 128, 0], [120, 180], atol=2)
    assert_array_equal(x_train[np.array([0])].max(), 0)


@pytest.mark.parametrize("name", SETS)
def test_missing_photograph_sets_name_searched_folders(name, tmp_path, offline):
    with pytest.raises(FileNotFoundError, match=f"give --data FOLDER or set {VARIABLE}"):
        COLLECTIONS[name].load(None)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        COLLECTIONS[name].load(tmp_path)


@pytest.mark.parametrize("name", ["cifar100", "caltech101", "omniglot", "cifar_fs", "fc100"])
def test_missing_downloads_name_searched_folders(name, tmp_path, offline):
    with pytest.raises(FileNotFoundError, match=f"give --data FOLDER or set {VARIABLE}"):
        COLLECTIONS[name].load(None)
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(tmp_path))} .*no route to host"):
        COLLECTIONS[name].load(tmp_path)


def test_torchvision_provides_cifar100_and_few_shot_classes(tmp_path, monkeypatch):
    left_out = set(" ".join(CIFAR_FS + FC100).split())
    names = sorted(left_out | {f"class_{number:02}" for number in range(100 - len(left_out))})

    def read(root, *, download, train):
        targets = list(range(100)) * (2 if train else 1)
        data = np.array(targets, dtype=np.uint8)[:, None, None, None]
        return SimpleNamespace(data=data, targets=targets, classes=names)

    monkeypatch.setattr(datasets, "CIFAR100", read)
    x_train, y_train, x_test, y_test = COLLECTIONS["cifar100"].load(tmp_path)
    assert len(x_train) == 200
    assert_array_equal(x_train.ravel(), y_train)
    assert_array_equal(x_test.ravel(), y_test)
    for name, (_, test) in (("cifar_fs", CIFAR_FS), ("fc100", FC100)):
        x_base, y_base, x_new, y_new = COLLECTIONS[name].load(tmp_path)
        assert_array_equal(x_base.ravel(), y_base)
        assert_array_equal(x_new.ravel(), y_new)
        assert {names[label] for label in y_new} == set(test.split())
        assert len(np.unique(y_base)) == COLLECTIONS[name].n_classes
        assert len(y_new) == 3 * 20
        assert not set(y_base) & set(y_new)


def test_torchvision_provides_caltech101_and_omniglot(tmp_path, monkeypatch):
    class Caltech101:
        y = [0] * 90 + [1] * 33

        def __init__(self, root, *, download):
            self.opened = []

        def __getitem__(self, row):
            return Image.new("L", (200, 150), int(row)), self.y[row]

    monkeypatch.setattr(datasets, "Caltech101", Caltech101)
    x_train, y_train, x_test, y_test = COLLECTIONS["caltech101"].load(tmp_path)
    assert_array_equal(np.bincount(y_train), [CALTECH_TRAIN, 22])
    assert_array_equal(np.bincount(y_test), [CALTECH_TEST, 11])
    train, test = (
        images[np.arange(len(y))] for images, y in ((x_train, y_train), (x_test, y_test))
    )
    assert train.shape[1:] == (128, 128, 3)
    rows = [*train[:, 0, 0, 0], *test[:, 0, 0, 0]]
    assert len(set(rows)) == len(rows)
    assert_array_equal(np.array(Caltech101.y)[rows], [*y_train, *y_test])

    monkeypatch.setattr("benchmarks.accuracy.sources.CALTECH_BASE", 1)
    x_base, y_base, x_new, y_new = COLLECTIONS["caltech_fs"].load(tmp_path)
    assert {*y_base} != {*y_new}
    assert len(y_base) in (CALTECH_TRAIN, 22)
    assert len(x_base[np.arange(3)]) == len(x_new[np.arange(3)]) == 3

    drawings = [(Image.new("L", (105, 105), number), number // 20) for number in range(60)]
    monkeypatch.setattr(datasets, "Omniglot", lambda root, *, download: drawings)
    x_train, y_train, x_test, y_test = COLLECTIONS["omniglot"].load(tmp_path)
    assert_array_equal(x_train[:, 0, 0] // 20, y_train)
    assert_array_equal(x_test[:, 0, 0] // 20, y_test)
    assert (x_train[:, 0, 0] % 20).max() < 10 <= (x_test[:, 0, 0] % 20).min()


def test_images_are_resized_as_in_preprocessing():
    config = BackboneConfig("any", image_size=28, crop_pct=0.875)
    colour = np.full((2, 8, 8, 3), 7, dtype=np.uint8)
    assert resize_once(colour, config).shape == (2, 32, 32, 3)
    assert (resize_once(colour, config) == 7).all()
    assert resize_once(colour[..., 0], config).shape == (2, 32, 32)


def test_run_measures_everything():
    line = measure(configure(**BRIEF, seed=1), Surroundings())
    assert "error" not in line
    json.dumps(line)
    assert set(line["metrics"]) == {"accuracy", "log_loss", "calibration_error"}
    assert line["images"] == [8, len(draw(COLLECTIONS["digits"], n_classes=2, shots=4, seed=1)[3])]
    assert line["seconds"] > line["fit_seconds"] > line["epoch_seconds"] > 0
    assert line["budget"] == {"epochs": 1, "steps": 1, "batch_size": 32}
    again = measure(configure(**BRIEF, seed=1), Surroundings())
    assert again["metrics"] == line["metrics"]


def test_vote_combines_default_and_head():
    one = configure(**TINY, method=VOTE)
    assert one.recipe is not None
    model = make_model(one, Surroundings())
    tuned, head = (dict(model.estimators)[name].get_params() for name in ("tuned", "head"))
    assert tuned.pop("trainable") == "auto"
    assert head.pop("trainable") == "head"
    assert repr(tuned) == repr(head)
    brief = make_model(configure(**BRIEF, method=VOTE), Surroundings())
    assert [one.max_epochs for _, one in brief.estimators] == [1, 1]
    line = measure(one, Surroundings())
    assert line["metrics"]["accuracy"] > 0.8
    assert line["metrics"]["log_loss"] < 0.7


@pytest.mark.parametrize("method", FROZEN)
def test_frozen_baselines_are_measured(method):
    line = measure(configure(**TINY | {"shots": 6}, method=method), Surroundings())
    assert line["metrics"]["accuracy"] > 0.7
    assert line["budget"] == {}


@pytest.fixture(scope="module")
def small_start():
    """A small timm backbone with its configuration; images of two colours and their labels."""
    backbone, config = load_backbone("resnet10t", pretrained=False, image_size=32)
    images = np.zeros((24, 36, 36, 3), dtype=np.uint8)  # one batch for each script
    images[::2, ..., 0] = images[1::2, ..., 2] = 250
    return (backbone, config), images, np.array(["red", "blue"] * 12)


@pytest.mark.filterwarnings("ignore")  # of what fastai asks of torch and pandas
@pytest.mark.parametrize(
    "script", [BeitScript, pytest.param(FastaiLearner, marks=pytest.mark.slow)]
)
def test_scripts_learn_and_report_budget(script, small_start, monkeypatch):
    if script is FastaiLearner:
        pytest.importorskip("fastai")
    monkeypatch.setattr("benchmarks.accuracy.beit_script.EPOCHS", 12)
    monkeypatch.setattr("benchmarks.accuracy.fastai_learner.EPOCHS", 30)
    monkeypatch.setattr("benchmarks.accuracy.beit_script.HEAD_SCALE", 1.0)
    (backbone, config), images, labels = small_start
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = script(backbone, config, seed=0, device=torch.device("cpu")).fit(images, labels)
    probabilities = model.predict_proba(images[:5])
    assert probabilities.shape == (5, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(model.classes_[probabilities.argmax(axis=1)], labels[:5])
    assert model.budget["steps"] == model.budget["epochs"] >= 12  # of one batch
    for name, value in backbone.state_dict().items():  # the next script starts there too
        torch.testing.assert_close(value, before[name])


def test_script_rate_warms_up_and_decays():
    assert rate_of(0, n_batches=3) == pytest.approx(LEAST_RATE)
    assert rate_of(3 * WARM_UP, n_batches=3) == pytest.approx(RATE)
    rates = [rate_of(step, n_batches=3) for step in range(3 * EPOCHS)]
    assert np.argmax(rates) == 3 * WARM_UP
    assert LEAST_RATE < rates[-1] < RATE / 100


def test_head_on_features_matches_classifier_on_images(tmp_path):
    surroundings = Surroundings(features=str(tmp_path))
    run = configure(**BRIEF, task="head", seed=1)
    line = measure(run, surroundings)
    x_train, y_train, x_test, y_test = draw(COLLECTIONS["digits"], n_classes=2, shots=4, seed=1)
    x_train, x_test = (
        np.repeat(resize_once(images, BackboneConfig("any", 32, crop_pct=0.875))[..., None], 3, -1)
        for images in (x_train, x_test)
    )
    clf = CLCEClassifier(trainable="head", image_size=32, max_epochs=1, random_state=1)
    clf.fit(x_train, y_train)
    metrics = classification_metrics(clf.classes_, y_test, clf.predict_proba(x_test))
    assert line["metrics"]["accuracy"] == metrics["accuracy"]
    assert line["metrics"]["log_loss"] == pytest.approx(metrics["log_loss"], rel=1e-3)
    assert line["seconds_a_picture"] > 0
    assert line["images"] == [8, len(y_test)]
    floor = measure(replace(run, method="logistic", parameters=(), recipe=None), surroundings)
    assert set(floor["metrics"]) == set(line["metrics"]) > {"recall_at_1", "class_mean_accuracy"}


def test_new_classes_are_measured_on_features_and_embeddings(monkeypatch):
    images = draw(COLLECTIONS["digits"], n_classes=9, shots=8, seed=0)[0]
    labels = np.repeat(np.arange(9), 8)
    old, new = labels < 4, labels >= 4
    parts = (images[old], labels[old], images[new], labels[new])
    monkeypatch.setitem(COLLECTIONS, "digits", Collection("digits", 4, lambda folder: parts))
    monkeypatch.setattr("benchmarks.accuracy.measure.N_EPISODES", 3)
    monkeypatch.setattr("benchmarks.accuracy.measure.N_QUERIES", 3)
    choices = BRIEF | {"n_classes": 4, "task": "new_classes"}
    tuned = measure(configure(**choices), Surroundings())
    floor = measure(configure(**choices, method="logistic"), Surroundings())
    names = {f"{name}_{k}_shot" for name in ("regression", "class_mean") for k in (1, 5)}
    assert set(floor["metrics"]) == {f"features_{name}" for name in names}
    assert set(tuned["metrics"]) == {
        f"{space}_{name}" for space in ("features", "embedding") for name in names
    }
    assert tuned["metrics"]["features_regression_5_shot"] > 0.5


def test_few_shot_episodes_are_measured_in_parts(monkeypatch):
    images = draw(COLLECTIONS["digits"], n_classes=9, shots=24, seed=0)[0]
    labels = np.repeat(np.arange(9), 24)
    old, new = labels < 4, labels >= 4
    parts = (images[old], labels[old], images[new], labels[new])
    monkeypatch.setitem(COLLECTIONS, "digits", Collection("digits", 4, lambda folder: parts))
    monkeypatch.setattr("benchmarks.accuracy.few_shot.N_EPISODES", 4)
    monkeypatch.setattr("benchmarks.accuracy.few_shot.N_PARTS", 2)
    choices = BRIEF | {"n_classes": 4, "task": "few_shot"}
    tuned = measure(configure(**choices, method="mean_9"), Surroundings())
    frozen = measure(configure(**choices, method="logistic"), Surroundings())
    cells = {f"{space}_{k}_shot" for space in ("features", "embedding") for k in (1, 5)}
    assert set(tuned["episodes"]) == cells < set(tuned["metrics"])
    assert set(frozen["episodes"]) == {"features_1_shot", "features_5_shot"}
    for name, values in tuned["episodes"].items():
        assert np.mean(values) == pytest.approx(tuned["metrics"][name], abs=1e-5)
    assert tuned["metrics"]["features_5_shot"] > 0.5
    assert "features_mean_average_precision" in frozen["metrics"]


def test_few_directions_give_the_regression_of_all():
    images, labels = draw(COLLECTIONS["digits"], n_classes=6, shots=30, seed=0)[:2]
    values = normalize(images.reshape(len(images), -1).astype(float))
    expected = few_shot_score(
        LogisticRegression(), values, labels, k_shot=5, n_episodes=6, random_state=0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.accuracy.few_shot.N_EPISODES", 6)
        assert episode_scores(values, labels, 5) == pytest.approx(expected.scores, abs=0.015)


def test_transfer_measures_retrieval_and_corrupted_images():
    line = measure(configure(**BRIEF, task="transfer", method="mean_9"), Surroundings())
    names = {f"{name}_accuracy" for name in CORRUPTIONS}
    assert names | {"accuracy", "recall_at_1", "mean_average_precision"} <= set(line["metrics"])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_is_the_same_for_every_method(name):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    state = torch.random.get_rng_state()
    spoilt = corrupt(name, images, seed=3)
    assert spoilt.shape == images.shape
    assert spoilt.dtype == np.uint8
    assert not np.array_equal(spoilt, images)
    assert_array_equal(spoilt, corrupt(name, images, seed=3))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_retrieval_metrics_match_hand_example():
    angles = np.deg2rad([0, 10, 25, 90])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = retrieval_metrics(embeddings, np.array(["a", "b", "a", "c"]))
    # of the first, b then a: 1/2; of the third, b then a: 1/2; nobody else has b or c
    assert found == {"recall_at_1": 0.0, "mean_average_precision": 0.5}


def test_heads_on_the_same_features_share_a_process():
    head = {"data": "digits", "task": "head"}
    runs = [
        configure(**head),
        configure(data="digits"),
        configure(**head, method="logistic", shots=5),
        configure(**head, seed=1),
        configure(data="digits", method="logistic"),
    ]
    batches = processes.batches_of(runs)
    assert batches == [[runs[0], runs[2]], [runs[1]], [runs[3]], [runs[4]]]
    sets = {"data": "coco12", "task": "multilabel"}
    kept = [configure(**sets, method=name) for name in ("logistic", "head", "head_ce")]
    tuned = [configure(**sets, method=name) for name in ("clce", "ce")]
    assert processes.batches_of([*kept, *tuned]) == [kept, [tuned[0]], [tuned[1]]]


@pytest.fixture
def session(monkeypatch, tmp_path):
    """The command with two made-up runs; that of the second seed fails at first."""
    tiny = Group("Tiny", "About it.", (configure(**TINY),), draws=2)
    runs = tiny.runs()
    monkeypatch.setattr(command, "GROUPS", {"tiny": tiny})
    asked, broken = [], {1}

    def measure_all(configurations, surroundings, jobs):
        for one in configurations:
            asked.append(one.seed)
            line = line_of(one, 0.5)
            if one.seed in broken:
                line = {"configuration": asdict(one), "error": "MemoryError: none left"}
            yield line

    monkeypatch.setattr(processes, "measure_all", measure_all)
    file = tmp_path / "results.jsonl"
    command_line = ["--results", str(file), "run", "--groups", "tiny"]

    def start(*more):
        asked.clear()
        command.main([*command_line, *more])
        return list(asked)

    return SimpleNamespace(start=start, broken=broken, file=file, runs=runs)


def test_finished_runs_are_skipped_and_failed_retried(session, capsys):
    assert session.start("--plan") == []
    assert not session.file.exists()
    assert session.start() == [0, 1]
    assert list(failed(read_lines(session.file))) == [session.runs[1].key]
    session.broken.clear()
    capsys.readouterr()
    assert session.start() == [1]
    assert "1 of     2 finished, 1 failed before" in capsys.readouterr().out
    assert session.start() == []
    lines = read_lines(session.file)
    assert len(lines) == 3
    assert finished(lines).keys() == {one.key for one in session.runs}
    assert failed(lines) == {}


def test_gpu_allows_one_job(session, monkeypatch):
    monkeypatch.setattr(
        "sklearn_clce._system.resolve_device", lambda device: SimpleNamespace(type="cuda")
    )
    with pytest.raises(SystemExit, match="--jobs 2: one process computes on a GPU"):
        session.start("--jobs", "2")
    assert session.start("--jobs", "1") == [0, 1]


@pytest.mark.parametrize(("device", "start"), [("cuda", "spawn"), ("cpu", "forkserver")])
def test_gpu_runs_are_spawned(monkeypatch, device, start):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {start}")
    monkeypatch.setattr(processes, "resolve_device", lambda _: SimpleNamespace(type=device))
    context = processes.context_for(Surroundings(device=device))
    assert context.get_start_method() == start


def test_command_options_select_runs(session):
    assert session.start("--draws", "1") == [0]
    assert session.start("--sets", "omniglot") == []
    assert session.start("--methods", "ce", "logistic") == []
    session.broken.clear()
    assert session.start("--draws", "3", "--methods", "clce", "--sets", "digits") == [1, 2]


def test_time_estimate_uses_similar_runs():
    done = [line_of(configure(**TINY, seed=seed), 0.5) for seed in (0, 1)]
    like, larger = configure(**TINY, seed=5), configure(**TINY | {"shots": 12})
    other = configure(**TINY, method="ce")
    assert command.estimate([like, other], done) == (10.0, 1)
    assert command.estimate([larger], done) == (30.0, 0)
    assert command.duration(3900) == "1 h 05 min"


def test_truncated_line_is_measured_again(tmp_path):
    file = tmp_path / "results.jsonl"
    first, second = (line_of(configure(**TINY, seed=seed), 0.5) for seed in (0, 1))
    append(file, first)
    append(file, second)
    file.write_text(file.read_text()[:-40])
    assert read_lines(file) == [first]
    append(file, second)
    assert read_lines(file) == [first, second]
    file.write_text("not JSON\n" + file.read_text())
    with pytest.raises(ValueError, match=r"results.jsonl, line 1 is not JSON"):
        read_lines(file)


def test_failed_run_records_error(offline):
    line = measure(configure(data="omniglot"), Surroundings())
    assert line["error"].startswith("FileNotFoundError: omniglot_242.npz: no folder of data is set")
    assert "metrics" not in line


def test_killed_process_is_a_failed_run():
    from multiprocessing import Pipe
    from queue import Queue

    class Killed:
        exitcode = -9

        def __init__(self, target, args):
            self.sender, (self.first, _), _ = args

        def start(self):
            self.sender.send({"configuration": asdict(self.first)})
            self.sender.close()

        def join(self):
            pass

    context, lines = SimpleNamespace(Pipe=Pipe, Process=Killed), Queue()
    runs = [configure(**TINY, task="head", method=name) for name in list(OURS)[:2]]
    processes._apart(context, runs, Surroundings(), lines)
    assert list(lines.queue) == [
        {"configuration": asdict(runs[0])},
        {"configuration": asdict(runs[1]), "error": "the process ended with exit code -9"},
        processes.END,
    ]


@pytest.mark.parametrize("task", ["grey_8_bits", "grey_16_bits", "imbalanced", "wrong_labels"])
def test_kinds_are_measured(task):
    line = measure(
        configure(**TINY | {"shots": 6, "task": task}, method="logistic"), Surroundings()
    )
    assert 0.1 < line["metrics"]["balanced_accuracy"] <= 1


def test_wrong_labels_are_a_fifth_of_each_class():
    y = np.repeat([3, 5, 9], [10, 20, 5])
    wrong = with_wrong_labels(y, seed=0) != y
    assert [wrong[y == label].sum() for label in (3, 5, 9)] == [2, 4, 1]


def test_imbalanced_classes_fall_from_50_to_5():
    y = np.repeat(np.arange(4), 60)
    x, left = imbalanced(np.arange(240), y, seed=0)
    assert sorted(np.bincount(left)) == [5, 11, 23, 50]
    np.testing.assert_array_equal(y[x], left)
