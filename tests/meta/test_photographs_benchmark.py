"""Benchmarks on photographs of unknown classes and classes added later."""

import io

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from benchmarks import lower_blocks, new_classes, novelty, photographs
from sklearn_clce import BackboneFeatures, CLCEClassifier
from small_backbones import TinyBackbone
from small_fits import head

COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]])
N_FILES, N_TRAINING = 88, 32
LOGITS = {"score_samples", "energy", "maximum logit", "maximum softmax"}
DISTANCES = {"class means", "Mahalanobis", "neighbour"}


def small(backbone="tiny", **params):
    """Replace CLCEClassifier: a tiny backbone and one epoch."""
    if backbone == "precomputed":
        return head(max_epochs=1, **params)
    return CLCEClassifier(TinyBackbone(), image_size=8, max_epochs=1, **params)


def small_features(*args, **params):
    return BackboneFeatures(TinyBackbone(), image_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of four colours in the file of a real set; the first eight of each train."""
    rng, files, labels = np.random.default_rng(0), [], np.arange(N_FILES) % 4
    for label in labels:
        picture = np.clip(COLOURS[label] + rng.integers(-40, 40, (8, 8, 3)), 0, 255)
        Image.fromarray(picture.astype(np.uint8)).save(file := io.BytesIO(), "JPEG")
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    folder = tmp_path_factory.mktemp("data")
    np.savez(
        folder / "dtd10.npz",
        jpeg=np.concatenate(files),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=labels,
        split=np.where(np.arange(N_FILES) < N_TRAINING, "train", "test"),
    )
    return folder


@pytest.fixture
def printed(folder, capsys, monkeypatch):
    """Return the lines that a benchmark of small classifiers prints."""

    def lines(module, *options):
        monkeypatch.setattr(module, "CLCEClassifier", small)
        arguments = ["--data", folder, "--sets", "dtd10", "--draws", 1, *options]
        monkeypatch.setattr("sys.argv", ["benchmark", *map(str, arguments)])
        module.main()
        return capsys.readouterr().out.splitlines()

    return lines


def test_photographs_have_files_and_labels(folder):
    files, y, train = photographs.photographs("dtd10", folder)
    assert Image.open(io.BytesIO(files[1])).size == (8, 8)
    assert_array_equal(y, np.arange(N_FILES) % 4)
    assert_array_equal(train, np.arange(N_FILES) < N_TRAINING)


def test_images_are_sampled_from_known_classes(folder):
    _, y, train = photographs.photographs("dtd10", folder)
    known, unknown = photographs.draw_classes(y, seed=0)
    assert len(known) == 3
    assert_array_equal(np.sort([*known, *unknown]), np.arange(4))
    drawn = photographs.draw_pictures(y, train, known, 2, seed=0)
    assert_array_equal(y[drawn], np.repeat(known, 2))
    assert train[drawn].all()
    assert len(set(drawn)) == 6


@pytest.mark.parametrize("way", ["--features", "--trained"])
def test_novelty_benchmark_prints_sorted_scores(way, printed, tmp_path):
    lines = printed(novelty, "--pictures", 8, way, *([tmp_path] if way == "--features" else []))
    titles = [line for line in lines if line.endswith("under the ROC curve")]
    assert titles == [
        f"{criterion}, 8 pictures of a class: area under the ROC curve"
        for criterion in ("CE", "CLCE")
    ]
    spaces = ("embedding", "features") if way == "--features" else ("embedding",)
    names = LOGITS | {f"{distance}, {space}" for distance in DISTANCES for space in spaces}
    for title in titles:
        start = lines.index(title) + 2
        rows = [line.rsplit(maxsplit=2) for line in lines[start : start + len(names)]]
        assert {name.strip() for name, *_ in rows} == names
        means = [float(mean) for *_, mean in rows]
        assert means == sorted(means, reverse=True)
        assert 0 <= means[-1] <= means[0] <= 1


def test_new_class_benchmark_prints_accuracies(printed, tmp_path):
    lines = printed(new_classes, "--features", tmp_path)
    titles = [line for line in lines if line.endswith(" of an old one")]
    assert [title.split()[0] for title in titles] == ["1", "5", "15"]
    ways = ("add_classes", "again", "again, balanced")
    assert all(f"{way}: old / new / mean" in lines[1] for way in ways)
    cells = lines[2].replace("/", " ").split()
    assert cells[0] == "dtd10"
    assert len(cells) == 2 + 3 * len(ways)
    assert all(0 <= float(cell) <= 100 for cell in cells[1:])


def test_lower_blocks_benchmark_prints_differences(printed, tmp_path, monkeypatch):
    monkeypatch.setattr(lower_blocks, "BackboneFeatures", small_features)
    lines = printed(lower_blocks, "--features", tmp_path, "--pictures", 5)
    assert lines[0] == "efficientnet_lite0, points of accuracy"
    rows = {line[: line.index(",")].strip(): line.split() for line in lines[2:4]}
    assert set(rows) == {"head minus regression", "with blocks minus head"}
    assert all(-100 <= float(row[-1]) <= 100 for row in rows.values())


def test_benchmark_options_exclude_each_other(printed):
    for options in ([], ["--trained", "--features", "here"]):
        with pytest.raises(SystemExit):
            printed(novelty, *options)
    with pytest.raises(SystemExit):
        printed(new_classes, "--trained")
