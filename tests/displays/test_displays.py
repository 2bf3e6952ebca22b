"""Displays: what they hold, what they draw, and that labels can be read."""

import os
import subprocess
import sys
from itertools import combinations, pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from sklearn_clce import (
    AttributionDisplay,
    CLCEClassifier,
    EmbeddingDisplay,
    TopLossesDisplay,
    TrainingCurveDisplay,
)
from sklearn_clce.displays._plotting import class_style, shortened

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def classifier(digits):
    X, y = digits
    clf = CLCEClassifier(
        image_size=32, trainable="head", max_epochs=4, early_stopping=True, random_state=0
    )
    return clf.fit(X, y)


def embeddings_of(n_classes, n_rows, label):
    """Make samples around a point for each class."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(n_classes), n_rows)
    middles = rng.normal(size=(n_classes, 16))
    embeddings = middles[codes] + 0.2 * rng.normal(size=(len(codes), 16))
    return embeddings, np.array([label(code) for code in codes])


@pytest.mark.parametrize("dpi", [72, 100, 200])
@pytest.mark.parametrize(
    ("n_classes", "label"),
    [
        (3, lambda code: f"a label of {code} that is longer than anybody would want to read"),
        (10, lambda code: f"class {code}"),
        (100, lambda code: f"species {code:03}"),
    ],
    ids=["3 long", "10", "100"],
)
def test_names_of_all_classes_neither_overlap_nor_leave_the_axes(n_classes, label, dpi):
    embeddings, y = embeddings_of(n_classes, 12, label)
    display = EmbeddingDisplay.from_predictions(y, embeddings=embeddings)
    assert len(display.texts_) == n_classes
    display.figure_.set_dpi(dpi)
    display.figure_.draw_without_rendering()
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in display.texts_]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    axes = display.ax_.bbox.padded(1)
    assert all(axes.contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_names_without_room_are_left_out():
    embeddings, y = embeddings_of(100, 4, lambda code: f"a species with a name {code}")
    _, ax = plt.subplots(figsize=(2, 2))
    display = EmbeddingDisplay.from_predictions(y, embeddings=embeddings, ax=ax)
    assert 0 < len(display.texts_) < 100


def test_class_style_differs_in_more_than_colour():
    styles = [tuple(class_style(code).values()) for code in range(42)]
    assert len(set(styles)) == 42
    assert all(one[0] != other[0] and one[1] != other[1] for one, other in pairwise(styles))


def test_misclassified_samples_get_a_ring():
    embeddings, y = embeddings_of(3, 5, str)
    predicted = y.copy()
    predicted[[0, 7]] = "2"
    display = EmbeddingDisplay.from_predictions(y, predicted, embeddings=embeddings)
    rings = display.ax_.collections[-1]
    np.testing.assert_allclose(rings.get_offsets(), display.points[[0, 7]])
    assert rings.get_label() == "misclassified: 2 of 15"


def test_pca_keeps_distances_and_tsne_its_seed():
    embeddings, y = embeddings_of(3, 8, str)
    flat = np.pad(embeddings[:, :2], ((0, 0), (0, 3)))
    display = EmbeddingDisplay.from_predictions(y, embeddings=flat)
    distances = [
        np.linalg.norm(points[:, None] - points[None], axis=2) for points in (flat, display.points)
    ]
    np.testing.assert_allclose(*distances, atol=1e-9)
    runs = [
        EmbeddingDisplay.from_predictions(y, embeddings=embeddings, method="tsne", random_state=3)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0].points, runs[1].points)


def test_thumbnails_are_read_when_drawn_misclassified_first(tmp_path):
    embeddings, y = embeddings_of(2, 6, str)
    paths = [str(tmp_path / f"{row}.png") for row in range(12)]
    for path in paths:
        Image.new("RGB", (300, 200)).save(path)
    predicted = y.copy()
    predicted[8] = "0"
    display = EmbeddingDisplay.from_predictions(
        y, predicted, embeddings=embeddings, X=paths, thumbnails=1
    )
    boxes = [a for a in display.ax_.artists if type(a).__name__ == "AnnotationBbox"]
    assert len(boxes) == 1
    np.testing.assert_allclose(boxes[0].xy, display.points[8])


@pytest.mark.parametrize("spread", [1.0, 1e-6], ids=["apart", "on a heap"])
def test_forty_thumbnails_do_not_overlap(spread):
    rng = np.random.default_rng(0)
    images = rng.random((60, 8, 8))
    embeddings = spread * rng.normal(size=(60, 4))
    display = EmbeddingDisplay.from_predictions(
        np.repeat(["a", "b", "c"], 20), embeddings=embeddings, X=images, thumbnails=40
    )
    thumbnails = [a for a in display.ax_.artists if type(a).__name__ == "AnnotationBbox"]
    assert len(thumbnails) == 40
    display.figure_.draw_without_rendering()
    boxes = [thumbnail.offsetbox.get_window_extent() for thumbnail in thumbnails]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_thumbnails_come_from_all_parts_of_the_data():
    embeddings, y = embeddings_of(4, 10, str)
    display = EmbeddingDisplay.from_predictions(
        y, embeddings=embeddings, X=np.zeros((40, 4, 4)), thumbnails=8
    )
    thumbnails = [a for a in display.ax_.artists if type(a).__name__ == "AnnotationBbox"]
    places = {tuple(point) for point in display.points.tolist()}
    classes = {y[display.points.tolist().index(list(thumbnail.xy))] for thumbnail in thumbnails}
    assert {tuple(thumbnail.xy) for thumbnail in thumbnails} <= places
    assert classes == {"0", "1", "2", "3"}


def test_thumbnails_without_room_are_counted_in_a_warning():
    embeddings, y = embeddings_of(2, 20, str)
    _, ax = plt.subplots(figsize=(1.5, 1.5))
    with pytest.warns(UserWarning, match=r"thumbnails=40: there is room for \d+; pass larger"):
        EmbeddingDisplay.from_predictions(
            y, embeddings=embeddings, X=np.zeros((40, 4, 4)), thumbnails=40, ax=ax
        )


def test_embeddings_of_an_estimator(classifier, digits):
    X, y = digits
    display = EmbeddingDisplay.from_estimator(classifier, X, y, thumbnails=5)
    assert display.points.shape == (len(X), 2)
    np.testing.assert_array_equal(display.predictions, classifier.predict(X))
    assert display.figure_ is display.ax_.figure
    assert "% of the variance" in display.ax_.get_xlabel()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["0", "1", "2"], "y holds labels such as '0', .* one kind is required"),
        ([0, 1, 17], r"not in classes: \[17\]; from_predictions draws embeddings with any labels"),
    ],
)
def test_labels_unknown_to_the_estimator_are_rejected(labels, message, classifier, digits):
    with pytest.raises(ValueError, match=message):
        EmbeddingDisplay.from_estimator(classifier, digits[0][:3], labels)


def test_embeddings_of_a_pipeline(classifier, digits):
    X, y = digits
    pipeline = make_pipeline(FunctionTransformer(), classifier)
    display = EmbeddingDisplay.from_estimator(pipeline, X[:20], y[:20])
    assert display.points.shape == (20, 2)


def test_display_draws_again_on_other_axes():
    embeddings, y = embeddings_of(3, 5, str)
    display = EmbeddingDisplay.from_predictions(y, embeddings=embeddings)
    first = display.ax_
    _, ax = plt.subplots()
    assert display.plot(ax) is display
    assert display.ax_ is ax is not first


def test_training_curves_are_those_of_the_history(classifier):
    display = TrainingCurveDisplay.from_estimator(classifier)
    names = ["loss", "accuracy", "learning rate"]
    assert [axis.get_ylabel() for axis in display.axes_] == names
    history = classifier.history_
    for line, key in zip(
        display.axes_[0].lines,
        ["train_cross_entropy", "train_contrastive", "train_loss", "valid_loss"],
        strict=True,
    ):
        np.testing.assert_array_equal(line.get_ydata(), [row[key] for row in history])
    np.testing.assert_array_equal(display.validation_score, classifier.validation_scores_)
    best = f"best {classifier.best_validation_score_:.3f}"
    assert best in display.axes_[1].get_legend().get_texts()[0].get_text()
    np.testing.assert_array_equal(display.learning_rate, [row["lr"] for row in history])


def test_training_curves_without_contrastive_term_or_validation(digits):
    X, y = digits
    clf = CLCEClassifier(
        image_size=32, trainable="head", weight=0, max_epochs=1, random_state=0
    ).fit(X, y)
    _, ax = plt.subplots()
    display = TrainingCurveDisplay.from_estimator(clf, ax=ax)
    assert display.contrastive is None
    assert display.validation_score is None
    assert [axis.get_ylabel() for axis in display.axes_] == ["loss", "learning rate"]
    assert len(display.axes_[0].lines) == 1
    assert display.ax_ is ax


def test_scores_that_are_all_missing_have_no_best_one():
    scores = np.full(2, np.nan)
    display = TrainingCurveDisplay(np.ones(2), validation_score=scores).plot()
    (name,) = display.axes_[1].get_legend().get_texts()
    assert name.get_text() == "validation"
    assert len(display.axes_[1].lines) == 1


def test_top_losses_are_the_samples_of_lowest_probability():
    X = np.arange(4 * 64).reshape(4, 8, 8) / 256
    y = ["cat", "dog", "cat", "cat"]
    proba = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    display = TopLossesDisplay.from_predictions(y, proba, X=X, classes=["cat", "dog"], n_images=3)
    assert display.labels.tolist() == ["cat", "dog", "cat"]
    assert display.predictions.tolist() == ["dog", "cat", "cat"]
    np.testing.assert_allclose(display.label_probability, [0.2, 0.3, 0.6])
    np.testing.assert_allclose(display.images[0], X[2], rtol=1e-6)
    captions = [axis.get_title() for axis in display.axes_]
    assert captions[0] == "X[2]\nlabel: cat,\npredicted: dog 80 %"
    assert captions[2] == "X[3]\ncorrect: cat 60 %"
    assert display.indices.tolist() == [2, 1, 3]
    assert display.paths == [None, None, None]
    frames = [axis.spines["top"].get_edgecolor() for axis in display.axes_]
    assert frames[0] == frames[1] != frames[2]


@pytest.mark.parametrize("kind", [list, np.array, lambda paths: [(path, 0) for path in paths]])
def test_top_losses_name_the_files(tmp_path, kind):
    paths = [tmp_path / "cats" / "1.png", tmp_path / "dogs" / "a_name_that_has_no_end.png"]
    for path in paths:
        path.parent.mkdir()
        Image.new("RGB", (8, 8)).save(path)
    display = TopLossesDisplay.from_predictions(
        ["cat", "dog"],
        np.full((2, 2), 0.5),
        X=kind([str(p) for p in paths]),
        classes=["cat", "dog"],
    )
    assert display.paths == [str(path) for path in paths]
    captions = [axis.get_title().split("\n")[0] for axis in display.axes_]
    assert captions == ["X[0] cats/1.png", "X[1] a_name_tha…no_end.png"]


def test_top_losses_without_indices_and_paths():
    display = TopLossesDisplay(
        [np.zeros((4, 4))],
        ["cat"],
        predictions=["cat"],
        label_probability=[0.6],
        prediction_probability=[0.6],
    ).plot()
    assert display.axes_[0].get_title() == "correct: cat 60 %"


def test_top_losses_of_an_estimator_and_large_images(classifier, digits, photos):
    display = TopLossesDisplay.from_estimator(classifier, photos, [0, 2], n_images=5)
    assert len(display.axes_) == 2
    assert display.images[0].shape == (149, 224, 3)
    X, y = digits
    proba = classifier.predict_proba(X)
    grid = TopLossesDisplay.from_estimator(classifier, X, y)
    assert grid.label_probability[0] == proba[np.arange(len(y)), y].min()
    assert len(grid.axes_) == 9


def test_images_are_read_as_the_estimator_reads_them():
    """With its max_pixel_value and channels: here 15, and two."""
    X = np.random.default_rng(0).integers(0, 16, (6, 2, 9, 9))
    backbone = nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    clf = CLCEClassifier(backbone, max_pixel_value=15, n_channels=2, max_epochs=1, random_state=0)
    y = np.arange(6) % 2
    clf.fit(X, y)
    top = TopLossesDisplay.from_estimator(clf, X, y)
    np.testing.assert_allclose(top.images[0], X[top.indices[0]].mean(axis=0) / 15, rtol=1e-6)
    display = EmbeddingDisplay.from_estimator(clf, X, y, thumbnails=2)
    np.testing.assert_allclose(display.images[0], X[0] / 15, rtol=1e-6)


NO_FORMULA = r"10$ ^ 20$_{"


def test_names_are_no_formulas():
    """Matplotlib raises on a formula that it can't parse."""
    classes, proba = [NO_FORMULA, "other"], np.full((2, 2), 0.5)
    X = np.zeros((2, 8, 8))
    embeddings, codes = embeddings_of(2, 3, int)
    displays = [
        EmbeddingDisplay.from_predictions(np.array(classes)[codes], embeddings=embeddings),
        EmbeddingDisplay(embeddings[:, :2], codes, axis_names=(NO_FORMULA, NO_FORMULA)).plot(),
        TopLossesDisplay.from_predictions(classes, proba, X=X, classes=classes),
        AttributionDisplay(X, X, targets=classes, probabilities=proba[0]).plot(),
        TrainingCurveDisplay([1.0], validation_score=np.ones(1), score_name=NO_FORMULA).plot(),
    ]
    for display in displays:
        display.figure_.draw_without_rendering()
    assert NO_FORMULA in [text.get_text() for text in displays[0].texts_]


def test_names_that_are_not_utf8_are_drawn(tmp_path):
    classes = ["other", os.fsdecode(b"\xe9cole")]
    paths = [str(tmp_path / "1.png"), str(tmp_path / os.fsdecode(b"gar\xe7on.png"))]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    proba, X = np.full((2, 2), 0.5), np.zeros((2, 8, 8))
    embeddings, codes = embeddings_of(2, 3, int)
    top = TopLossesDisplay.from_predictions(classes, proba, X=paths, classes=classes)
    displays = [
        top,
        EmbeddingDisplay.from_predictions(np.array(classes)[codes], embeddings=embeddings),
        AttributionDisplay(X, X, targets=classes, probabilities=proba[0]).plot(),
    ]
    for display in displays:
        display.figure_.canvas.draw()
        repr(display).encode()
    assert top.axes_[0].get_title().endswith("1.png\ncorrect: other 50 %")
    lines = ["X[1] gar?on.png", "label: ?cole,", "predicted: other 50 %"]
    assert top.axes_[1].get_title().split("\n") == lines


def test_repr_says_what_a_display_holds(classifier):
    embeddings, y = embeddings_of(3, 5, str)
    proba = np.array([[0.9, 0.1], [0.7, 0.3]])
    top = TopLossesDisplay.from_predictions(
        ["a", "b"], proba, X=np.zeros((2, 8, 8)), classes=["a", "b"]
    )
    displays = [
        EmbeddingDisplay(embeddings[:, :2], y),
        EmbeddingDisplay(embeddings[:, :2], y, predictions=np.roll(y, 1)),
        top,
        TrainingCurveDisplay.from_estimator(classifier),
    ]
    assert [repr(display) for display in displays] == [
        "EmbeddingDisplay(15 samples of 3 classes)",
        "EmbeddingDisplay(15 samples of 3 classes, 3 misclassified)",
        "TopLossesDisplay(2 images, 1 misclassified)",
        f"TrainingCurveDisplay({classifier.n_iter_} epochs: loss, accuracy, learning rate)",
    ]


def test_captions_do_not_overlap():
    classes = np.array([f"label {code} as long as this is nothing to be read" for code in range(9)])
    display = TopLossesDisplay.from_predictions(
        classes, np.full((9, 9), 1 / 9), X=np.zeros((9, 30, 20)), classes=classes
    )
    display.figure_.draw_without_rendering()
    boxes = [axis.title.get_window_extent() for axis in display.axes_]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("abcdefghijk", "abcd…ijk"),
        ("a\n b", "a b"),
        ("one two three", "one…ree"),
    ],
)
def test_long_label_keeps_both_ends(text, expected):
    assert shortened(text, 8) == expected


EMBEDDINGS, LABELS = embeddings_of(2, 3, str)
PROBA = np.full((6, 2), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "umap"}, "method='umap': 'pca' or 'tsne'"),
        ({"embeddings": EMBEDDINGS[:4]}, "y_true has 6 rows and embeddings 4"),
        ({"y_pred": LABELS[:2]}, "y_pred has 2 rows and embeddings 6"),
        ({"embeddings": EMBEDDINGS[:, :1]}, r"shape \(6, 1\): at least three rows and two columns"),
        ({"thumbnails": 3}, "thumbnails=3: the display has no images"),
        ({"thumbnails": -1}, "thumbnails=-1: an integer of at least 0"),
    ],
)
def test_wrong_embeddings_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingDisplay.from_predictions(
            **{"y_true": LABELS, "embeddings": EMBEDDINGS} | arguments
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_images": 0}, "n_images=0: an integer of at least 1"),
        ({"y_proba": PROBA[:4]}, r"y_proba of shape \(4, 2\): a row for each of 6 labels"),
        ({"classes": ["0", "3"]}, r"labels that are not in classes: \['1'\]"),
        ({"classes": ["1", "0"]}, r"classes=\['1', '0'\]: two or more labels .* sorted"),
    ],
)
def test_wrong_probabilities_are_rejected(arguments, message):
    given = {"y_true": LABELS, "y_proba": PROBA, "X": np.zeros((6, 4, 4)), "classes": ["0", "1"]}
    with pytest.raises(ValueError, match=message):
        TopLossesDisplay.from_predictions(**given | arguments)


@pytest.mark.parametrize("display", [EmbeddingDisplay, TopLossesDisplay, TrainingCurveDisplay])
def test_estimator_must_be_fitted(display):
    data = () if display is TrainingCurveDisplay else (np.zeros((3, 8, 8)), [0, 1, 0])
    with pytest.raises(NotFittedError):
        display.from_estimator(CLCEClassifier(), *data)


def test_missing_matplotlib_error_names_the_remedy():
    code = (
        "import sys; sys.modules['matplotlib'] = sys.modules['matplotlib.pyplot'] = None\n"
        "from sklearn_clce import TrainingCurveDisplay\n"
        "TrainingCurveDisplay([1.0]).plot()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "not installed: python -m pip install matplotlib" in result.stderr
