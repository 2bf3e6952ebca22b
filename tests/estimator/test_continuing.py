"""Continuing a fit: partial_fit and warm_start."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal

from sklearn_clce import CLCEClassifier
from small_fits import head, same_weights, weights_of


def test_partial_fit_learns_from_parts(clouds):
    X, codes = clouds
    y = np.array(["c", "a", "b"])[codes]
    clf = head()
    for _ in range(10):
        for part in np.array_split(np.arange(60), 3):
            clf.partial_fit(X[part], y[part], classes=["a", "b", "c"])
    assert_array_equal(clf.classes_, ["a", "b", "c"])
    assert clf.score(X, y) > 0.9
    assert clf.n_iter_ == 30
    assert set(clf.history_[:, "lr"]) == {0.01}


def test_partial_fit_accepts_calls_with_missing_classes(clouds):
    X, codes = clouds
    clf = head().partial_fit(X, codes, classes=[0, 1, 2, 3])
    clf.partial_fit(X[codes == 1], codes[codes == 1])
    assert clf.predict_proba(X).shape == (60, 4)


def test_partial_fit_continues_after_fit_and_pickle(clouds):
    X, codes = clouds
    clf = head().fit(X, codes)
    before = weights_of(clf)
    copied = pickle.loads(pickle.dumps(clf))
    for fitted in (clf, copied):
        fitted.partial_fit(X, codes)
        assert fitted.n_iter_ == 7
        assert not same_weights(before, weights_of(fitted))


@pytest.mark.parametrize("name", ["temperature", "weight", "hardness", "label_smoothing"])
def test_partial_fit_applies_changed_criterion_parameters(name, clouds):
    X, codes = clouds
    clf = head().partial_fit(X, codes, classes=[0, 1, 2])
    other = copy.deepcopy(clf).set_params(**{name: 0.9})
    clf.partial_fit(X, codes)
    other.partial_fit(X, codes)
    assert getattr(other.net_.criterion_, name) == 0.9
    assert not same_weights(weights_of(clf), weights_of(other))


def test_partial_fit_applies_changed_learning_rate(clouds):
    X, codes = clouds
    clf = head().partial_fit(X, codes, classes=[0, 1, 2])
    before = weights_of(clf)
    clf.set_params(learning_rate=1e-9, weight_decay=0.0, layer_decay=0.5).partial_fit(X, codes)
    assert all(torch.allclose(v, before[k], atol=1e-6) for k, v in weights_of(clf).items())


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        ([0, 1, 7], None, r"labels that are not in classes: \[7\]"),
        ([0, 1, 2], [0, 1, 2, 3], "is not the same as on last call"),
    ],
)
def test_partial_fit_error_changes_nothing(y, classes, message, clouds):
    X, codes = clouds
    clf = head().partial_fit(X, codes, classes=[0, 1, 2])
    before = clf.predict_proba(X)
    with pytest.raises(ValueError, match=message):
        clf.partial_fit(X[:3], y, classes=classes)
    assert_array_equal(clf.predict_proba(X), before)
    assert_array_equal(clf.classes_, [0, 1, 2])


def test_partial_fit_rejects_early_stopping(clouds):
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        head(early_stopping=True).partial_fit(*clouds, classes=[0, 1, 2])


def test_first_partial_fit_requires_classes(clouds):
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        head().partial_fit(*clouds)


def test_partial_fit_error_mid_epoch_changes_nothing(tiny_backbone, colour_images, colour_labels):
    clf = CLCEClassifier(tiny_backbone, batch_size=4, max_epochs=1, augment=None, random_state=0)
    clf.fit(colour_images, colour_labels)
    before = weights_of(clf)
    X = list(colour_images)
    X[3] = X[3] * 3.7  # out of range, found when its batch is read
    with pytest.raises(ValueError, match=r"X\[3\] has pixels"):
        clf.partial_fit(X, colour_labels)
    assert same_weights(before, weights_of(clf))


def test_warm_start_continues_training(clouds):
    X, codes = clouds
    clf = head(warm_start=True, max_epochs=2).fit(X, codes)
    first = weights_of(clf)
    clf.set_params(learning_rate=1e-9, weight_decay=0.0).fit(X, codes)
    assert all(torch.allclose(v, first[k], atol=1e-6) for k, v in weights_of(clf).items())
    assert clf.n_iter_ == 4
    with pytest.raises(ValueError, match="warm_start=True: y holds the classes"):
        clf.fit(X, codes + 1)


def test_pickle_holds_optimizer_state_only_for_warm_start(clouds):
    X, codes = clouds
    sizes = {
        warm: len(pickle.dumps(head(warm_start=warm, projection_dim=200).fit(X, codes)))
        for warm in (False, True)
    }
    assert sizes[True] > 2.5 * sizes[False]
    warm = head(warm_start=True).fit(X, codes)
    copied = pickle.loads(pickle.dumps(warm))
    assert_array_equal(copied.fit(X, codes).predict_proba(X), warm.fit(X, codes).predict_proba(X))


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("n_classes", [3, 20, 100])
def test_numbers_and_strings_are_distinct_labels(n_classes):
    X, codes = np.eye(n_classes), np.arange(n_classes)
    for y, other in ((codes, codes.astype(str)), (codes.astype(str), codes)):
        clf = head(max_epochs=1, weight=0.0).fit(X, y)
        with pytest.raises(ValueError, match="one kind is required"):
            clf.partial_fit(X[2:3], other[2:3])
        clf.set_params(early_stopping=True)
        with pytest.raises(ValueError, match="one kind is required"):
            clf.fit(X, y, X_val=X[1:], y_val=other[1:])


@pytest.mark.parametrize("dtype", ["Int64", "boolean"])
def test_nullable_label_columns_keep_their_dtype(dtype, clouds):
    X, codes = clouds
    y = pd.Series(codes % 2).astype(dtype)
    for labels in (y, y.to_frame()):
        clf = head(max_epochs=1).fit(X, labels)
        assert clf.classes_.dtype == y.dtype.numpy_dtype
    clf = head().partial_fit(X, y, classes=y.unique())
    assert_array_equal(clf.classes_, [0, 1])
    if dtype == "Int64":
        clf.add_classes(X[:3], pd.Series([7] * 3, dtype=dtype))
        assert_array_equal(clf.classes_, [0, 1, 7])
    y[3] = pd.NA
    with pytest.raises(ValueError, match=r"y\[3\]=<NA>: .* NaN or None in place of 1 of 60"):
        head().fit(X, y)
