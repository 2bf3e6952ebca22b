"""Validation sets given by the user, and the score of an epoch."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.metrics import accuracy_score, get_scorer, log_loss, make_scorer, silhouette_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from image_kinds import KINDS
from sklearn_clce import CLCEClassifier, TrainingCurveDisplay
from sklearn_clce._training import CLCENet
from small_fits import StopAfter, head, same_weights, weights_of

NAMES = np.array(["c", "a", "b"])


@pytest.fixture(scope="module")
def others():
    """Samples of the clouds that no fit has seen, with their names."""
    rng = np.random.default_rng(1)
    codes = np.arange(30) % 3
    return rng.normal(size=(30, 6)) + 2 * np.eye(3, 6)[codes], NAMES[codes]


def watching(**params):
    """Return a head with early stopping, whose epochs differ."""
    defaults = {"early_stopping": True, "max_epochs": 5, "learning_rate": 0.1, "tol": 0.0}
    return head(**defaults | params)


def error_of_first_class(estimator, X, y):
    return -float((estimator.predict_proba(X)[:, 0] - (y == "a")).std())


def by_embedding(estimator, X, y):
    return silhouette_score(estimator.transform(X), y)


SCORINGS = {
    "accuracy": "accuracy",
    "None": None,
    "neg_log_loss": "neg_log_loss",
    "balanced_accuracy": "balanced_accuracy",
    "roc_auc_ovr": "roc_auc_ovr",
    "made": make_scorer(log_loss, response_method="predict_proba", greater_is_better=False),
    "decision_function": make_scorer(
        lambda y, scores: -abs(scores).mean(), response_method="decision_function"
    ),
    "own": error_of_first_class,
    "embedding": by_embedding,
    "method": lambda estimator, X, y: estimator.score(X, y),
}


@pytest.mark.parametrize("name", SCORINGS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_best_epoch_has_the_best_score(name, n_classes, clouds, others):
    X, codes = (part[clouds[1] < n_classes] for part in clouds)
    X_val, y_val = (part[np.isin(others[1], NAMES[:n_classes])] for part in others)
    if name.startswith("roc_auc") and n_classes == 2:
        name = "roc_auc"
    scoring = SCORINGS.get(name, name)
    clf = watching(scoring=scoring).fit(X, NAMES[codes], X_val=X_val, y_val=y_val)
    assert len(clf.validation_scores_) == clf.n_iter_ == 5
    assert clf.best_validation_score_ == max(clf.validation_scores_)
    scorer = get_scorer(scoring or "accuracy")
    assert clf.best_validation_score_ == pytest.approx(scorer(clf, X_val, y_val), rel=1e-6)


def test_scorer_sees_the_validation_split(clouds):
    X, codes = clouds
    seen = []

    def scorer(estimator, X, y):
        seen.append((X, y))
        return get_scorer("neg_log_loss")(estimator, X, y)

    clf = watching(scoring=scorer, validation_fraction=0.25).fit(X, NAMES[codes])
    (aside, y_aside), *more = seen
    assert all(again is aside for again, _ in more)
    rows = [np.flatnonzero(np.isclose(X, sample).all(axis=1)).item() for sample in aside]
    assert_array_equal(y_aside, NAMES[codes[rows]])
    assert len(rows) == 15
    named = watching(scoring="neg_log_loss", validation_fraction=0.25).fit(X, NAMES[codes])
    assert named.validation_scores_ == clf.validation_scores_
    assert same_weights(weights_of(named), weights_of(clf))


def test_loss_scoring_is_negated(clouds, others):
    X, codes = clouds
    clf = watching(scoring="loss").fit(X, NAMES[codes], X_val=others[0], y_val=others[1])
    losses = np.array(clf.history_[:, "valid_loss"])
    assert_allclose(clf.validation_scores_, -losses)
    assert clf.best_validation_score_ == -losses.min()


def test_all_samples_train_with_given_validation_set(clouds, others):
    X, codes = clouds
    params = {"max_epochs": 1, "early_stopping": True}
    clf = head(**params).fit(X, NAMES[codes], X_val=others[0], y_val=others[1])
    plain = head(max_epochs=1).fit(X, NAMES[codes])
    assert same_weights(weights_of(clf), weights_of(plain))
    assert clf.net_.fit_state is None


def test_training_stops_when_score_stops_rising(clouds, others):
    falling = iter(-np.arange(100.0))
    clf = watching(scoring=lambda *args: next(falling), n_iter_no_change=2, max_epochs=50)
    clf.fit(clouds[0], NAMES[clouds[1]], X_val=others[0], y_val=others[1])
    assert clf.validation_scores_ == [0, -1, -2, -3]
    one = watching(max_epochs=50, callbacks=[StopAfter(1)])
    with pytest.warns(UserWarning, match="interrupted"):
        one.fit(clouds[0], NAMES[clouds[1]], X_val=others[0], y_val=others[1])
    assert same_weights(weights_of(one), weights_of(clf))


def test_validation_uses_sample_weights_but_not_class_weights(clouds, others):
    X_val, y_val = others
    weights = np.random.default_rng(0).random(30) * 7
    for scoring in ("accuracy", "neg_log_loss", "f1_macro"):
        clf = watching(scoring=scoring, class_weight={"a": 9, "b": 1, "c": 1})
        clf.fit(clouds[0], NAMES[clouds[1]], X_val=X_val, y_val=y_val, sample_weight_val=weights)
        expected = get_scorer(scoring)(clf, X_val, y_val, sample_weight=weights)
        assert clf.best_validation_score_ == pytest.approx(expected, rel=1e-6)


def test_network_runs_once_per_epoch_on_validation_set(
    monkeypatch, tiny_backbone, colour_images, colour_labels
):
    runs = []
    infer = CLCENet.infer

    def counted(net, x, **kwargs):
        runs.append((len(x), torch.is_grad_enabled()))
        return infer(net, x, **kwargs)

    monkeypatch.setattr(CLCENet, "infer", counted)

    def scorer(estimator, X, y):
        assert estimator.predict(X).shape == estimator.decision_function(X).shape == y.shape
        return estimator.score(X, y) + estimator.predict_proba(X)[0, 0] / 9

    clf = CLCEClassifier(tiny_backbone, early_stopping=True, scoring=scorer, max_epochs=3)
    clf.fit(colour_images, colour_labels, X_val=colour_images[:5], y_val=colour_labels[:5])
    assert [n for n, training in runs if not training] == [5] * 3


def test_scorer_may_predict_other_samples(tiny_backbone, colour_images, colour_labels):
    asked = []

    def scorer(estimator, X, y):
        asked.append(estimator.predict_proba(colour_images[:3]))
        assert_allclose(estimator.predict_proba(X)[:3], asked[-1], rtol=1e-5)
        return 0.0

    params = {"early_stopping": True, "max_epochs": 2, "random_state": 0}
    clf = CLCEClassifier(tiny_backbone, scoring=scorer, **params)
    clf.fit(colour_images, colour_labels, X_val=colour_images, y_val=colour_labels)
    assert len(asked) == 2
    plain = CLCEClassifier(tiny_backbone, **params)
    plain.fit(colour_images, colour_labels, X_val=colour_images, y_val=colour_labels)
    assert plain.history_[:, "train_loss"] == clf.history_[:, "train_loss"]


def test_frozen_backbone_scores_given_validation_set(tiny_backbone, colour_images, colour_labels):
    seen = []
    tiny_backbone.register_forward_hook(lambda module, images, output: seen.append(len(images[0])))
    clf = CLCEClassifier(tiny_backbone, trainable="head", early_stopping=True, max_epochs=4)
    clf.fit(colour_images, colour_labels, X_val=colour_images[:7], y_val=colour_labels[:7])
    assert len(clf.validation_scores_) == 4
    expected = clf.score(colour_images[:7], colour_labels[:7])
    assert clf.best_validation_score_ == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["array", "channels first", "paths", "PIL", "bands", "flattened"])
def test_validation_set_accepts_every_input_kind(kind, tmp_path, colour_images, colour_labels):
    Image = pytest.importorskip("PIL.Image")
    X, params = colour_images, {}
    if kind == "channels first":
        X = np.ascontiguousarray(X.transpose(0, 3, 1, 2))
    elif kind == "PIL":
        X = [Image.fromarray(image) for image in X]
    elif kind == "paths":
        X = [tmp_path / f"{number}.png" for number in range(12)]
        for path, image in zip(X, colour_images, strict=True):
            Image.fromarray(image).save(path)
        X = pytest.importorskip("pandas").DataFrame({"image": X})
    elif kind == "bands":
        X = np.concatenate([X, X[..., :2]], axis=-1)
    elif kind == "flattened":
        X, params = X.reshape(12, -1), {"image_shape": (16, 20, 3)}
    X_val = X[:4] if isinstance(X, (list, np.ndarray)) else X.iloc[:4]
    backbone = "test_vit" if kind == "bands" else torch.nn.Flatten()
    params |= {"image_size": 32, "pretrained": False} if kind == "bands" else {}
    clf = CLCEClassifier(backbone, early_stopping=True, max_epochs=1, **params)
    clf.fit(X, colour_labels, X_val=X_val, y_val=colour_labels[:4])
    assert clf.best_validation_score_ == clf.score(X_val, colour_labels[:4])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("X_val",), "y_val=None, but X_val is there: .* required together"),
        (("y_val", "sample_weight_val"), "X_val=None, but y_val and sample_weight_val is there"),
        (("sample_weight_val",), "X_val=None, but sample_weight_val is there"),
    ],
)
def test_incomplete_validation_set_is_rejected(given, message, clouds, others):
    whole = {"X_val": others[0], "y_val": others[1], "sample_weight_val": np.ones(30)}
    with pytest.raises(ValueError, match=message):
        watching().fit(clouds[0], NAMES[clouds[1]], **{name: whole[name] for name in given})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:, :3], y, None), "X has 3 features, but CLCEClassifier is expecting 6"),
        (lambda X, y: (X, y[:-1], None), "inconsistent numbers of samples"),
        (lambda X, y: (X, np.full(30, "zebra"), None), r"not in classes: \['zebra'\]; leave their"),
        (lambda X, y: (y, X, None), "X and y are swapped"),
        (lambda X, y: (X, y, np.ones(3)), "sample_weight.shape"),
        (lambda X, y: (X, y, -np.ones(30)), "Negative values"),
        (lambda X, y: (X * np.nan, y, None), "NaN"),
    ],
)
def test_validation_set_errors_are_named(change, message, clouds, others):
    X_val, y_val, weights = change(*others)
    clf = watching()
    with pytest.raises(ValueError, match=f"^X_val and y_val: .*{message}"):
        clf.fit(clouds[0], NAMES[clouds[1]], X_val=X_val, y_val=y_val, sample_weight_val=weights)
    assert not hasattr(clf, "classes_")


def test_validation_set_without_early_stopping_is_rejected(clouds, others):
    with pytest.raises(ValueError, match="early_stopping=False: X_val and y_val are for early"):
        head().fit(clouds[0], NAMES[clouds[1]], X_val=others[0], y_val=others[1])


@pytest.mark.parametrize(
    ("scoring", "error", "message"),
    [
        ("neg_logloss", ValueError, "scoring='neg_logloss': a name .* Did you mean 'neg_log_loss'"),
        (3, ValueError, "The 'scoring' parameter"),
        (lambda *args: "good", TypeError, "scoring='<lambda>' gives 'good': one number"),
        (lambda *args: {"a": 1.0}, TypeError, "one number is required"),
        (lambda *args: np.nan, ValueError, "score, scoring='.*', is nan in epoch 1: does the"),
    ],
)
def test_invalid_scoring_is_reported(scoring, error, message, clouds, others):
    with pytest.raises(error, match=message):
        watching(scoring=scoring).fit(clouds[0], NAMES[clouds[1]], X_val=others[0], y_val=others[1])


def test_nan_score_later_keeps_best_weights(clouds, others):
    scores = iter([0.1, 0.3, 0.2, np.nan])
    clf = watching(scoring=lambda *args: next(scores))
    with pytest.warns(UserWarning, match="cut short in epoch 4: the validation score"):
        clf.fit(clouds[0], NAMES[clouds[1]], X_val=others[0], y_val=others[1])
    assert clf.validation_scores_ == [0.1, 0.3, 0.2]
    two = watching(scoring=lambda *args: 0.0, callbacks=[StopAfter(2)], tol=1.0)
    with pytest.warns(UserWarning, match="interrupted"):
        two.set_params(early_stopping=False).fit(clouds[0], NAMES[clouds[1]])
    assert same_weights(weights_of(two), weights_of(clf))


def test_pipeline_transforms_and_routes_validation_set(clouds, others):
    X, codes = clouds
    shift = np.array([5.0, 0, 0, 0, 0, 0])
    weights = np.random.default_rng(0).random(30)
    with config_context(enable_metadata_routing=True):
        clf = watching(scoring="neg_log_loss")
        clf.set_fit_request(X_val=True, y_val=True, sample_weight_val="weights_val")
        pipeline = make_pipeline(StandardScaler(), clf, transform_input=["X_val"])
        pipeline.fit(
            X + shift, NAMES[codes], X_val=others[0] + shift, y_val=others[1], weights_val=weights
        )
        fitted = pipeline[-1]
        scaled = pipeline[0].transform(others[0] + shift)
    direct = watching(scoring="neg_log_loss")
    direct.fit(
        pipeline[0].transform(X + shift),
        NAMES[codes],
        X_val=scaled,
        y_val=others[1],
        sample_weight_val=weights,
    )
    assert fitted.validation_scores_ == pytest.approx(direct.validation_scores_, rel=1e-6)
    assert fitted.best_validation_score_ == pytest.approx(
        get_scorer("neg_log_loss")(fitted, scaled, others[1], sample_weight=weights), rel=1e-6
    )


def test_warm_start_accepts_another_validation_set(clouds, others):
    X, codes = clouds
    clf = watching(warm_start=True, max_epochs=2)
    clf.fit(X, NAMES[codes], X_val=others[0], y_val=others[1])
    clf.fit(X, NAMES[codes], X_val=others[0][:9], y_val=others[1][:9])
    assert len(clf.validation_scores_) == 2
    assert clf.n_iter_ == 4
    with pytest.raises(ValueError, match="earlier calls have trained on samples that it would set"):
        clf.fit(X, NAMES[codes])


def test_checkpoint_is_tied_to_validation_set(clouds, others, tmp_path):
    X, codes = clouds
    X_val, y_val = others
    clf = watching(checkpoint=tmp_path, scoring="f1_macro")
    clf.fit(X, NAMES[codes], X_val=X_val, y_val=y_val)
    again = watching(checkpoint=tmp_path, scoring="f1_macro")
    again.fit(X, NAMES[codes], X_val=X_val, y_val=y_val)
    assert again.validation_scores_ == clf.validation_scores_
    for change, named in [
        ({"X_val": X_val + 1, "y_val": y_val}, "X_val"),
        ({"X_val": X_val, "y_val": y_val[::-1]}, "y_val"),
        ({"X_val": X_val, "y_val": y_val, "sample_weight_val": np.arange(30)}, "sample_weight_val"),
        ({}, "X_val, sample_weight_val, y_val"),
    ]:
        with pytest.raises(ValueError, match=f"is of another fit: {named} differ"):
            again.fit(X, NAMES[codes], **change)
    with pytest.raises(ValueError, match="is of another fit: scoring differ"):
        again.set_params(scoring="loss").fit(X, NAMES[codes], X_val=X_val, y_val=y_val)


def test_scoring_monitor_works_with_scorer(clouds, others):
    callback = pytest.importorskip("sklearn.callback")
    monitor = callback.ScoringMonitor(scoring="accuracy")
    clf = watching(scoring=error_of_first_class).set_callbacks(monitor)
    clf.fit(clouds[0], NAMES[clouds[1]], X_val=others[0], y_val=others[1])
    assert len(monitor.get_logs().data) == 5


def test_validation_score_is_printed_saved_and_plotted(clouds, others, capsys, tmp_path):
    clf = watching(scoring="neg_log_loss", verbose=1)
    clf.fit(clouds[0], NAMES[clouds[1]], X_val=others[0], y_val=others[1])
    assert f"validation neg_log_loss {clf.validation_scores_[-1]:.3f}" in capsys.readouterr().out
    clf.save(tmp_path / "model.safetensors")
    loaded = CLCEClassifier.load(tmp_path / "model.safetensors")
    assert loaded.validation_scores_ == clf.validation_scores_
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    for scoring, name in [
        ("neg_log_loss", "neg_log_loss"),
        ("loss", "negative loss"),
        (error_of_first_class, "error_of_first_class"),
    ]:
        display = TrainingCurveDisplay.from_estimator(loaded.set_params(scoring=scoring))
        assert_array_equal(display.validation_score, clf.validation_scores_)
        assert [axis.get_ylabel() for axis in display.axes_] == ["loss", name, "learning rate"]


def test_scorer_sees_labels_of_the_user(clouds, others):
    """A scorer sees labels, not indices, even if the labels are numbers."""
    X, codes = clouds
    y_val = np.searchsorted(NAMES, others[1], sorter=np.argsort(NAMES))

    def scorer(estimator, X, y):
        assert set(y) == {10, 20, 30}
        return accuracy_score(y, estimator.predict(X))

    clf = watching(scoring=scorer).fit(
        X, (np.argsort(np.argsort(NAMES))[codes] + 1) * 10, X_val=others[0], y_val=(y_val + 1) * 10
    )
    assert clf.best_validation_score_ == clf.score(others[0], (y_val + 1) * 10)


@pytest.mark.parametrize("scoring", ["accuracy", "loss", "neg_log_loss"])
def test_zero_weight_validation_samples_are_ignored(scoring, clouds, others):
    (X, y), weights = others, np.repeat([0.0, 1.0], 15)  # some batches have no weight
    clf = watching(scoring=scoring, weight=0.0, batch_size=6, max_epochs=3)
    X_train, codes = clouds
    clf.fit(X_train, NAMES[codes], X_val=X, y_val=y, sample_weight_val=weights)
    weighed = clf.validation_scores_
    clf.fit(X_train, NAMES[codes], X_val=X[15:], y_val=y[15:])
    assert_allclose(weighed, clf.validation_scores_, rtol=1e-5)


METHODS = ("predict", "predict_proba", "decision_function", "transform")


def of_second_class(estimator, X, y):
    """Score some samples, and compare their outputs with those of all."""
    chosen = y == np.unique(y)[1]
    by_index = X.iloc if hasattr(X, "iloc") else X
    for name in METHODS:
        method = getattr(estimator, name)
        whole = method(X)[chosen]
        for some in (X[chosen], by_index[np.flatnonzero(chosen)]):
            if whole.dtype.kind == "f":
                assert_allclose(method(some), whole, rtol=1e-4, atol=1e-5)
            else:
                assert_array_equal(method(some), whole)
    for name in ("score_samples", "calibrate_offset"):
        with pytest.raises(ValueError, match="which a fit computes at its end"):
            getattr(estimator, name)(X)
    return estimator.score(X[chosen], y[chosen])


@pytest.mark.parametrize("trainable", ["all", "head"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "datasets" not in kind])
def test_scorer_may_take_part_of_images_set_aside(
    kind, trainable, tiny_backbone, colour_images, colour_labels, tmp_path
):
    X = KINDS[kind](colour_images, tmp_path)
    clf = CLCEClassifier(tiny_backbone, trainable=trainable, early_stopping=True, max_epochs=1)
    clf.set_params(scoring=of_second_class, validation_fraction=0.5, random_state=0)
    clf.fit(X, colour_labels)
    assert len(clf.validation_scores_) == 1


@pytest.mark.parametrize("kind", ["array", "frame", "list", "tensor"])
def test_scorer_may_take_part_of_features_set_aside(kind, clouds):
    X, codes = clouds
    X = {
        "array": lambda: X,
        "frame": lambda: pytest.importorskip("pandas").DataFrame(X).add_prefix("x"),
        "list": X.tolist,
        "tensor": lambda: torch.from_numpy(X),
    }[kind]()
    clf = watching(scoring=of_second_class).fit(X, NAMES[codes])
    given = watching(scoring=of_second_class).fit(X, NAMES[codes], X_val=X, y_val=NAMES[codes])
    assert len(clf.validation_scores_) == len(given.validation_scores_) == 5


def test_scorer_may_save_the_estimator(clouds, tmp_path):
    seen = []

    def scorer(estimator, X, y):
        path = tmp_path / "model.safetensors"
        estimator.save(path)
        loaded = CLCEClassifier.load(path)
        assert_array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
        seen.append((loaded.n_iter_, loaded.validation_scores_))
        with pytest.raises(ValueError, match=r"add_classes needs .* a fit computes at its end"):
            estimator.add_classes(X, ["new"] * len(X))
        return 0.1 * len(seen)

    with pytest.warns(UserWarning, match="scoring=.* can't be stored"):
        watching(scoring=scorer, max_epochs=2).fit(clouds[0], NAMES[clouds[1]])
    assert seen == [(1, []), (2, [pytest.approx(0.1)])]


@pytest.mark.parametrize(
    "masked", [lambda X: np.ma.masked_less(X, 0), lambda X: list(np.ma.array(X))]
)
def test_masked_features_are_rejected(masked, clouds):
    X, codes = clouds
    clf = watching(early_stopping=False).fit(X, codes)
    message = r"X is a masked array: .* X.filled\(0\)"
    for call in (lambda: head().fit(masked(X), codes), lambda: clf.predict(masked(X))):
        with pytest.raises(TypeError, match=message):
            call()
