"""Several labels an image: every public method, with 2 and with 12 labels."""

import pickle
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer

from model_files import saved_and_loaded
from sklearn_clce import (
    AttributionDisplay,
    CLCEClassifier,
    EmbeddingDisplay,
    TopLossesDisplay,
    TrainingCurveDisplay,
)
from small_fits import head, same_weights, weights_of

N = 60


def samples(n_labels, n=N, seed=0):
    """Features whose directions are the labels, and an indicator of these."""
    rng = np.random.default_rng(seed)
    Y = (rng.random((n, n_labels)) < 0.4).astype(int)
    X = 3 * Y @ np.eye(n_labels, n_labels + 2) + rng.normal(size=(n, n_labels + 2))
    return X, Y


@pytest.fixture(scope="module", params=[2, 12])
def n_labels(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(n_labels):
    X, Y = samples(n_labels)
    return head().fit(X, Y), X, Y


def test_outputs_are_those_of_scikit_learn(fitted):
    clf, X, Y = fitted
    assert clf.classes_.tolist() == list(range(Y.shape[1]))
    predicted, probability, logits = clf.predict(X), clf.predict_proba(X), clf.decision_function(X)
    assert predicted.shape == probability.shape == logits.shape == Y.shape
    assert predicted.dtype == Y.dtype
    assert_allclose(probability, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert_array_equal(predicted, (logits > 0).astype(int))
    assert clf.score(X, Y) == (predicted == Y).all(axis=1).mean()
    assert clf.score(X, Y, np.arange(N)) == pytest.approx(
        np.average((predicted == Y).all(axis=1), weights=np.arange(N))
    )


def test_labels_are_learned(fitted):
    clf, _, Y = fitted
    X_new, Y_new = samples(Y.shape[1], seed=1)
    assert average_precision_score(Y_new, clf.predict_proba(X_new)) > 0.9
    assert clf.__sklearn_tags__().classifier_tags.multi_label


@pytest.mark.parametrize(
    "form",
    [
        lambda Y: Y.astype(bool),
        lambda Y: Y.astype(float),
        lambda Y: csr_array(Y),
        lambda Y: torch.from_numpy(Y),
        lambda Y: Y.tolist(),
        lambda Y: list(Y),
        lambda Y: np.ma.array(Y),
        lambda Y: pd.DataFrame(Y).set_axis(range(Y.shape[1]), axis=1).astype("Int64"),
        lambda Y: pd.DataFrame(Y.astype(bool)),
    ],
)
def test_forms_of_indicator_mean_the_same(form, n_labels):
    X, Y = samples(n_labels, 20)
    expected = head(max_epochs=1).fit(X, Y)
    clf = head(max_epochs=1).fit(X, form(Y))
    assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))
    assert clf.score(X, form(Y)) == expected.score(X, Y)


def test_columns_of_a_frame_name_the_labels(n_labels):
    X, Y = samples(n_labels)
    names = [f"label {number:02}" for number in range(n_labels)][::-1]
    frame = pd.DataFrame(Y, columns=names)
    clf = head(max_epochs=2).fit(X, frame)
    assert clf.classes_.tolist() == names
    assert clf.score(X, frame) == clf.score(X, frame[sorted(names)]) == clf.score(X, Y)
    with pytest.raises(ValueError, match=r"columns 'label 00', .*those of the fit are required"):
        clf.score(X, frame[sorted(names)].rename(columns={names[0]: "other"}))
    with pytest.raises(ValueError, match="one for each of the"):
        clf.score(X, Y[:, [0, *range(n_labels)]])
    with pytest.raises(ValueError, match=r"y has columns of one name, 'a': rename them"):
        head().fit(X, frame.set_axis(["a"] * n_labels, axis=1))


def test_lists_of_label_sets_come_through_multilabel_binarizer():
    X, _ = samples(2, 6)
    sets = [("cat", "dog"), ("cat",), ("dog",)] * 2
    with pytest.raises(ValueError, match=r"MultiLabelBinarizer\(\)\.fit_transform\(y\)"):
        head().fit(X, sets)
    with pytest.raises(ValueError, match=r"MultiLabelBinarizer\(\)\.fit_transform\(y\)"):
        head().fit(X, [("cat", "dog")] * 6)
    assert (
        head(max_epochs=1).fit(X, MultiLabelBinarizer().fit_transform(sets)).score(X, X[:, :2] > 2)
    )


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (lambda Y: Y * 2, "should be a 1d array, got an array of shape .* NaN in it means not ann"),
        (lambda Y: Y * 2 - 1, "indicator with a column of 0 and 1"),
        (lambda Y: Y[:-1], "inconsistent numbers of samples"),
        (lambda Y: np.full(Y.shape, np.nan), "no label that is known"),
        (lambda Y: csr_array(Y[:, :1]), "at least two labels are required"),
        (lambda Y: np.zeros((len(Y), 0)), "at least two labels are required"),
        (lambda Y: pd.DataFrame(Y.astype(str)).replace("0", "x"), "indicator with a column of 0"),
    ],
)
def test_other_forms_are_rejected(y, message):
    X, Y = samples(2, 20)
    with pytest.raises(ValueError, match=message):
        head().fit(X, y(Y))


def test_rows_and_columns_without_or_with_all_labels():
    X, Y = samples(4)
    Y[:, 1], Y[:, 2], Y[0] = 0, 1, [0, 0, 1, 0]
    clf = head().fit(X, Y)
    predicted = clf.predict(X)
    assert not predicted[:, 1].any()
    assert predicted[:, 2].all()
    nothing = head(max_epochs=1, weight=0).fit(X, np.zeros_like(Y))
    assert not nothing.predict(X).any()
    with pytest.raises(ValueError, match="score_samples needs the mean of each class"):
        nothing.score_samples(X)


def test_missing_file_is_named_next_to_an_indicator():
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        CLCEClassifier(trainable="head").fit(["gone.jpg", "gone.png"], [[0, 1], [1, 0]])


# labels that are not known


def hidden(Y, share=0.3, seed=2):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(Y.shape) < share, np.nan, Y)


def test_labels_that_are_not_known_do_not_count(n_labels):
    X, Y = samples(n_labels)
    known = hidden(Y)
    other = np.ma.array(np.where(np.isnan(known), 1 - Y, Y), mask=np.isnan(known))
    clf, same = head().fit(X, known), head().fit(X, other)
    assert_array_equal(clf.predict_proba(X), same.predict_proba(X))
    assert clf.score(X, known) == same.score(X, other) >= clf.score(X, Y)
    assert average_precision_score(Y, clf.predict_proba(X)) > 0.85


def test_rows_without_a_known_label_are_left_out():
    X, Y = samples(3)
    gap = np.vstack([Y, np.full((5, 3), np.nan)])
    more = np.vstack([X, 9 + X[:5]])
    clf = head(max_epochs=2).fit(more, gap)
    assert clf.plan_.n_samples == N
    assert_array_equal(clf.predict(X), head(max_epochs=2).fit(X, Y).predict(X))
    assert clf.score(more, gap) == clf.score(X, Y)
    with pytest.raises(ValueError, match="no sample with a weight whose labels are known"):
        clf.score(X[:5], gap[-5:])


def test_label_that_is_nowhere_known_is_undecided():
    X, Y = samples(3)
    known = Y.astype(float)
    known[:, 1] = np.nan
    probability = head(max_epochs=1, weight=0).fit(X, known).predict_proba(X)
    assert_allclose(probability[:, 1], 0.5)


# the criterion


@pytest.mark.parametrize("class_weight", [None, {0: 3.0}, "balanced"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_cross_entropy_is_that_of_a_slow_loop(class_weight, label_smoothing):
    X, Y = samples(3, 20)
    known, weights = hidden(Y), np.arange(1, 21) / 20
    settings = {"class_weight": class_weight, "label_smoothing": label_smoothing}
    clf = head(max_epochs=1, batch_size=20, weight=0, learning_rate=1e-12, **settings)
    clf.fit(X, known, sample_weight=weights)
    total = losses = 0.0
    for i, row in enumerate(clf.predict_proba(X).astype(float)):
        for j, p in enumerate(row):
            if np.isnan(known[i, j]):
                continue
            column, w = known[:, j], np.where(np.isnan(known[:, j]), 0, weights)
            w = weights[i] * {
                None: 1,
                "balanced": w.sum() / 2 / w[column == known[i, j]].sum(),
            }.get(class_weight if class_weight != {0: 3.0} else None)
            if class_weight == {0: 3.0} and j == 0 and known[i, j] == 1:
                w *= 3
            target = (1 - label_smoothing) * known[i, j] + label_smoothing / 2
            losses -= w * (target * np.log(p) + (1 - target) * np.log(1 - p))
            total += w
    assert clf.history_[-1]["train_cross_entropy"] == pytest.approx(losses / total, rel=1e-4)


def test_class_weight_names_labels():
    X, Y = samples(2)
    frame = pd.DataFrame(Y, columns=["dog", "cat"])
    favoured = head(class_weight={"cat": 50.0}).fit(X, frame).predict_proba(X)
    plain = head().fit(X, frame).predict_proba(X)
    assert favoured[:, 1].mean() > plain[:, 1].mean() + 0.05
    with pytest.raises(ValueError, match="class_weight names 'cow', which is not a class"):
        head(class_weight={"cow": 2.0}).fit(X, frame)


# everything around


def test_early_stopping_keeps_label_shares_and_takes_scorers(n_labels):
    X, Y = samples(n_labels)
    for scoring in ("average_precision", "f1_macro", "loss", None):
        clf = head(early_stopping=True, scoring=scoring, validation_fraction=0.3, max_epochs=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of labels that are never predicted
            clf.fit(X, Y)
        assert len(clf.validation_scores_) == 2
        clf.fit(X, Y, X_val=X, y_val=Y)
    assert clf.best_validation_score_ == max(clf.validation_scores_)


def test_scorer_says_that_it_needs_known_labels():
    X, Y = samples(3)
    clf = head(early_stopping=True, scoring="f1_macro", max_epochs=1)
    with pytest.raises(ValueError, match=r"scoring='f1_macro'.* not known.*'accuracy' or 'loss'"):
        clf.fit(X, Y, X_val=X, y_val=hidden(Y))
    clf.set_params(scoring="accuracy").fit(X, Y, X_val=X, y_val=hidden(Y))
    clf.set_params(scoring="loss").fit(X, Y, X_val=X, y_val=hidden(Y))


def test_validation_without_weight_is_still_known():
    X, Y = samples(3)
    clf = head(early_stopping=True, scoring="f1_macro", max_epochs=1)
    weights = np.arange(len(X)) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that are never predicted
        clf.fit(X, Y, X_val=X, y_val=Y, sample_weight_val=weights)
        clf.set_params(class_weight={0: 0.0}).fit(X, Y)


def test_cross_validation_works(n_labels):
    X, Y = samples(n_labels)
    clf = head(max_epochs=1)
    assert cross_val_score(clf, X, Y, cv=2, scoring="average_precision").mean() > 0.7
    assert cross_val_predict(clf, X, Y, cv=2, method="predict_proba").shape == Y.shape
    folds = KFold(2, shuffle=True, random_state=0)
    assert cross_val_score(clf, X, hidden(Y), cv=folds).shape == (2,)


def test_partial_fit_and_warm_start_continue(n_labels):
    X, Y = samples(n_labels)
    frame = pd.DataFrame(Y).add_prefix("l")
    clf = head().partial_fit(X[:30], frame[:30])
    clf.partial_fit(X[30:], frame[30:][frame.columns[::-1]])
    assert clf.classes_.tolist() == frame.columns.tolist()
    assert clf.n_iter_ == 2
    with pytest.raises(ValueError, match="y has one column: an indicator"):
        clf.partial_fit(X, Y[:, 0])
    warm = head(warm_start=True, max_epochs=1).fit(X, Y).fit(X, Y)
    assert warm.n_iter_ == 2
    with pytest.raises(ValueError, match="y has one column: an indicator"):
        warm.fit(X, Y[:, 0])


def test_classes_of_partial_fit_name_columns():
    X, Y = samples(2)
    clf = head().partial_fit(X, Y, classes=["dog", "cat"])
    assert clf.classes_.tolist() == ["dog", "cat"]
    assert clf.partial_fit(X, Y).classes_.tolist() == ["dog", "cat"]
    with pytest.raises(ValueError, match="not the same as on last call to partial_fit"):
        clf.partial_fit(X, Y, classes=["dog", "cow"])
    with pytest.raises(ValueError, match="one for each of the 3 labels"):
        head().partial_fit(X, Y, classes=["dog", "cat", "cow"])


def test_label_that_comes_late_is_learned():
    X, Y = samples(3, 120)
    early = Y[:, 2] == 0
    clf = head().partial_fit(X[early], Y[early])
    assert not clf.predict(X)[:, 2].any()
    clf.partial_fit(X, Y)
    assert average_precision_score(Y[:, 2], clf.predict_proba(X)[:, 2]) > 0.9


def test_new_label_is_learned_without_old_images(n_labels):
    X, Y = samples(n_labels + 1)
    clf = head().fit(X, Y[:, :-1])
    before = clf.decision_function(X)
    clf.add_classes(X[:30], Y[:30, -1])
    assert clf.classes_.tolist() == list(range(n_labels + 1))
    assert_array_equal(clf.decision_function(X)[:, :-1], before)
    assert average_precision_score(Y[30:, -1], clf.predict_proba(X[30:])[:, -1]) > 0.9
    clf.partial_fit(X, np.column_stack([np.full_like(Y[:, :-1], np.nan, float), Y[:, -1]]))
    assert clf.score_samples(X).shape == (N,)


def test_new_labels_are_named():
    X, Y = samples(3)
    clf = head(max_epochs=1).fit(X, pd.DataFrame(Y[:, :2], columns=["dog", "cat"]))
    clf.add_classes(X, pd.Series(Y[:, 2], name="cow"))
    assert clf.classes_.tolist() == ["dog", "cat", "cow"]
    for y, message in [
        (Y[:, 2], "y has no names: the labels are 'dog', 'cat', 'cow'"),
        (pd.DataFrame({"cow": Y[:, 2]}), "known already: 'cow'"),
        (pd.DataFrame({"ant": 1 + 0 * Y[:, 2]}), "images with and without 'ant' are required"),
        (pd.DataFrame({7: Y[:, 2]}), "one kind is required"),
    ]:
        with pytest.raises(ValueError, match=message):
            clf.add_classes(X, y)
    assert clf.predict(X).shape == (N, 3)


def test_novelty_score_is_lower_far_from_training_samples(fitted):
    clf, X, _ = fitted
    assert clf.score_samples(50 - 100 * X).max() < clf.score_samples(X).min()
    assert np.isfinite(clf.calibrate_offset(X).offset_)


def test_model_file_and_pickle_keep_all(fitted, tmp_path):
    clf, X, Y = fitted
    for copy in (saved_and_loaded(clf, tmp_path), pickle.loads(pickle.dumps(clf))):
        assert_array_equal(copy.predict_proba(X), clf.predict_proba(X))
        assert copy.score(X, Y) == clf.score(X, Y)
        assert copy.partial_fit(X, Y).predict(X).shape == Y.shape


def test_model_file_keeps_the_order_of_names(tmp_path):
    X, Y = samples(2)
    clf = head(max_epochs=1).fit(X, pd.DataFrame(Y, columns=["dog", "cat"]))
    assert saved_and_loaded(clf, tmp_path).classes_.tolist() == ["dog", "cat"]


def test_checkpoint_resumes_and_knows_other_labels(tmp_path):
    X, Y = samples(3)
    clf = head(checkpoint=tmp_path, max_epochs=2).fit(X, Y)
    again = clone(clf).set_params(checkpoint=tmp_path)
    again._is_clone = False
    assert same_weights(weights_of(clf), weights_of(again.fit(X, Y)))
    with pytest.raises(ValueError, match=r"another fit: class_weight or sample_weight.* differ"):
        head(checkpoint=tmp_path, max_epochs=2).fit(X, np.where(np.arange(3), Y, np.nan))


def test_onnx_gives_indicator_and_sigmoid(fitted, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    clf, X, Y = fitted
    clf.export_onnx(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    assert names[:4] == ["labels", "probabilities", "embeddings", "scores"]
    labels, probability, _, scores, *_ = session.run(None, {"features": X.astype(np.float32)})
    assert_array_equal(labels, clf.predict(X))
    assert_allclose(probability, clf.predict_proba(X), atol=1e-6)
    assert_allclose(scores, clf.score_samples(X), atol=1e-3)
    assert labels.shape == Y.shape


def test_samplers_and_anchors_without_positive():
    X, Y = samples(12)
    rare = np.eye(60, dtype=int)[np.arange(N)]
    with pytest.warns(UserWarning, match="each class has only one sample"):
        head(max_epochs=1).fit(X, rare)
    pairs = np.repeat(np.eye(30, dtype=int), 2, axis=0)
    clf = head(max_epochs=1, batch_size=8).fit(X, pairs)
    assert clf.plan_.sampler == "balanced"
    assert head(max_epochs=1, sampler="balanced").fit(X, Y).score(X, Y) > 0
    assert head(max_epochs=1).fit(X, Y).plan_.sampler == "shuffle"


@pytest.mark.parametrize("params", [{"trainable": "all"}, {"trainable": "head"}, {"n_views": 2}])
def test_images_are_classified(params, tiny_backbone, colour_images):
    Y = np.random.default_rng(0).integers(0, 2, (len(colour_images), 3))
    params = {"pretrained": False} | params if "trainable" in params else params
    clf = CLCEClassifier(tiny_backbone, max_epochs=1, batch_size=4, random_state=0, **params)
    clf.fit(colour_images, Y, X_val=None)
    assert clf.predict(colour_images).shape == Y.shape
    assert clf.score_samples(colour_images).shape == (len(Y),)


def test_files_are_predicted_into_a_frame(tiny_backbone, colour_images, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(len(colour_images))]
    for path, image in zip(paths, colour_images, strict=True):
        Image.fromarray(image).save(path)
    Y = pd.DataFrame(np.arange(2 * len(paths)).reshape(-1, 2) % 3 == 0, columns=["dog", "cat"])
    clf = CLCEClassifier(tiny_backbone, max_epochs=1, random_state=0).fit(paths, Y)
    frame = clf.predict_frame([*paths[:3], "gone.png"])
    assert_array_equal(frame[["label_dog", "label_cat"]][:3], clf.predict(paths[:3]))
    assert_allclose(frame["probability_cat"][:3], clf.predict_proba(paths[:3])[:, 1], rtol=1e-5)
    assert_allclose(frame["score"][:3], clf.score_samples(paths[:3]), rtol=1e-5)
    assert frame.loc[3, ["label_dog", "label_cat", "score"]].isna().all()


def test_displays_draw_labels(tiny_backbone, colour_images):
    Y = np.random.default_rng(0).integers(0, 2, (len(colour_images), 3))
    frame = pd.DataFrame(hidden(Y, 0.1), columns=["dog", "cat", "cow"])
    clf = CLCEClassifier(tiny_backbone, max_epochs=2, random_state=0).fit(colour_images, frame)
    display = TopLossesDisplay.from_estimator(clf, colour_images, frame, n_images=4)
    assert_allclose(display.label_probability, np.sort(display.label_probability))
    of_cat = TopLossesDisplay.from_estimator(clf, colour_images, frame, label="cat", n_images=99)
    assert set(of_cat.labels) <= {"cat", "not cat"}
    assert len(of_cat.labels) == frame["cat"].notna().sum()
    embedding = EmbeddingDisplay.from_estimator(clf, colour_images, frame, label="cow")
    assert set(embedding.labels) <= {"cow", "not cow", "cow not known"}
    with pytest.raises(ValueError, match="label=None: y holds several labels"):
        EmbeddingDisplay.from_estimator(clf, colour_images, frame)
    with pytest.raises(ValueError, match="label='ant': one of the labels 'dog', 'cat', 'cow'"):
        TopLossesDisplay.from_estimator(clf, colour_images, frame, label="ant")
    attributed = AttributionDisplay.from_estimator(clf, colour_images[:2], target="cat")
    assert_allclose(attributed.probabilities, clf.predict_proba(colour_images[:2])[:, 1], rtol=1e-4)
    TrainingCurveDisplay.from_estimator(clf)
    plt.close("all")


def test_head_is_as_good_as_one_against_the_rest():
    X, Y = samples(12, 200, seed=3)
    X, X_new, Y, Y_new = X[:80], X[80:], Y[:80], Y[80:]
    rest = OneVsRestClassifier(LogisticRegression()).fit(X, Y)
    expected = average_precision_score(Y_new, rest.predict_proba(X_new))
    found = average_precision_score(Y_new, head().fit(X, Y).predict_proba(X_new))
    assert found > expected - 0.01


def test_classes_of_partial_fit_name_an_arrays_columns_in_one_order():
    X, Y = samples(2)
    clf = head(max_epochs=1).partial_fit(X, Y, classes=["dog", "cat"])
    with pytest.raises(ValueError, match="not the same as on last call"):
        clf.partial_fit(X, Y[:, ::-1], classes=["cat", "dog"])
    frame = pd.DataFrame(Y[:, ::-1], columns=["cat", "dog"])
    clf.partial_fit(X, frame, classes=["cat", "dog"])  # a frame names its columns itself
    assert clf.classes_.tolist() == ["dog", "cat"]


def test_score_rejects_another_number_of_rows(fitted):
    clf, X, Y = fitted
    for rows in (1, 3):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            clf.score(X[:4], Y[:rows])


def test_series_without_a_name_is_an_array():
    X, Y = samples(2)
    clf = head(max_epochs=1).fit(X, Y)
    clf.add_classes(X, pd.Series(np.arange(len(X)) % 2))
    assert clf.classes_.tolist() == [0, 1, 2]
