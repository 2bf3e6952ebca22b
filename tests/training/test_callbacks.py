"""Callbacks of scikit-learn and skorch in a fit."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.metrics import get_scorer
from skorch.callbacks import (
    BatchScoring,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    LRScheduler,
    TensorBoard,
)

from sklearn_clce import CLCEClassifier
from small_fits import Recorder, head

SCORINGS = ["accuracy", "neg_log_loss", "f1_macro"]


@pytest.mark.parametrize("early_stopping", [False, True])
def test_scoring_monitor_scores_training_data(early_stopping, clouds):
    callback = pytest.importorskip("sklearn.callback")
    X, codes = clouds
    y = np.array(["c", "a", "b"])[codes]
    params = {"max_epochs": 4, "early_stopping": early_stopping, "validation_fraction": 0.3}
    monitor = callback.ScoringMonitor(scoring=SCORINGS)
    with_monitor = head(**params).set_callbacks(monitor).fit(X, y)
    without = head(**params).fit(X, y)
    assert_allclose(with_monitor.predict_proba(X), without.predict_proba(X), rtol=1e-6)
    logged = monitor.get_logs().data
    assert len(logged) == 4
    if not early_stopping:
        last = [get_scorer(name)(with_monitor, X, y) for name in SCORINGS]
        assert_allclose([logged[-1][name] for name in SCORINGS], last, rtol=1e-6)
    n_trained = 42 if early_stopping else 60
    n_correct = np.array([row["accuracy"] for row in logged]) * n_trained
    assert_allclose(n_correct, np.round(n_correct), atol=1e-6)


@pytest.mark.parametrize("kind", ["list", "frame", "tensor", "images"])
def test_scoring_monitor_accepts_every_input_kind(kind, clouds, digits):
    callback = pytest.importorskip("sklearn.callback")
    X, y = clouds
    backbone = "precomputed"
    if kind == "frame":
        pd = pytest.importorskip("pandas")
        X, y = pd.DataFrame(X, columns=list("abcdef")), pd.Series(y)
    elif kind == "images":
        X, y, backbone = torch.from_numpy(digits[0]), digits[1], torch.nn.Flatten()
    else:
        X = X.tolist() if kind == "list" else torch.from_numpy(X)
    monitor = callback.ScoringMonitor(scoring="accuracy")
    clf = CLCEClassifier(backbone, early_stopping=True, max_epochs=2, random_state=0)
    clf.set_callbacks(monitor).fit(X, y)
    assert [0 <= row["accuracy"] <= 1 for row in monitor.get_logs().data] == [True, True]


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_skorch_scoring_uses_validation_data(scoring, n_classes, clouds):
    X, codes = (part[clouds[1] < n_classes] for part in clouds)
    aside = Recorder(lambda net, batch: net.state.validation)
    score = EpochScoring(scoring, lower_is_better=False)
    clf = head(
        early_stopping=True,
        n_iter_no_change=50,
        validation_fraction=0.3,
        max_epochs=3,
        tol=0.0,
        callbacks=[aside, score, ("with_batches", BatchScoring("accuracy", name="by_batch"))],
    ).fit(X, np.array(["x", "y", "z"])[codes])
    validation = aside.seen[0]
    best = int(np.argmax(clf.validation_scores_))
    expected = get_scorer(scoring)(
        clf, validation.features, np.array(["x", "y", "z"])[validation.targets.labels]
    )
    assert clf.history_[best, scoring] == pytest.approx(expected, rel=1e-5)
    if scoring == "accuracy":
        assert clf.history_[:, "accuracy"] == pytest.approx(clf.validation_scores_)
        assert clf.history_[:, "by_batch"] == pytest.approx(clf.validation_scores_)


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize(
    "params", [{}, {"micro_batch_size": 7}, {"n_views": 2}, {"precision": "bfloat16"}]
)
def test_skorch_scoring_uses_training_data(scoring, params, digits):
    X, y = digits
    clf = CLCEClassifier(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16)),
        augment=lambda images: images,
        max_epochs=3,
        random_state=0,
        **params,
    ).fit(X, y)
    score = EpochScoring(scoring, lower_is_better=False, on_train=True, name="it")
    clf.set_params(learning_rate=1e-12, weight_decay=0.0, callbacks=[score]).partial_fit(X, y)
    tolerance = 0.02 if "precision" in params else 1e-4
    assert clf.history_[-1, "it"] == pytest.approx(get_scorer(scoring)(clf, X, y), abs=tolerance)


def test_custom_skorch_score_sees_label_indices(clouds):
    X, codes = clouds

    def labels_are_indices(net, X=None, y=None):
        assert set(np.unique(y)) == {0, 1, 2}
        return float((net.predict(X) == y).mean())

    scores = [EpochScoring(labels_are_indices, on_train=True), EpochScoring(None, on_train=True)]
    clf = head(callbacks=scores, max_epochs=2).fit(X, np.array(["x", "y", "z"])[codes])
    assert clf.history_[:, "labels_are_indices"] == clf.history_[:, "score"]


def test_callbacks_see_samples_with_their_labels(clouds):
    X, codes = clouds
    batches = Recorder(lambda net, batch: (batch[0][:, 0], batch[1]))
    head(callbacks=[batches], max_epochs=1).fit(X, codes)
    label_of = dict(zip(X[:, 0].astype(np.float32).tolist(), codes.tolist(), strict=True))
    for first, labels in batches.seen:
        assert [label_of[value] for value in first.tolist()] == labels.tolist()


def test_skorch_early_stopping_ends_fit_without_warning(clouds):
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9, load_best=True)
    clf = head(callbacks=[stop], max_epochs=20).fit(*clouds)  # a warning would be an error
    assert clf.n_iter_ == 3


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping(),
        EarlyStopping,
        ("stop", EarlyStopping(monitor="valid_acc", lower_is_better=False)),
        Checkpoint(),
        LRScheduler("ReduceLROnPlateau", monitor="valid_loss"),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_validation_callbacks_require_a_validation_set(callback, clouds):
    clf = head(callbacks=[callback])
    with pytest.raises(ValueError, match=r"callbacks: .* monitors 'valid_.* early_stopping=True"):
        clf.fit(*clouds)
    with pytest.raises(ValueError, match="monitors"):
        clf.partial_fit(*clouds, classes=[0, 1, 2])


def test_invalid_callback_is_reported(clouds):
    with pytest.raises(TypeError, match=r"callbacks\[1\] is int: .* \(name, callback\)"):
        head(callbacks=[("stop", EarlyStopping("train_loss")), 3]).fit(*clouds)


def test_skorch_checkpoint_restores_best_weights(clouds, tmp_path):
    kept = Checkpoint(monitor="valid_acc_best", dirname=tmp_path, load_best=True)
    params = {"early_stopping": True, "validation_fraction": 0.3, "max_epochs": 3}
    clf = head(callbacks=[kept], **params).fit(*clouds)
    assert_allclose(
        clf.predict_proba(clouds[0]), head(**params).fit(*clouds).predict_proba(clouds[0])
    )


class Writer:
    """What TensorBoard's SummaryWriter does for skorch."""

    def __init__(self):
        self.written = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.written.append((tag, global_step, float(scalar_value)))

    def close(self):
        pass


def test_tensorboard_logs_both_terms_each_epoch(clouds):
    writer = Writer()
    clf = head(max_epochs=2, callbacks=[TensorBoard(writer)]).fit(*clouds)
    terms = {f"Loss/train_{name}" for name in ("loss", "cross_entropy", "contrastive")}
    assert terms <= {tag for tag, *_ in writer.written}
    losses = [value for tag, _, value in writer.written if tag == "Loss/train_loss"]
    assert_allclose(losses, clf.history_[:, "train_loss"])
