"""The accuracy benchmark: what it computes, that it resumes, and that its page tells the truth."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from scipy import stats
from torchvision import datasets

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import processes
from benchmarks.accuracy.comparison import (
    Case,
    at_budget,
    differences,
    entries_of,
    estimate_mean,
    mean_over_data,
    results_of,
)
from benchmarks.accuracy.configuration import configure, from_record, product
from benchmarks.accuracy.depthwise import DepthwiseConvolution, fast_depthwise
from benchmarks.accuracy.groups import GROUPS, Group, group
from benchmarks.accuracy.measure import Surroundings, measure
from benchmarks.accuracy.metrics import (
    calibration_error,
    classification_metrics,
    embedding_metrics,
)
from benchmarks.accuracy.pictures import COLLECTIONS, Collection, draw, resize_once
from benchmarks.accuracy.report import goals, measured_groups, page, settings_file, write_report
from benchmarks.accuracy.results import append, failed, finished, read_lines
from benchmarks.accuracy.sources import CALTECH_TEST, CALTECH_TRAIN, CIFAR_FS, FC100, VARIABLE
from benchmarks.accuracy.tables import PLUS_MINUS, plain_entries
from sklearn_clce.backbones import BackboneConfig

ROOT = Path(__file__).parents[1]
TINY = {"data": "digits", "n_classes": 2, "shots": 4, "image_size": 32, "max_epochs": 1}


def line_of(configuration, accuracy, **metrics):
    """Make up a line of results."""
    return {
        "configuration": asdict(configuration),
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


def group_of(*choices, **options):
    return {"few_labels": group("Few labels", "About it.", *choices, **options)}


def test_calibration_error_of_a_hand_example():
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


def test_classification_metrics_of_a_hand_example():
    classes, y = np.array([3, 5]), np.array([3, 5, 5])
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]], dtype=np.float32)
    metrics = classification_metrics(classes, y, probabilities)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["log_loss"] == pytest.approx(-np.log([0.5, 0.25, 0.75]).mean())


def test_embedding_metrics_of_angles():
    def at(*degrees):
        return np.column_stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    train, y_train = at(0, 20, 90, 110), np.array([0, 0, 1, 1])
    test, y = at(5, 12, 50, 70), np.array([0, 0, 0, 1])  # class means lie at 10 and 100 degrees
    metrics = embedding_metrics(train, y_train, test, y)
    assert metrics["class_mean_accuracy"] == 1.0
    assert metrics["recall_at_1"] == 0.5  # 5 and 12 find each other; 50 and 70 are of two classes


def test_interval_is_scipys():
    values = [0.61, 0.58, 0.66, 0.63]
    estimate = estimate_mean(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    assert np.isnan(estimate_mean([0.5]).half)


def test_mean_over_data_counts_each_data_set_once():
    case = Case("classify", "", 2, 5, "", 32, "all", 8)
    estimates = {
        case._replace(data=data, image_size=number): estimate_mean([mean])
        for number, (data, mean) in enumerate(zip("aabc", (1, 3, 6, 7), strict=True))
    }
    assert mean_over_data(estimates) == estimate_mean([2.0, 6.0, 7.0])


def test_data_sets_that_agree_by_chance_do_not_narrow_the_interval():
    case = Case("classify", "", 2, 5, "", 32, "all", 8)
    by_seed = estimate_mean([-1.0, 0.0, 1.3])
    estimates = {case._replace(data=data): by_seed for data in "abcd"}
    mean = mean_over_data(estimates)
    assert mean.mean == pytest.approx(0.1)
    assert mean.half == pytest.approx(by_seed.half / 2)  # of four


def test_equal_runs_have_equal_configurations():
    assert configure(data="digits", method="supcon") == configure(data="digits", hardness=0.0)
    plain = configure(data="digits", method="ce")
    assert plain == configure(data="digits", weight=0.0, temperature=0.5)
    assert plain.key != configure(data="digits", method="ce", seed=1).key
    assert plain.setting == configure(data="digits", method="ce", seed=1).setting
    floors = product(data=["digits"], method=["logistic"], max_epochs=[1, 2], trainable=["all", 2])
    assert len(floors) == 1
    assert from_record(json.loads(json.dumps(asdict(plain)))) == plain


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_compares_methods_on_the_same_seeds(name):
    by_method = {}
    for one in GROUPS[name].configurations:
        by_method.setdefault(one.method, set()).add(one.seed)
    assert len({frozenset(seeds) for seeds in by_method.values()}) == 1
    assert len(set(GROUPS[name].configurations)) == len(GROUPS[name].configurations)


@pytest.fixture
def collection():
    """Images that hold their own row, 5 classes with 6 rows each."""
    labels = np.repeat(np.arange(5), 6)
    images = np.arange(30, dtype=np.uint8)[:, None, None]
    return Collection("rows", 5, lambda folder: (images, labels, images + 100, labels))


def test_a_seed_fixes_classes_and_images(collection):
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
    """Nothing is set, and torchvision reaches no network."""

    def download(root, **options):
        raise OSError("no route to host")

    monkeypatch.delenv(VARIABLE, raising=False)
    for name in ("CIFAR100", "Caltech101", "Omniglot", "FashionMNIST"):
        monkeypatch.setattr(datasets, name, download)


@pytest.mark.parametrize("name", ["cifar100", "caltech101", "omniglot", "cifar_fs", "fc100"])
def test_missing_pictures_say_where_they_were_looked_for(name, tmp_path, offline):
    with pytest.raises(FileNotFoundError, match=f"give --data FOLDER or set {VARIABLE}"):
        COLLECTIONS[name].load(None)
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(tmp_path))} .*no route to host"):
        COLLECTIONS[name].load(tmp_path)


def test_torchvision_brings_cifar100_and_its_few_shot_classes(tmp_path, monkeypatch):
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


def test_torchvision_brings_photographs_and_drawings(tmp_path, monkeypatch):
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

    drawings = [(Image.new("L", (105, 105), number), number // 20) for number in range(60)]
    monkeypatch.setattr(datasets, "Omniglot", lambda root, *, download: drawings)
    x_train, y_train, x_test, y_test = COLLECTIONS["omniglot"].load(tmp_path)
    assert_array_equal(x_train[:, 0, 0] // 20, y_train)
    assert_array_equal(x_test[:, 0, 0] // 20, y_test)
    assert (x_train[:, 0, 0] % 20).max() < 10 <= (x_test[:, 0, 0] % 20).min()


def test_images_are_resized_to_what_preprocessing_resizes_to():
    config = BackboneConfig("any", image_size=28, crop_pct=0.875)
    colour = np.full((2, 8, 8, 3), 7, dtype=np.uint8)
    assert resize_once(colour, config).shape == (2, 32, 32, 3)
    assert (resize_once(colour, config) == 7).all()
    assert resize_once(colour[..., 0], config).shape == (2, 32, 32)


def test_a_run_measures_everything():
    line = measure(configure(**TINY, seed=1), Surroundings())
    assert "error" not in line
    json.dumps(line)
    assert set(line["metrics"]) == {
        "accuracy",
        "log_loss",
        "calibration_error",
        "recall_at_1",
        "class_mean_accuracy",
    }
    assert line["images"] == [8, len(draw(COLLECTIONS["digits"], n_classes=2, shots=4, seed=1)[3])]
    assert line["seconds"] > line["fit_seconds"] > 0
    again = measure(configure(**TINY, seed=1), Surroundings())
    assert again["metrics"] == line["metrics"]
    random = measure(configure(**TINY, seed=1, classifier="random"), Surroundings())
    assert random["metrics"]["log_loss"] != line["metrics"]["log_loss"]
    floor = measure(configure(**TINY, method="logistic"), Surroundings())
    assert floor["metrics"]["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"),
    [(3, 1, 1, 5), (5, 2, 2, 8), (5, 1, 2, 2), (3, 2, 0, 7)],
)
def test_fast_depthwise_convolutions_have_the_gradients_of_slow_ones(kernel, stride, padding, side):
    generator = torch.Generator().manual_seed(0)
    maps, weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 4, side, side), (4, 1, kernel, kernel))
    )
    stride, padding = (stride, stride), (padding, padding)
    slow = torch.nn.functional.conv2d(maps, weights, None, stride, padding, groups=4)
    fast = DepthwiseConvolution.apply(maps, weights, stride, padding)
    torch.testing.assert_close(fast, slow)
    upstream = torch.randn(slow.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(fast, (maps, weights), upstream),
        torch.autograd.grad(slow, (maps, weights), upstream),
    )


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_only_small_depthwise_convolutions_are_computed_otherwise(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    seen = []
    monkeypatch.setattr(
        DepthwiseConvolution, "apply", lambda maps, *_: seen.append(maps.shape) or maps
    )
    depthwise = torch.nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    dense = torch.nn.Conv2d(4, 4, 3, padding=1, bias=False)
    small, large = torch.ones(1, 4, 8, 8), torch.ones(1, 4, 16, 16)
    native = torch.nn.Conv2d._conv_forward
    with fast_depthwise():
        depthwise(small), depthwise(large), dense(small)
    assert seen == ([small.shape] if capability == "AVX2" else [])
    assert torch.nn.Conv2d._conv_forward is native


@pytest.fixture
def session(monkeypatch, tmp_path):
    """The command with two configurations, whose runs are made up; the second seed fails first."""
    runs = [configure(**TINY, seed=seed) for seed in (0, 1)]
    monkeypatch.setattr(command, "GROUPS", {"tiny": Group("Tiny", "About it.", tuple(runs))})
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


def test_finished_runs_are_skipped_and_failed_ones_retried(session, capsys):
    assert session.start("--dry-run") == []
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


def test_one_process_computes_on_a_gpu(session, monkeypatch):
    monkeypatch.setattr(
        "sklearn_clce._validation.resolve_device", lambda device: SimpleNamespace(type="cuda")
    )
    with pytest.raises(SystemExit, match="--jobs 2: one process computes on a GPU"):
        session.start("--jobs", "2")
    assert session.start("--jobs", "1") == [0, 1]


def test_an_estimate_is_the_time_of_runs_like_it():
    done = [line_of(configure(**TINY, seed=seed), 0.5) for seed in (0, 1)]
    like, other = configure(**TINY, method="ce", seed=5), configure(**TINY | {"shots": 8})
    assert command.estimate([like, other], done) == (10.0, 1)
    floor = configure(**TINY, method="logistic")
    assert command.estimate([floor, floor], [line_of(floor, 0.5)]) == (20.0, 0)
    assert command.duration(3900) == "1 h 05 min"


def test_a_line_that_a_crash_has_cut_is_measured_again(tmp_path):
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


def test_a_run_that_fails_says_why(offline):
    line = measure(configure(data="omniglot"), Surroundings())
    assert line["error"].startswith("FileNotFoundError: omniglot_242.npz: no folder of data is set")
    assert "metrics" not in line


def test_a_killed_process_is_a_failed_run():
    from multiprocessing import Pipe

    class Killed:
        exitcode = -9

        def __init__(self, target, args):
            self.sender = args[0]

        def start(self):
            self.sender.close()

        def join(self):
            pass

    context = SimpleNamespace(Pipe=Pipe, Process=Killed)
    one = configure(**TINY)
    line = processes._apart(context, one, Surroundings())
    assert line == {
        "configuration": asdict(one),
        "error": "the process ended with exit code -9",
    }


@pytest.fixture
def measured():
    """Two data sets, three seeds and two rates; CLCE is better at the other rate."""
    choices = {
        "data": ["digits", "fashion_mnist"],
        "learning_rate": [1e-3, 3e-3],
        "method": ["ce", "clce"],
        "seed": [0, 1, 2],
    }
    groups = group_of(
        choices, {"data": ["digits"], "method": ["logistic"], "seed": [0, 1, 2]}, goal=2.5
    )
    accuracies = {"ce": [0.60, 0.64, 0.62], "clce": [0.66, 0.68, 0.67], "logistic": [0.5] * 3}
    lines = []
    for one in groups["few_labels"].configurations:
        accuracy = accuracies[one.method][one.seed]
        accuracy -= 0.2 * (one.learning_rate == (3e-3 if one.method == "ce" else 1e-3))
        accuracy -= 0.04 * (one.data == "fashion_mnist" and one.method == "clce")
        lines.append(line_of(one, accuracy, calibration_error=accuracy / 10))
    return groups, lines


def test_differences_are_paired_at_the_best_rate_of_each_method(measured):
    groups, lines = measured
    entries = entries_of(results_of(groups["few_labels"].configurations, finished(lines)))
    plain = plain_entries(entries)
    rates = {m: e.budget[1] for m, e in next(iter(plain.values())).items()}
    assert rates == {"ce": 1e-3, "clce": 3e-3, "logistic": None}
    text = page(lines, groups)
    shared = "; images a class: 20; backbone: efficientnet_lite0, 64 px; batch: 32\n"
    assert f"with 95 % intervals{shared}" in text  # said once, not in every row
    pairs = np.array([0.06, 0.04, 0.05]) * 100
    half = stats.t.ppf(0.975, 2) * stats.sem(pairs)
    assert f"**+5.0{PLUS_MINUS}{half:.1f}**" in text  # digits
    assert f",+1.0{PLUS_MINUS}{half:.1f}," in text  # Fashion-MNIST: the interval holds 0
    assert "**mean over data sets**,,,+3.0,\n" in text  # two: no interval
    assert "**mean over those without a say in the defaults**,,,+5.0,\n" in text
    assert f"62.0{PLUS_MINUS}" in text
    assert f",50.0{PLUS_MINUS}0.0," in text
    same = text[text.index("All methods with the same epochs and learning rate") :]
    rows = re.findall(r'"digits, 10 classes","20, (\S+)",(\S+?)\xa0.*?,\**(\S+?)\xa0', same)
    assert rows == [("0.001", "62.0", "-15.0"), ("0.003", "42.0", "+25.0")]


def test_the_page_holds_the_goals_against_the_numbers(measured):
    groups, lines = measured
    text = goals(measured_groups(lines, groups))
    met = re.findall(r"Few labels: (\w+).*,(met|missed)", text)
    assert met == [("mean", "met"), ("mean", "met"), ("best", "met"), ("worst", "met")]
    for line in lines:
        if line["configuration"]["method"] == "clce":
            line["metrics"]["accuracy"] -= 0.1
    text = goals(measured_groups(lines, groups))
    met = re.findall(r"Few labels: (\w+).*,(met|missed)", text)
    assert met == [(what, "missed") for what in ("mean", "mean", "best", "worst")]


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.02, 0.03, 0.04), "helps"),
        ((-0.02, -0.03, -0.04), "harms"),
        ((0.02, -0.03, 0.0), "no clear difference"),
    ],
)
def test_the_page_says_whether_hardness_helps(gains, verdict):
    data = ["digits", "fashion_mnist", "cifar100"]
    groups = group_of({"data": data, "method": ["ce", "supcon", "clce"], "seed": [0, 1]}, goal=2.5)
    gain = dict(zip(data, gains, strict=True))
    lines = [
        line_of(one, 0.5 + gain[one.data] * (one.method == "clce"))
        for one in groups["few_labels"].configurations
    ]
    text = goals(measured_groups(lines, groups))
    assert re.search(rf"hard-negative weighting .*,{verdict}\n", text)
    told = "no clear" if verdict == "no clear difference" else "a clear"
    assert f"; {told} difference.\n" in page(lines, groups)


def test_the_page_begins_with_the_verdict_and_shows_plots_before_tables(measured):
    groups, lines = measured
    text = page(lines, groups)
    assert text.index("- CLCE minus CE, in the mean") < text.index("Plots\n-----")
    assert text.index(".. image::") < text.index(".. csv-table::")
    assert "Goals" not in text


def test_the_verdict_names_the_extremes():
    both = {"data": ["digits"], "method": ["ce", "clce"], "seed": [0, 1]}
    groups = {
        "batch_size": group("Batch size", "", both | {"batch_size": [8, 256]}),
        "longer": group("Longer", "", both | {"batch_size": [256], "max_epochs": [15, 105]}),
    }

    def accuracy(one):
        lead = 0.06 if one.batch_size == 256 and one.max_epochs < 100 else 0.01
        return 0.5 + lead * (one.method == "clce")

    runs = dict.fromkeys(run for one in groups.values() for run in one.configurations)
    text = page([line_of(one, accuracy(one)) for one in runs], groups)
    assert "- Where it matters most: +6.0 in batches of 256 that leave few steps; +1.0 in" in text


def test_the_summary_counts_the_cases_that_leave_no_doubt(measured):
    groups, lines = measured
    text = page(lines, groups)
    accuracy = "+3.0 (1 better, 0 worse)"  # digits clearly; the interval of Fashion-MNIST holds 0
    calibration = "+0.3 (0 better, 1 worse)"  # a higher error is worse
    cells = ",".join([f'"{accuracy}",', f'"{calibration}",,'])
    assert f"Few labels,CLCE minus CE,2,{cells}\n" in text
    assert "Few labels,CLCE minus logistic regression,1," in text
    not_evidence = {"few_labels": replace(groups["few_labels"], evidence=False)}
    assert "All cases together" not in page(lines, not_evidence)


def test_the_page_names_the_machine_and_the_command(measured):
    groups, lines = measured
    text = page(lines, groups)
    assert "an abacus" in text
    assert "python -m benchmarks.accuracy run --groups few_labels" in text
    assert "Few labels,27,27,0\n" in text


def test_partial_results_make_a_page(measured):
    groups, lines = measured
    assert "Few labels\n-------" not in page([], groups)
    for n in (1, 4, 13):
        assert f"Few labels,{n},27,0\n" in page(lines[:n], groups)
    only_clce = [line for line in lines if line["configuration"]["method"] == "clce"]
    assert "minus CE" in page(only_clce, groups)
    lost = {"configuration": lines[1]["configuration"], "error": "MemoryError: none left"}
    text = page([lines[0] | {"warnings": ["fit was cut short"]}, lost], groups)
    assert "``fit was cut short``,1\n" in text
    assert "Few labels,1,27,1\n" in text
    assert "``MemoryError: none left``,1\n" in text


def test_every_setting_is_in_the_file(measured):
    _, lines = measured
    rows = [row.split(",") for row in settings_file(lines).splitlines()]
    assert len(rows) == 1 + len({from_record(line["configuration"]).setting for line in lines})
    header = rows[0]
    of_ce = [
        dict(zip(header, row, strict=True))
        for row in rows
        if row[header.index("method")] == "ce" and row[header.index("learning_rate")] == "0.001"
    ]
    assert {row["accuracy"] for row in of_ce} == {"0.62000"}
    assert {row["seeds"] for row in of_ce} == {"3"}


def test_a_run_scored_with_several_shots_is_a_case_for_each():
    choices = {"data": ["fc100"], "task": ["base"], "shots": [None], "seed": [0, 1, 2]}
    groups = group_of(choices | {"method": ["ce", "clce"]})
    lines = []
    for one in groups["few_labels"].configurations:
        line = line_of(one, 0)
        gain = 0.1 * (one.method == "clce")
        line["metrics"] = {
            f"{name}_{shots}_shot": 0.1 * shots + gain + one.seed / 100
            for name in ("accuracy", "class_mean_accuracy")
            for shots in (1, 5)
        }
        lines.append(line)
    entries = entries_of(results_of(groups["few_labels"].configurations, finished(lines)))
    assert [case.shots for case in plain_entries(entries)] == [1, 5]
    assert page(lines, groups).count(f"**+10.0{PLUS_MINUS}0.0**") >= 4


def test_the_report_writes_page_plots_and_settings(measured, tmp_path):
    groups, lines = measured
    write_report(lines, tmp_path, groups)
    assert (tmp_path / "results.rst").read_text() == page(lines, groups)
    first = (tmp_path / "results" / "few_labels.svg").read_bytes()
    assert b"CLCE" in first
    assert (tmp_path / "results" / "settings.csv").read_text() == settings_file(lines)
    write_report(lines, tmp_path, groups)
    assert (tmp_path / "results" / "few_labels.svg").read_bytes() == first


def test_the_page_says_in_words_what_the_numbers_are():
    digits = {"data": ["digits"], "method": ["ce", "clce"], "seed": [0, 1, 2]}
    groups = {
        "few_labels": group("Few labels", "", digits | {"max_epochs": [10, 20]}),
        "random_start": group(
            "From random",
            "",
            digits | {"max_epochs": [10], "classifier": ["random"]},
            usual={"classifier": "random"},
        ),
        "batch_size": group("Batch size", "", digits | {"batch_size": [8, 16]}),
    }

    def accuracy(one):
        if one.method == "ce":
            return 0.5 + one.max_epochs / 1000
        lead = 0.02 if one.classifier == "zero" else 0.05
        return 0.5 + one.max_epochs / 1000 + lead + one.batch_size / 1000

    runs = dict.fromkeys(run for one in groups.values() for run in one.configurations)
    text = page([line_of(one, accuracy(one)) for one in runs], groups)
    assert "data sets: +5.2 fine-tuned on few labels. Of these 1 cases 1 are clearly" in text
    assert "by batch size: +2.8 at 8, +3.6 at 16." in text
    assert "on digits: +5.2 from a classifier of zeros, +8.2 from one that starts at random" in text
    assert "by budget: +5.2 after 10 epochs at 0.001, +5.2 after 20 epochs at 0.001. CE" in text
    assert "CE itself is at 51.0, 52.0 % there" in text
    assert "Most depends on the budget" not in text  # nothing of transfer
    assert "CLCE minus CE" not in page([], groups)


def test_the_page_names_the_case_that_depends_most_on_the_budget():
    choices = {"data": ["digits", "omniglot"], "max_epochs": [5, 10], "method": ["ce", "clce"]}
    groups = {"transfer": group("Transfer", "", choices | {"seed": [0, 1]})}

    def accuracy(one):
        slope = 0.01 if one.data == "omniglot" else 0.001
        return 0.5 + (one.method == "clce") * slope * (one.max_epochs - 8)

    runs = groups["transfer"].configurations
    text = page([line_of(one, accuracy(one)) for one in runs], groups)
    assert re.search("budget for Omniglot.*: -3.0 after 5 epochs at 0.001, [+]2.0 after 10 ", text)
    brief = [one for one in runs if one.max_epochs == 5]
    text = page([line_of(one, accuracy(one)) for one in brief], groups)
    assert "Most depends on the budget" not in text


def test_batch_sizes_are_drawn(tmp_path):
    runs = product(data=["digits"], method=["ce", "clce"], batch_size=[8, 16], seed=[0, 1])
    groups = {"batch_size": Group("Batch size", "About it.", tuple(runs))}
    lines = [
        line_of(one, 0.5 + one.seed / 10 + (one.method == "clce") * one.batch_size / 100)
        for one in runs
    ]
    write_report(lines, tmp_path, groups)
    assert b"batch size" in (tmp_path / "results" / "batch_size.svg").read_bytes()
    text = (tmp_path / "results.rst").read_text()
    assert 'batch,CLCE minus CE,"CE, MiB","CE + SupCon, MiB","CLCE, MiB"' in text
    assert "   8,+8.0,100,,100\n   16,+16.0,100,,100\n" in text


def test_what_the_readme_says_of_the_results_holds():
    measured = measured_groups(read_lines(command.RESULTS), GROUPS)
    plain = {name: one.plain for name, one in measured.items()}
    for name in ("few_labels", "transfer", "frozen"):
        gains = differences(plain[name], "clce", "ce")
        assert mean_over_data(gains).mean > 0
        assert all(gain.high > 0 for gain in gains.values())
        of_hardness = mean_over_data(differences(plain[name], "clce", "supcon"))
        assert of_hardness.low < 0 < of_hardness.high
    by_size = {size: [] for size in (8, 256)}
    for case, gain in differences(plain["batch_size"], "clce", "ce").items():
        if case.batch_size in by_size:
            by_size[case.batch_size].append(gain.mean)
    assert np.mean(by_size[256]) > np.mean(by_size[8])
    few_steps, many_steps = (
        mean_over_data(differences(at_budget(plain["longer"], (epochs, 1e-3)), "clce", "ce")).mean
        for epochs in (15, 105)
    )
    assert 0 < many_steps < few_steps / 2
    assert mean_over_data(differences(plain["few_shot"], "clce", "ce")).mean < 0


def test_the_page_in_the_documentation_is_that_of_the_lines():
    lines = read_lines(command.RESULTS)
    written = ROOT / "docs" / "results.rst"
    assert (written.read_text() == page(lines)) if lines else not written.exists()
