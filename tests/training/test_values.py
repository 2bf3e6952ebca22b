"""Unusable weights, parameters and data are reported; all others give finite scores."""

import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sklearn_clce import CLCEClassifier
from sklearn_clce.data._samplers import count_parts, resolve_sampler
from small_fits import Recorder, head

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


class Normalised(nn.Module):
    """A backbone whose batch statistics need two samples."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8))

    def forward(self, images):
        return self.layers(images)


def on_images(backbone=None, **params):
    defaults = {"augment": None, "weight": 0.0, "max_epochs": 1, "random_state": 0}
    return CLCEClassifier(backbone or Normalised(), **defaults | params)


@pytest.mark.parametrize(
    ("class_weight", "sample_weight", "message"),
    [
        ({0: 0, 1: 0, 2: 0}, None, "class_weight=.* leaves no sample a weight above 0"),
        ({0: 0, 1: 0}, [1.0, 1.0, 0.0] * 20, "class_weight=.* times sample_weight"),
        ({0: np.nan}, None, "class_weight=.*nan.*must not be negative, infinite or missing"),
        ({0: np.inf}, None, "class_weight=.*inf"),
        (None, [0.0] * 60, "(?i)sample.weight.*zero"),
        (None, [np.inf] * 60, "sample_weight contains infinity"),
        (None, [np.nan] * 60, "sample_weight contains NaN"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_unusable_weights_are_reported(class_weight, sample_weight, message, method, clouds):
    X, codes = clouds
    clf = head(class_weight=class_weight)
    options = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
    with pytest.raises(ValueError, match=message):
        getattr(clf, method)(X, codes, sample_weight=sample_weight, **options)
    assert not hasattr(clf, "classes_")


def test_balanced_weights_ignore_zero_weight_class(clouds):
    X, codes = clouds
    weights = np.where(codes == 1, 0.0, 2.0)
    with_class = head(class_weight="balanced").fit(X, codes, weights)
    assert set(with_class.predict(X)) == {0, 2}
    assert np.isfinite(with_class.predict_proba(X)).all()


weight = st.sampled_from([0.0, 1e-300, 1e-60, 1e-10, 0.5, 1.0, 7.0, 1e30, 1e300])


@few
@given(
    sample_weight=st.lists(weight, min_size=12, max_size=12),
    class_weight=st.one_of(
        st.none(), st.just("balanced"), st.fixed_dictionaries({0: weight, 1: weight, 2: weight})
    ),
    early_stopping=st.booleans(),
)
def test_any_weights_give_finite_scores_or_error(sample_weight, class_weight, early_stopping):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 3)), np.arange(12) % 3
    clf = head(
        max_epochs=2,
        class_weight=class_weight,
        early_stopping=early_stopping,
        validation_fraction=0.5,
        projection_dim=4,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "only .* anchors have a positive|each class has only one")
        try:
            clf.fit(X, y, sample_weight)
        except ValueError as error:
            named = ["weight", "early_stopping=True"]
            assert any(name in str(error) for name in named)  # noqa: PT017
        else:
            assert_allclose(clf.predict_proba(X).sum(axis=1), 1, rtol=1e-5)


@few
@given(
    counts=st.lists(st.booleans(), min_size=12, max_size=12).filter(lambda kept: sum(kept) > 1),
    scale=st.sampled_from([1e-200, 0.25, 1024.0]),
)
def test_zero_weight_sample_is_ignored(counts, scale):
    rng = np.random.default_rng(0)
    kept = np.array([True, True, *counts])
    X, y = rng.normal(size=(14, 3)), np.arange(14) % 2
    params = {"max_epochs": 2, "weight": 0.0, "batch_size": 4}
    weighted = head(**params).fit(X, y, kept * scale)
    without = head(**params).fit(X[kept], y[kept])
    assert_allclose(weighted.predict_proba(X), without.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("smallest", [1e-40, 1e-45])
def test_denormal_column_gives_finite_scores(smallest, clouds):
    X, codes = clouds
    X = np.column_stack([X, np.random.default_rng(0).random(60) * smallest]).astype(np.float32)
    clf = head(max_epochs=20).fit(X, codes)
    assert np.isfinite(clf.predict_proba(X)).all()
    assert clf.score(X, codes) > 0.9


@pytest.mark.filterwarnings("ignore:invalid value encountered in reduce")  # scikit-learn adds up
def test_too_large_features_are_reported(clouds):
    X, codes = clouds
    clf = head().fit(X, codes)
    huge = X.copy()
    huge[3] = 3e38
    for method in (clf.predict, clf.predict_proba, clf.decision_function, clf.transform):
        with pytest.raises(ValueError, match=r"X\[3\] gives scores that are not finite"):
            method(huge)
    with pytest.raises(ValueError, match="X: its features are not finite, or too large"):
        head().fit(np.sign(X) * 3e38, codes)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("train_split", "early_stopping"),
        ("max_epochs", "max_epochs"),
        ("batch_size", "batch_size"),
        ("iterator_train__batch_size", "batch_size"),
        ("iterator_valid__batch_size", "batch_size"),
        ("iterator_train__shuffle", "sampler"),
        ("iterator_valid__num_workers", "num_workers"),
        ("lr", "learning_rate"),
        ("optimizer__lr", "learning_rate"),
        ("optimizer__weight_decay", "weight_decay"),
        ("module", "backbone"),
        ("criterion__weight", "weight"),
        ("callbacks", "callbacks"),
        ("callbacks__early_stopping__patience", "early_stopping"),
        ("patience", "n_iter_no_change"),
        ("warm_start", "warm_start"),
        ("device", "device"),
    ],
)
def test_skorch_param_with_replacement_is_rejected(name, instead, clouds):
    message = f"skorch_params={{{name!r}: ...}} has no effect here: set {instead}"
    with pytest.raises(ValueError, match=re.escape(message)):
        head(skorch_params={name: None}).fit(*clouds)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dataset", "'dataset': ...} has no effect"),
        ("predict_nonlinearity", "'predict_nonlinearity': ...} has no effect"),
        ("optimiser", "no effect here. Did you mean 'optimizer'?"),
        ("iterator_train__bla", "'iterator_train__bla': ...} has no effect"),
        ("callbacks__valid_acc", "'callbacks__valid_acc': ...}: fit needs this callback"),
        ("callbacks__last_good_weights", "last_good_weights': ...}: fit needs this callback"),
    ],
)
def test_skorch_param_without_effect_is_rejected(name, message, clouds):
    with pytest.raises(ValueError, match=re.escape(message)):
        head(skorch_params={name: None}).fit(*clouds)


@pytest.mark.parametrize(
    ("n", "size", "parts"),
    [(5, 2, 2), (5, 4, 2), (9, 4, 3), (3, 2, 1), (4, 2, 2), (1, 8, 1), (3, 1, 3), (65, 32, 3)],
)
def test_count_parts_leaves_no_single_row(n, size, parts):
    assert count_parts(n, size) == parts


@pytest.mark.parametrize(
    ("n", "params"),
    [(5, {"batch_size": 2}), (9, {"batch_size": 9, "micro_batch_size": 4}), (3, {"batch_size": 2})],
)
def test_batch_norm_never_sees_one_sample(n, params, digits):
    sizes = Recorder(lambda net, batch: len(batch[0]))
    clf = on_images(callbacks=[sizes], **params).fit(digits[0][:n], np.arange(n) % 2)
    assert min(sizes.seen) > 1
    assert np.isfinite(clf.predict_proba(digits[0][:1])).all()


def test_partial_fit_accepts_one_sample_without_batch_norm(digits, clouds):
    with pytest.raises(ValueError, match=r"X, batch_size or micro_batch_size .* at least two"):
        on_images().partial_fit(digits[0][:1], [0], classes=[0, 1])
    clf = head(weight=0.0).partial_fit(clouds[0][:1], [0], classes=[0, 1, 2])
    assert_array_equal(clf.partial_fit(clouds[0][:1], [0]).predict(clouds[0][:1]), [0])


@pytest.mark.parametrize("sampler", ["auto", "shuffle", "balanced"])
def test_partial_fit_learns_from_one_class(sampler, clouds):
    X, codes = clouds
    clf = head(sampler=sampler, learning_rate=0.1).partial_fit(X, codes, classes=[0, 1, 2])
    for _ in range(10):
        clf.partial_fit(X[codes == 1], codes[codes == 1])
    assert set(clf.predict(X)) == {1}
    ones = np.ones(9, int)
    assert resolve_sampler(sampler, ones, 4, weight=0.5, n_partners=9 * ones) == "shuffle"


def test_partial_fit_balances_samples_of_the_call(clouds):
    X, codes = clouds
    lopsided = np.flatnonzero((codes == 0) | (np.arange(60) < 6))  # 20 of one class, 2 of another
    kept = lopsided[codes[lopsided] < 2]
    weights = np.where(codes[kept] == 0, 0.1, 1.0)
    params = {"weight": 0.0, "sampler": "shuffle"}
    balanced = head(class_weight="balanced", **params)
    balanced.partial_fit(X[kept], codes[kept], classes=[0, 1, 2])
    by_hand = head(**params).partial_fit(X[kept], codes[kept], [0, 1, 2], sample_weight=weights)
    assert_allclose(balanced.predict_proba(X), by_hand.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("trainable", ["all", "head"])
@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript_backbone_is_rejected(trainable, digits):
    backbone = torch.jit.trace(Normalised().eval(), torch.zeros(2, 3, 8, 8))
    with pytest.raises(
        TypeError, match="backbone=TopLevelTracedModule: TorchScript can be neither"
    ):
        on_images(backbone, trainable=trainable).fit(*digits)


@pytest.mark.parametrize("name", ["trainable", "max_epochs", "batch_size", "n_views", "weight"])
def test_true_is_rejected_as_number(name, clouds):
    with pytest.raises(ValueError, match=f"{name}=True: .*number.* is required"):
        head(**{name: True}).fit(*clouds)


def test_non_finite_backbone_features_are_reported(digits):
    class Broken(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3)) / 0

    with pytest.raises(ValueError, match="backbone: its features are not finite"):
        on_images(Broken(), trainable="head").fit(*digits)
