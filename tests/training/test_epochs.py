"""How many epochs a fit has that names none: a head few, where its closed form is nearly enough."""

import numpy as np
import pytest

from sklearn_clce import CLCEClassifier


def features(n):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    return rng.normal(size=(n, 6)) + np.eye(3, 6)[labels], labels


def head(**params):
    return CLCEClassifier("precomputed", **{"random_state": 0, "batch_size": 128} | params)


@pytest.mark.parametrize(
    ("n_samples", "epochs"), [(9, 20), (30, 20), (33, 19), (300, 2), (1000, 1), (1001, 20)]
)
def test_head_sees_as_many_samples_of_a_class_whatever_their_number(n_samples, epochs):
    clf = head().fit(*features(n_samples))
    assert clf.n_iter_ == clf.plan_.max_epochs == epochs


def test_more_classes_take_more_epochs():
    X, _ = features(300)
    assert head().fit(X, np.arange(300) % 3).n_iter_ == 2
    assert head().fit(X, np.arange(300) % 12).n_iter_ == 8


def test_several_labels_count_by_the_rarest_of_a_sample():
    X, labels = features(300)
    assert head().fit(X, np.eye(3, dtype=int)[labels]).n_iter_ == 2
    assert head().fit(X, np.eye(3, dtype=int)[labels] | (0, 0, 1)).n_iter_ == 2


@pytest.mark.parametrize(
    "params",
    [{"projection_dim": 4}, {"weight": 1.0}, {"early_stopping": True, "n_iter_no_change": 30}],
)
def test_head_whose_embedding_or_best_epoch_is_wanted_has_twenty(params):
    assert head(**params).fit(*features(300)).n_iter_ == 20


def test_head_without_a_projection_has_few():
    assert head(projection_dim=None).fit(*features(300)).n_iter_ == 2


@pytest.mark.parametrize("epochs", [1, 3])
def test_named_number_is_what_it_was(epochs):
    clf = head(max_epochs=epochs).fit(*features(300))
    assert clf.n_iter_ == clf.plan_.max_epochs == epochs


def test_backbone_that_trains_has_twenty(tiny_backbone, colour_images, colour_labels):
    images, labels = np.repeat(colour_images, 6, axis=0), np.repeat(colour_labels, 6)
    settings = {"image_size": 8, "batch_size": 64, "random_state": 0}
    clf = CLCEClassifier(tiny_backbone, **settings).fit(images, labels)
    assert clf.n_iter_ == 20


def test_augmented_head_has_twenty(tiny_backbone, colour_images, colour_labels):
    images, labels = np.repeat(colour_images, 6, axis=0), np.repeat(colour_labels, 6)
    settings = {"trainable": "head", "image_size": 8, "batch_size": 64, "random_state": 0}
    clf = CLCEClassifier(tiny_backbone, **settings).fit(images, labels)
    assert clf.n_iter_ == 6
    clf.set_params(augment=lambda batch: batch.flip(-1)).fit(images, labels)
    assert clf.n_iter_ == 20


def test_warm_start_decides_again_and_partial_fit_is_one_epoch():
    X, y = features(300)
    clf = head(warm_start=True).fit(X, y)
    assert clf.fit(X[:150], y[:150]).n_iter_ == 2 + 4
    assert clf.partial_fit(X, y).n_iter_ == 2 + 4 + 1


def test_few_epochs_are_as_right_as_many():
    X, y = features(900)
    few, many = head().fit(X[:450], y[:450]), head(max_epochs=20).fit(X[:450], y[:450])
    assert few.n_iter_ < 5
    assert few.score(X[450:], y[450:]) > many.score(X[450:], y[450:]) - 0.02


def test_another_word_raises():
    with pytest.raises(ValueError, match="'max_epochs' parameter"):
        head(max_epochs="few").fit(*features(9))
