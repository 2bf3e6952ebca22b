"""score_samples and calibrate_offset: how similar images are to the training images."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split

from model_files import saved_and_loaded, tiny
from sklearn_clce import CLCEClassifier
from sklearn_clce._head import Head, HeadConfig
from sklearn_clce._targets import SINGLE_LABEL
from sklearn_clce.persistence._file import read_model_file, write_model_file
from small_fits import head


@pytest.fixture(scope="module")
def known():
    """Four clouds; training and other samples of three, and samples of the fourth."""
    rng = np.random.default_rng(0)
    centres = 3 * np.eye(4, 8)
    labels = np.repeat(np.arange(4), 60)
    X = rng.normal(size=(240, 8)) + centres[labels]
    X_train, X_rest, y_train, _ = train_test_split(
        X[labels < 3], labels[labels < 3], train_size=90, random_state=0
    )
    return X_train, y_train, X_rest, X[labels == 3]


@pytest.fixture
def fitted(known):
    X, y, *_ = known
    return head().fit(X, y)


def test_unknown_class_has_lower_scores(fitted, known):
    *_, X_rest, X_other = known
    scores = fitted.score_samples(np.concatenate([X_rest, X_other]))
    assert scores.shape == (len(X_rest) + len(X_other),)
    assert roc_auc_score(np.arange(len(scores)) < len(X_rest), scores) > 0.85


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_distant_samples_have_lowest_scores(weight, known):
    X, y, X_rest, _ = known
    clf = head(weight=weight).fit(X, y)
    directions = np.random.default_rng(1).normal(size=(50, X.shape[1]))
    far = 100 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    assert clf.score_samples(far).max() < clf.score_samples(X_rest).min()


def test_score_is_energy_less_distance():
    module = Head([[2]], 3, HeadConfig(1))
    read = torch.tensor([[0.0, 0.0, 9.0], [2.0, 0.0, 9.0], [0.0, 4.0, 9.0]])
    labels, weights = torch.tensor([0, 0, 1]), torch.ones(3)
    module.add_class_means(read, labels, weights)  # nothing of class 2
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    point = torch.tensor([[1.0, 2.0, -5.0]])  # 2 from the first mean; the embedding doesn't count
    energy = np.log(np.exp(-1) + 1 + np.exp(1))
    assert_allclose(module.novelty_scores(point, logits + 7), [energy - 4 / 4], rtol=1e-6)


def test_scores_are_independent_of_batch(fitted, known):
    X = known[2]
    together = fitted.score_samples(X)
    one_by_one = np.concatenate([fitted.score_samples(X[[index]]) for index in range(8)])
    assert_allclose(one_by_one, together[:8], rtol=1e-6)


def test_image_classifiers_give_finite_scores(colour_images, colour_labels):
    for clf in (tiny(), tiny(trainable="head"), tiny(projection_dim=None)):
        scores = clf.fit(colour_images, colour_labels).score_samples(colour_images)
        assert scores.shape == (12,)
        assert np.isfinite(scores).all()


def test_offset_is_quantile_of_scores(fitted, known):
    X_rest = known[2]  # 90
    fitted.calibrate_offset(X_rest, contamination=0.1)
    scores = np.sort(fitted.score_samples(X_rest))
    assert fitted.offset_ == scores[8]  # of 91, nine may be below or at it
    assert fitted.calibrate_offset(X_rest) is fitted
    assert fitted.offset_ == scores[3]


def test_offset_from_training_samples_is_too_high():
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    X = rng.normal(size=(100, 50)) + labels[:, None]
    clf = head().fit(X[:20], labels[:20])
    of_training = clf.calibrate_offset(X[:20], 0.2).offset_
    assert of_training > clf.calibrate_offset(X[20:], 0.2).offset_


def test_offset_can_be_set_from_cross_validated_scores(known):
    X, y, X_rest, X_other = known
    folds = StratifiedKFold(3).split(X, y)
    clf = head()
    scores = [clf.fit(X[rest], y[rest]).score_samples(X[fold]) for rest, fold in folds]
    clf.fit(X, y).offset_ = np.quantile(np.concatenate(scores), 0.05)
    known, other = ((clf.score_samples(part) < clf.offset_).mean() for part in (X_rest, X_other))
    assert known < 0.15
    assert other > 2 * known


@pytest.mark.parametrize("contamination", [0, 1, -0.1, 1.5, True, float("nan")])
def test_contamination_out_of_range_is_rejected(contamination, fitted, known):
    with pytest.raises(ValueError, match=r"contamination=.*a share in \(0, 1\).*such as 0.05"):
        fitted.calibrate_offset(known[2], contamination)


def test_too_few_samples_for_contamination_are_rejected(fitted, known):
    with pytest.raises(ValueError, match=r"contamination=0.05: X holds 18 images.* 19 are req"):
        fitted.calibrate_offset(known[2][:18])
    fitted.calibrate_offset(known[2][:19])


def test_unfitted_or_uncalibrated_access_is_rejected(known, fitted):
    for method in ("score_samples", "calibrate_offset"):
        with pytest.raises(NotFittedError):
            getattr(CLCEClassifier("precomputed"), method)(known[0])
    assert not hasattr(fitted, "offset_")
    with pytest.raises(AttributeError, match=r"offset_ is not set: calibrate_offset\(X\) sets it"):
        fitted.offset_  # noqa: B018


def test_offset_survives_everything_but_refit(fitted, known, tmp_path):
    X, y, X_rest, X_other = known
    offset = fitted.calibrate_offset(X_rest).offset_
    assert pickle.loads(pickle.dumps(fitted)).offset_ == offset
    loaded = saved_and_loaded(fitted, tmp_path)
    assert loaded.offset_ == offset
    assert_array_equal(loaded.score_samples(X_rest), fitted.score_samples(X_rest))
    assert fitted.partial_fit(X, y).offset_ == offset
    assert fitted.add_classes(X_other, np.full(len(X_other), 3)).offset_ == offset
    assert not hasattr(clone(fitted), "offset_")
    assert not hasattr(fitted.fit(X, y), "offset_")


def test_added_class_gets_higher_scores(fitted, known):
    *_, X_rest, X_other = known
    before = fitted.score_samples(X_other[10:]), fitted.score_samples(X_rest)
    fitted.add_classes(X_other[:10], [3] * 10)
    assert fitted.score_samples(X_other[10:]).mean() > before[0].mean() + 1
    assert abs(fitted.score_samples(X_rest).mean() - before[1].mean()) < 1


def test_sample_weights_count_in_class_means():
    module = Head([[1]], 2, HeadConfig(None))
    read, labels = torch.tensor([[0.0], [4.0], [1.0]]), torch.tensor([0, 0, 1])
    module.add_class_means(read, labels, torch.tensor([3.0, 1.0, 1.0]))
    assert_allclose(module.class_means[:, 0], [1, 1])
    module.add_class_means(read[2:], torch.tensor([0]), torch.tensor([4.0]), keep_earlier=True)
    assert_allclose(module.class_means[:, 0], [1, 1])
    assert_allclose(module.class_counts, [8, 1])
    module.add_class_means(read[:1], torch.tensor([1]), torch.ones(1))  # of a fit that begins anew
    assert_allclose(module.class_counts, [8, 1])  # what it did not see is known all the same
    assert_allclose(module.class_means[:, 0], [1, 0])


def test_class_means_follow_later_calls():
    module = Head([[1]], 2, HeadConfig(None))
    many, labels = torch.zeros(1000, 1), torch.zeros(1000, dtype=torch.long)
    module.add_class_means(many, labels, torch.ones(1000))
    for _ in range(10):
        module.add_class_means(many[:20] + 1, labels[:20], torch.ones(20), keep_earlier=True)
    assert module.class_means[0, 0] > 0.9


def test_samples_of_large_class_are_spread_over_it():
    labels = np.array([0] * 1000 + [1] * 3)
    few = SINGLE_LABEL.first_target(labels, labels, None, None).evenly_per_class(20)
    assert len(few) == 23
    assert {0, 999, 1000, 1001, 1002} <= set(few)
    assert_array_equal(few, np.unique(few))


def test_interrupted_last_pass_leaves_no_means_of_classes(digits):
    X, y = digits
    clf = tiny().fit(X, y)
    clf.module_.head.class_counts.fill_(-1)  # as an interruption leaves it
    for method in (clf.score_samples, clf.calibrate_offset):
        with pytest.raises(ValueError, match=r"mean of each class.*interrupted.*fit again"):
            method(X)
    with pytest.raises(ValueError, match=r"add_classes needs the mean of each class.*fit again"):
        clf.add_classes(X[:2], [7, 7])
    assert not hasattr(clf, "offset_")
    clf.partial_fit(X, clf.classes_[y])
    assert np.isfinite(clf.score_samples(X)).all()


@pytest.mark.parametrize("offset", [-np.inf, np.inf, np.nan])
def test_offset_must_be_finite(offset, fitted):
    with pytest.raises(ValueError, match=r"offset_=.*: a finite number is required"):
        fitted.offset_ = offset
    assert not hasattr(fitted, "offset_")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("head.class_means", lambda means: means[:, :1].clone()),
        ("head.class_means", lambda means: means.double()),
        ("head.class_counts", lambda counts: counts * torch.nan),
        ("head.class_counts", None),
    ],
)
def test_load_rejects_inconsistent_class_means(name, spoil, fitted, tmp_path):
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    model, tensors = read_model_file(path)
    tensor = tensors.pop(name)
    write_model_file(path, model, tensors if spoil is None else tensors | {name: spoil(tensor)})
    with pytest.raises(ValueError, match=rf"can't be loaded: .*{name}"):
        CLCEClassifier.load(path)
