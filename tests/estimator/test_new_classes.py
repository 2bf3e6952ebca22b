"""add_classes: columns, order of classes, and what follows on the grown classifier."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from model_files import assert_same_model, saved_and_loaded, tiny
from sklearn_clce import CLCEClassifier
from sklearn_clce._head.new_columns import new_columns
from small_fits import head, same_weights, weights_of


@pytest.fixture(scope="module")
def clouds_of_five():
    """Five clouds of 30 samples; their names are not in the order of their codes."""
    rng = np.random.default_rng(0)
    codes = np.arange(150) % 5
    X = rng.normal(size=(150, 8)) + 4 * np.eye(5, 8)[codes]
    return X, np.array(["m", "c", "x", "a", "p"])[codes]


@pytest.fixture
def old_and_new(clouds_of_five):
    X, y = clouds_of_five
    old = np.isin(y, ["m", "c", "x"])
    return X[old], y[old], X[~old], y[~old]


@pytest.fixture
def fitted(old_and_new):
    X, y, *_ = old_and_new
    return head().fit(X, y)


def test_new_classes_are_distinguished_from_old_ones(fitted, old_and_new):
    X, y, X_new, y_new = old_and_new
    assert fitted.add_classes(X_new[:10], y_new[:10]) is fitted
    assert_array_equal(fitted.classes_, ["a", "c", "m", "p", "x"])
    assert fitted.score(X_new[10:], y_new[10:]) > 0.9
    assert fitted.score(X, y) > 0.9


def test_old_columns_and_embeddings_are_unchanged(fitted, old_and_new):
    X, _, X_new, y_new = old_and_new
    before, embeddings = fitted.decision_function(X), fitted.transform(X)
    fitted.add_classes(X_new, y_new)
    assert_array_equal(fitted.decision_function(X)[:, [1, 2, 4]], before)
    assert_array_equal(fitted.transform(X), embeddings)
    assert fitted.predict_proba(X).shape == (len(X), 5)


def test_classes_can_be_added_one_by_one(fitted, old_and_new):
    X, y, X_new, y_new = old_and_new
    for label in ("p", "a"):
        fitted.add_classes(X_new[y_new == label], y_new[y_new == label])
    assert_array_equal(fitted.classes_, ["a", "c", "m", "p", "x"])
    assert fitted.score(np.concatenate([X, X_new]), np.concatenate([y, y_new])) > 0.9


def test_binary_classifier_becomes_multiclass(clouds):
    X, y = clouds
    clf = head().fit(X[y > 0], y[y > 0])
    assert clf.decision_function(X).ndim == 1
    clf.add_classes(X[y == 0], y[y == 0])
    assert clf.decision_function(X).shape == (60, 3)
    assert_array_equal(clf.classes_, [0, 1, 2])


def test_class_of_one_image_can_be_added(fitted, old_and_new):
    X, y, X_new, y_new = old_and_new
    fitted.add_classes(X_new[:1], y_new[:1])
    assert fitted.score(X, y) > 0.8
    assert fitted.predict(X_new[:1]) == y_new[:1]


def test_grown_classifier_pickles_saves_and_trains(old_and_new, tmp_path):
    X, y, X_new, y_new = old_and_new
    clf = head(warm_start=True).fit(X, y).add_classes(X_new, y_new)
    assert_same_model(pickle.loads(pickle.dumps(clf)), clf, X)
    loaded = saved_and_loaded(clf, tmp_path)
    assert_same_model(loaded, clf, X)
    assert_same_model(loaded.add_classes(X_new, ["z"] * len(X_new)), loaded, X)
    everything = np.concatenate([X, X_new]), np.concatenate([y, y_new])
    n_epochs = clf.n_iter_
    assert clf.fit(*everything).n_iter_ == n_epochs + 6
    assert clf.partial_fit(X_new, y_new).n_iter_ == n_epochs + 7
    assert clf.score(*everything) > 0.9
    assert not hasattr(clone(clf), "classes_")
    assert_array_equal(clone(clf).set_params(warm_start=False).fit(X, y).classes_, ["c", "m", "x"])


def test_checkpoint_of_grown_classifier_differs_from_older(old_and_new, tmp_path):
    X, y, X_new, y_new = old_and_new
    clf = head(warm_start=True, checkpoint=tmp_path).fit(X, y).add_classes(X_new, y_new)
    everything = np.concatenate([X, X_new]), np.concatenate([y, y_new])
    again = pickle.loads(pickle.dumps(clf))
    clf.fit(*everything)
    assert same_weights(weights_of(again.fit(*everything)), weights_of(clf))


def test_add_classes_works_after_partial_fit(old_and_new):
    X, y, X_new, y_new = old_and_new
    clf = head().partial_fit(X[y != "x"], y[y != "x"], classes=["c", "m", "x"])  # no x yet
    clf.add_classes(X_new, y_new).partial_fit(X, y)
    assert_array_equal(clf.classes_, ["a", "c", "m", "p", "x"])


@pytest.mark.parametrize("trainable", ["all", "head"])
@pytest.mark.parametrize("projection_dim", [None, 4])
def test_image_classifier_gains_a_class(
    trainable, projection_dim, colour_images, colour_labels, tmp_path
):
    clf = tiny(trainable=trainable, projection_dim=projection_dim)
    clf.fit(colour_images, colour_labels)
    before = clf.decision_function(colour_images)
    inverted = 255 - colour_images[:4]
    clf.add_classes(inverted, ["inverted"] * 4)
    assert_array_equal(clf.classes_, ["inverted", "left", "none"])
    after = clf.decision_function(colour_images)
    assert_allclose(after[:, 2] - after[:, 1], before, rtol=1e-5, atol=1e-6)
    assert_same_model(saved_and_loaded(clf, tmp_path), clf, colour_images)
    clf.partial_fit(inverted, ["inverted"] * 4)


def test_torch_generator_is_unchanged(fitted, old_and_new):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fitted.add_classes(*old_and_new[2:])
    assert torch.rand(1) == expected


def test_add_classes_is_deterministic(old_and_new):
    X, y, X_new, y_new = old_and_new
    first, second = (head().fit(X, y).add_classes(X_new, y_new) for _ in range(2))
    assert same_weights(weights_of(first), weights_of(second))


# labels of fit, labels of add_classes, message
WRONG = {
    "known": ("cm", ["m", "n"], r"known already: \['m'\]; partial_fit trains on more"),
    "numbers among strings": ("cm", [1, 2], r"such as 1, of dtype int64.*such as 'c'.*one kind"),
    "strings among numbers": ([0, 1], ["a", "b"], r"such as 'a'.*such as 0, of dtype int64"),
    "floats among integers": ([0, 1], [2.0, 3.0], r"such as 2.0, of dtype float64"),
    "bools": ([True, False], [True, False], r"known already"),
    "too large": ([-1, 1], np.array([2**63, 2], np.uint64), r"no dtype holds them"),
    "missing": ("cm", ["n", None], r"y\[1\]=None"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_labels_change_nothing(case, clouds):
    X, _ = clouds
    old, new, message = WRONG[case]
    clf = head(max_epochs=1).fit(X, list(old) * 30)
    before = dict(vars(clf))
    weights = weights_of(clf)
    with pytest.raises(ValueError, match=message):
        clf.add_classes(X[:2], new)
    assert vars(clf) == before
    assert same_weights(weights_of(clf), weights)


@pytest.mark.parametrize(
    ("old", "new", "dtype"),
    [
        (["a", "b"], ["longer", "longer"], "<U6"),
        ([0, 1], np.array([7, 7], np.uint8), "int64"),
        (np.array(["a", "b"], object), pd.Series(["c", "c"]), object),
        (np.array(["a", "b"], object), ["c", "c"], object),
    ],
)
def test_labels_of_one_kind_are_merged(old, new, dtype, clouds):
    X, _ = clouds
    clf = head(max_epochs=1).fit(X, np.tile(old, 30)).add_classes(X[:2], new)
    assert clf.classes_.dtype == dtype
    assert clf.classes_[-1] == np.asarray(new)[0]
    assert set(clf.predict(X)) <= set(clf.classes_)


def test_invalid_calls_are_rejected(fitted, old_and_new):
    _, _, X_new, y_new = old_and_new
    with pytest.raises(NotFittedError):
        CLCEClassifier("precomputed").add_classes(X_new, y_new)
    with pytest.raises(ValueError, match="8 features"):
        fitted.add_classes(X_new[:, :3], y_new)
    with pytest.raises(ValueError, match="X and y are swapped"):
        fitted.add_classes(y_new, X_new)
    with pytest.raises(ValueError, match="projection_dim=5: cannot change projection_dim"):
        fitted.set_params(projection_dim=5).add_classes(X_new, y_new)
    assert len(fitted.classes_) == 3


def test_new_columns_classify_and_ignore_class_order():
    generator = torch.Generator().manual_seed(0)
    weight, bias = 4 * torch.eye(3, 5).double(), torch.zeros(3).double()
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    read = 0.1 * torch.randn(6, 5, generator=generator).double()
    read[:, 3:] += torch.eye(2)[labels]
    old = torch.arange(3)
    first = new_columns(weight, bias, old, weight / 4, read, labels)
    # new classes named in another order give the same columns in that order
    second = new_columns(weight, bias, old, weight / 4, read, 1 - labels)
    assert_allclose(first[0], second[0].flip(0), atol=1e-3)
    assert_allclose(first[1], second[1].flip(0), atol=1e-3)
    logits = torch.cat([weight / 4, read]) @ torch.cat([weight, first[0]]).T
    logits += torch.cat([bias, first[1]])
    assert logits.argmax(dim=1).tolist() == [0, 1, 2, 3, 3, 3, 4, 4, 4]


def test_new_columns_are_computed_in_parts(monkeypatch):
    monkeypatch.setattr("sklearn_clce._head.new_columns.MAX_LOGITS", 50)
    weight = 5 * torch.eye(5).double()
    read = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double() - 3
    labels = torch.arange(40) % 2
    columns, bias = new_columns(
        weight, torch.zeros(5).double(), torch.arange(5), 2 * torch.eye(5).double(), read, labels
    )
    assert columns.shape == (2, 5)
    assert torch.isfinite(columns).all()
    assert torch.isfinite(bias).all()
