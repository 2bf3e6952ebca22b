"""Fine-tuning, a head and a logistic regression on the same folds."""

import re

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import sklearn_clce.evaluation._comparison
from sklearn_clce import BackboneFeatures, CLCEClassifier, compare
from sklearn_clce.evaluation._comparison import (
    Comparison,
    _choose,
    passes_of_fit,
    usual_classifiers,
)


@pytest.fixture(scope="module")
def images():
    """Sixty small images of three kinds, uint8 (60, 16, 16, 3), and their labels."""
    rng = np.random.default_rng(0)
    kinds = np.arange(60) % 3
    pixels = rng.integers(0, 150, size=(60, 16, 16, 3), dtype=np.uint8)
    pixels[np.arange(60), :, :, kinds] += 60
    return pixels, np.array(["red", "green", "blue"])[kinds]


@pytest.fixture
def tiny(tiny_backbone):
    return CLCEClassifier(tiny_backbone, max_epochs=1, image_size=16, random_state=0)


def test_comparison_is_paired_and_prints_a_table(images, tiny, capsys):
    result = compare(*images, tiny, others={"guess": DummyClassifier()}, max_time=None, verbose=0)
    assert capsys.readouterr().out == ""
    assert list(result.correct) == ["LogisticRegression", "head", "fine-tuned", "guess"]
    assert all(len(correct) == 60 for correct in result.correct.values())
    assert result.correct["guess"].mean() < 0.5 < result.correct["LogisticRegression"].mean()
    counted, header, *rows = repr(result).splitlines()
    assert counted == "60 of 60 images"
    assert header.split("  ")[-1].strip() == "fit"
    row = r"guess +0\.\d{3} +-\d+\.\d ± \d+\.\d points +1\.10 +[\d.]+ s"
    assert re.fullmatch(row, rows[-1])
    assert "±" not in rows[0]
    frame = result.to_frame()
    assert frame.loc["guess", "lead"] == result.lead("guess")[0]
    assert frame.loc["LogisticRegression", "interval"] == 0


def test_lead_is_over_the_same_images():
    correct = {"a": np.array([True, True, False, False]), "b": np.array([True, True, True, False])}
    result = Comparison(correct, {"a": 1.0, "b": 1.0}, {"a": [1.0], "b": [2.0]}, "a", 4)
    mean, half = result.lead("b")
    assert mean == 25
    assert half == pytest.approx(1.96 * 100 * np.std([0, 0, 1, 0], ddof=1) / 2)


def test_max_time_takes_some_images_of_each_class(images, tiny, capsys, monkeypatch):
    monkeypatch.setattr(BackboneFeatures, "_seconds_per_image", lambda *args: 0.1)
    seen = []

    class Counts(DummyClassifier):
        def fit(self, X, y, **kwargs):
            seen.append(np.unique(y, return_counts=True)[1].tolist())
            return super().fit(X, y, **kwargs)

    # passes: one of the regression, the head and the guess, four of the epoch and what surrounds it
    each = 0.1 * (2 * (1 + 1 + 4 + 1) + 4)
    compare(*images, tiny, others={"guess": Counts()}, max_time=30.5 * each)
    assert f"comparing on 30 of 60 images: about {30 * each:.0f} s\n" in capsys.readouterr().out
    assert np.sum(seen) == 2 * 30
    assert np.ptp(seen) <= 1
    compare(*images, tiny, others={"guess": Counts()}, max_time=0.1)
    assert "comparing on 15 of 60 images" in capsys.readouterr().out
    result = compare(*images, tiny, max_time=1e6, verbose=0)
    assert len(result.correct["head"]) == 60
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("params", "n_passes"),
    [
        ({}, 2 + 2 * 20),
        ({"trainable": "head"}, 1),
        ({"trainable": "all", "max_epochs": 4}, 2 + 3.5 * 4),
        ({"trainable": 2, "max_epochs": 4, "n_views": 2}, 2 + 2 * 4 * 2),
    ],
)
def test_cost_of_a_fit_is_counted_in_passes(params, n_passes):
    assert passes_of_fit(CLCEClassifier(**params)) == n_passes
    assert passes_of_fit(LogisticRegression()) == 1


def test_comparison_shows_which_fit_is_running(images, tiny, monkeypatch):
    shown = []

    class Watches(DummyClassifier):
        def fit(self, *args, **kwargs):
            shown.append(str(sklearn_clce._system.searches.running_search()).split(",")[0])
            return super().fit(*args, **kwargs)

    compare(*images, tiny, others={"watches": Watches()}, max_time=None, verbose=0)
    assert shown == ["fit 10 of 12", "fit 11 of 12", "fit 12 of 12"]


def test_usual_classifiers_share_the_backbone(tiny):
    regression, head, whole = usual_classifiers(tiny.set_params(precision="bfloat16")).values()
    assert regression[0].backbone is tiny.backbone
    assert (regression[0].image_size, regression[0].precision) == (16, "bfloat16")
    assert isinstance(regression[-1], LogisticRegression)
    assert (head.trainable, whole) == ("head", tiny)


def test_comparison_errors(images, tiny):
    with pytest.raises(ValueError, match="backbone='precomputed', which leaves nothing"):
        compare(np.eye(6), [0, 1] * 3, CLCEClassifier("precomputed"))
    with pytest.raises(ValueError, match="'max_time' parameter"):
        compare(*images, tiny, max_time=0)
    with pytest.raises(ValueError, match="n_splits=30"):
        compare(*images, tiny, max_time=None, n_splits=30)


def test_choice_keeps_some_of_each_class():
    labels = np.repeat([0, 1, 2], [500, 500, 20])
    chosen = labels[_choose(labels, 90, 5, np.random.RandomState(0))]
    assert np.bincount(chosen).tolist() == [44, 44, 5]
    assert np.bincount(labels[_choose(labels, 3, 5, np.random.RandomState(0))]).tolist() == [5] * 3


def test_classifier_without_probabilities_is_rejected_before_a_fit(images, tiny):
    with pytest.raises(TypeError, match="others\\['svm'\\] has no predict_proba"):
        compare(*images, tiny, others={"svm": LinearSVC()}, max_time=None)
