"""How a head starts: the scale of features, and a classifier in closed form."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.functional import cross_entropy

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce._head import Head, HeadConfig, closed_form, refit_classifier, start_head
from sklearn_clce._head.closed_form import (
    CACHE_BYTES,
    REFIT_C,
    SHRINKAGE,
    ResultCache,
    _fit_both,
    discriminant,
    rank_within_class,
)
from sklearn_clce._head.layers import BLOCKS, LENGTH, Standardize

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = torch.from_numpy(DIGITS).float()


def adapted(features, weights=None):
    standardize = Standardize([features.shape[1]])
    standardize.adapt(features, torch.ones(len(features)) if weights is None else weights)
    return standardize


def started(features, labels, weights=None, n_classes=10):
    head = Head([[features.shape[1]]], n_classes, HeadConfig(3))
    weights = np.ones(len(features)) if weights is None else weights
    start_head(head, features, torch.as_tensor(labels), torch.from_numpy(weights))
    return head.eval()


@pytest.mark.parametrize("shift", [0, -8])  # never negative, and both signs
def test_features_share_one_scale(shift):
    standardize = adapted(DIGITS + shift)
    assert len(standardize.scale.unique()) == 1
    length = standardize(DIGITS + shift).square().sum(dim=1).mean().sqrt()
    torch.testing.assert_close(length, torch.tensor(LENGTH))
    torch.testing.assert_close(
        standardize(DIGITS + shift).mean(dim=0), torch.zeros(64), atol=1e-5, rtol=0
    )


def test_root_is_taken_of_non_negative_features():
    assert adapted(DIGITS - 1).floors == [None]
    standardize = adapted(DIGITS)
    steps = standardize(torch.tensor([[0.0], [1.0], [4.0], [9.0]]).expand(4, 64)).diff(dim=0)
    torch.testing.assert_close(steps[1], steps[2], rtol=1e-4, atol=0)
    assert standardize(torch.full((1, 64), -5.0)).isfinite().all()


def test_lower_blocks_have_own_scale_without_root():
    blocks = torch.cat([100 * DIGITS[:, :8] - 3, DIGITS[:, 8:20] / 1000], dim=1)
    standardize = Standardize([64, 8, 12])
    assert standardize.adapt(torch.cat([DIGITS, blocks], dim=1), torch.ones(len(DIGITS)))
    standardized = standardize(torch.cat([DIGITS, blocks], dim=1))
    parts = standardized.split(standardize.widths, dim=1)
    last, *of_blocks = (float(part.square().sum(dim=1).mean().sqrt()) for part in parts)
    assert of_blocks == pytest.approx([BLOCKS / 2**0.5 * last] * 2, rel=1e-4)
    assert standardized.square().sum(dim=1).mean().sqrt() == pytest.approx(LENGTH, rel=1e-4)
    torch.testing.assert_close(
        parts[0] / parts[0].norm(),
        adapted(DIGITS)(DIGITS) / parts[0].norm() * last / LENGTH,
        rtol=1e-3,
        atol=1e-6,
    )
    inverse = standardize.inverse(standardized).float()
    torch.testing.assert_close(inverse[:, 64:], blocks, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inverse[:, :64], DIGITS, rtol=1e-3, atol=1e-3)


def test_constant_block_keeps_unit_scale():
    standardize = Standardize([64, 3])
    assert standardize.adapt(nn.functional.pad(DIGITS, (0, 3), value=7.0), torch.ones(len(DIGITS)))
    assert standardize.scale[64:].tolist() == [1, 1, 1]
    assert standardize(nn.functional.pad(DIGITS, (0, 3), value=7.0))[:, 64:].abs().max() < 1e-5


def test_later_negative_features_stay_distinct():
    standardize = adapted(DIGITS)
    X = torch.linspace(-9, 9, 13)[:, None].expand(13, 64)
    assert (standardize(X).diff(dim=0) > 0).all()
    X, y = StandardScaler().fit_transform(DIGITS), LABELS
    first = np.abs(X[:5])  # by chance
    clf = CLCEClassifier("precomputed", weight=0.0, random_state=0).partial_fit(
        first, y[:5], classes=np.arange(10)
    )
    assert clf.module_.head.standardize.floors[0] is not None
    for _ in range(10):
        clf.partial_fit(X[:900], y[:900])
    assert clf.score(X[900:], y[900:]) > 0.85


@pytest.mark.parametrize("shift", [0, -8])
def test_inverse_restores_features(shift):
    for seen in (DIGITS, DIGITS + shift):
        standardize = adapted(seen)
        X = DIGITS + shift
        torch.testing.assert_close(
            standardize.inverse(standardize(X)).float(), X, rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shift", [0, -8])
@pytest.mark.parametrize("n_first", [1, 2])
def test_first_call_without_scale_is_not_final(n_first, shift, unit, tmp_path):
    X, y = (DIGITS.numpy() + shift) * unit, LABELS
    first = np.repeat(X[:1], n_first, axis=0), y[[0] * n_first]
    for labels in (first[1], np.arange(n_first)):  # of one class, or of two
        clf = CLCEClassifier("precomputed", weight=0.0, random_state=0)
        clf.partial_fit(first[0], labels, classes=np.arange(10))
        clf.save(tmp_path / "clf.safetensors")
        clf = CLCEClassifier.load(tmp_path / "clf.safetensors")
        assert clf.partial_fit(X[:200], y[:200]).score(X[200:500], y[200:500]) > 0.8


def test_scale_of_one_class_is_not_final():
    X, y = DIGITS.numpy(), LABELS
    copies = X[[0, 0]] * [[1], [1 + 1e-4]]
    clf = CLCEClassifier("precomputed", weight=0.0, random_state=0)
    clf.partial_fit(copies, y[[0, 0]], classes=np.arange(10))
    read_before = clf.module_.head.class_means[y[0]].clone()
    later = np.flatnonzero(y[:200] != y[0])  # without the class of the first call
    clf.partial_fit(X[later], y[later])
    assert clf.score(X[200:500], y[200:500]) > 0.8
    assert clf.predict(X[:1]) == y[0]
    assert not torch.equal(clf.module_.head.class_means[y[0]], read_before)
    scale = clf.module_.head.standardize.scale.clone()
    assert torch.equal(clf.partial_fit(X[:3], y[:3]).module_.head.standardize.scale, scale)


@pytest.mark.parametrize("way", ["interrupted", "weights of one class", "weights of nine"])
def test_started_head_never_starts_again(way):
    X, y = DIGITS.numpy(), LABELS
    clf = CLCEClassifier("precomputed", weight=0.0, warm_start=True, random_state=0)
    clf.set_params(max_epochs=2).fit(X[:200], y[:200])
    if way == "interrupted":
        clf.module_.head.class_counts.fill_(-1)  # as an interruption in the last pass leaves it
    else:
        sample_weight = (y[:200] == 3) == (way == "weights of one class")
        clf.set_params(max_epochs=1, learning_rate=1e-6).fit(X[:200], y[:200], sample_weight)
    before = clf.set_params(learning_rate=1e-6).predict_proba(X[200:500])
    for rows in (slice(0, 1), slice(1, 3), slice(3, 9)):
        clf.partial_fit(X[rows], y[rows])
    np.testing.assert_allclose(clf.predict_proba(X[200:500]), before, atol=1e-3)


def test_added_classes_do_not_start_head():
    X, y = DIGITS.numpy() * 1e4, LABELS
    clf = CLCEClassifier("precomputed", weight=0.0, random_state=0)
    clf.partial_fit(X[[0, 0]] * [[1], [1.0001]], y[[0, 0]], classes=np.arange(9))
    clf.add_classes(X[y == 9][:5], [9] * 5)
    assert clf.partial_fit(X[:200], y[:200]).score(X[200:500], y[200:500]) > 0.8


def test_classifier_without_cross_entropy_is_fitted_at_end():
    X = (DIGITS.numpy() / 16).reshape(-1, 8, 8)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
    clf = CLCEClassifier(backbone, weight=1.0, max_epochs=2, random_state=0)
    assert clf.fit(X[:200], LABELS[:200]).score(X[200:500], LABELS[200:500]) > 0.8
    with pytest.warns(UserWarning, match="weight=1 disables cross-entropy"):
        clone(clf).partial_fit(X[:200], LABELS[:200], classes=np.arange(10))


def test_root_has_finite_gradient_at_zero():
    features = torch.zeros(1, 64, requires_grad=True)
    adapted(DIGITS)(features).sum().backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 3.0, 37.0, -3.0])
def test_constant_features_become_zero(value):
    features = torch.full((6, 4), value)
    assert adapted(features)(features).abs().max() < 1e-5  # up to rounding
    assert not started(features, [0, 1, 2] * 2, n_classes=3).classifier.weight.any()


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("shift", [0, -8])
def test_start_is_independent_of_feature_unit(factor, shift):
    features, labels = DIGITS[:60] + shift, LABELS[:60]
    logits = [started(f, labels)(f)[0] for f in (features, features * factor)]
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)


def test_start_generalises_better_than_zeros():
    module = started(DIGITS[:100], LABELS[:100])
    with torch.no_grad():
        logits, _ = module(DIGITS[100:])
    labels = torch.from_numpy(LABELS[100:])
    assert (logits.argmax(dim=1) == labels).float().mean() > 0.75
    assert cross_entropy(logits, labels) < 1 < np.log(10)


def test_discriminant_joins_means_and_avoids_within_class_variance():
    # two classes at -1 and 1 on the first axis; the second varies within both
    features = torch.tensor([[-1.0, 2], [-1, -2], [1, 2], [1, -2]]).double()
    labels, weights = torch.tensor([0, 0, 1, 1]), torch.ones(4).double()
    weight, bias = discriminant(features, labels, weights, 2, variance=2.5)
    slope = 1 / (SHRINKAGE * 2.5)
    torch.testing.assert_close(weight, torch.tensor([[-slope, 0], [slope, 0]]).double())
    torch.testing.assert_close(bias, torch.zeros(2).double())
    turned = features + torch.tensor([0.5, 0]) * (features[:, 1:] / 2)  # they vary along (.5, 2)
    (_, toward), _ = discriminant(turned, labels, weights, 2, variance=2.5)
    assert toward[0] > 0 > toward[1]


def test_grid_search_starts_once_per_fold(monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return _fit_both(*args)

    monkeypatch.setattr(closed_form, "mean_of_both", ResultCache(counted, CACHE_BYTES))
    clf = CLCEClassifier("precomputed", max_epochs=1, random_state=0)
    grid = {"temperature": [0.1, 0.5], "weight": [0.2, 0.8]}
    GridSearchCV(clf, grid, cv=12, refit=False).fit(DIGITS[:200].numpy(), LABELS[:200])
    assert len(calls) == 12


def test_cache_of_starts_is_bounded():
    size = 8 * (10 * 64 + 10)  # of a classifier: weight and bias in float64
    calls = []

    def counted(features):
        calls.append(features)
        return torch.zeros(10, 64).double(), torch.zeros(10).double()

    recent = ResultCache(counted, 2 * size)
    for shift in (0, 1, 0, 2, 0, 1):  # the least recent of the others, 1, made room for 2
        recent(DIGITS + shift)
    assert len(calls) == 4
    assert len(recent.results) == 2
    none = ResultCache(counted, size - 1)  # one that is too large is not kept
    none(DIGITS), none(DIGITS)
    assert len(calls) == 6
    assert not none.results


@pytest.mark.parametrize("changed", ["features", "labels", "weights", "n_classes"])
def test_start_depends_on_its_samples(changed):
    sample = {"features": DIGITS[:60], "labels": LABELS[:60] % 3, "weights": np.ones(60)}
    before = started(**sample, n_classes=3).classifier.weight
    if changed == "features":
        sample[changed] = sample[changed] + torch.eye(60, 64)
    elif changed == "labels":
        sample[changed] = np.roll(sample[changed], 1)
    elif changed == "weights":
        sample[changed] = np.arange(60) + 1.0
    else:
        sample["labels"] = LABELS[:60] % 4
    after = started(**sample, n_classes=4 if changed == "n_classes" else 3).classifier.weight
    assert after.shape != before.shape or not torch.equal(before, after)


def test_class_share_shifts_start():
    features = torch.cat([torch.zeros(9, 2), torch.ones(1, 2)]) + torch.randn(10, 2) * 0.01
    module = started(features, [0] * 9 + [1], n_classes=2)
    with torch.no_grad():
        logits, _ = module(torch.full((1, 2), 0.5))
    assert logits.argmax() == 0


def test_zero_weight_samples_are_ignored():
    weights = np.r_[np.ones(60), np.zeros(20)]
    mine, theirs = (started(DIGITS[:n], LABELS[:n], w) for n, w in ((60, None), (80, weights)))
    torch.testing.assert_close(mine.classifier.weight, theirs.classifier.weight)


def test_start_equates_copies_and_weights_in_any_order():
    weights, order = np.arange(60) % 4, np.random.default_rng(0).permutation(60)
    features, labels = DIGITS[:60], LABELS[:60]
    copies = started(
        features.repeat_interleave(torch.from_numpy(weights), dim=0), labels.repeat(weights)
    )
    counted = weights > 0
    weighted = started(features[counted], labels[counted], weights[counted])
    torch.testing.assert_close(weighted.classifier.weight, copies.classifier.weight)
    moved = started(features[order], labels[order])
    torch.testing.assert_close(moved.classifier.weight, started(features, labels).classifier.weight)


def test_single_class_leaves_classifier_at_zero():
    only = LABELS == 3
    assert not started(DIGITS[only], LABELS[only], n_classes=11).classifier.weight.any()


@pytest.mark.parametrize("absent", [0, 4, 10])
def test_absent_class_does_not_change_other_classes(absent):
    others = [code for code in range(11) if code != absent]
    labels = np.array(others)[LABELS]
    weights = np.ones(len(labels))
    fewer, more = started(DIGITS, LABELS), started(DIGITS, labels, n_classes=11)
    torch.testing.assert_close(more.classifier.weight[others], fewer.classifier.weight)
    torch.testing.assert_close(more.classifier.bias[others], fewer.classifier.bias)
    with torch.no_grad():
        logits, _ = more(DIGITS)
    assert (logits.argmax(dim=1) != absent).all()
    for module, codes in ((fewer, LABELS), (more, labels)):
        refit_classifier(module, DIGITS, torch.from_numpy(codes), torch.from_numpy(weights))
    with torch.no_grad():
        ended, expected = more(DIGITS)[0], fewer(DIGITS)[0]
    assert (ended.argmax(dim=1) != absent).all()
    torch.testing.assert_close(
        ended[:, others].softmax(dim=1), expected.softmax(dim=1), atol=1e-5, rtol=1e-3
    )


def test_zero_weight_class_does_not_cost_accuracy():
    X, y = DIGITS[:400].numpy(), LABELS[:400]
    X_test, y_test = DIGITS[400:].numpy()[LABELS[400:] != 3], LABELS[400:][LABELS[400:] != 3]
    clf = CLCEClassifier("precomputed", max_epochs=3, random_state=0)
    without = clf.fit(X[y != 3], y[y != 3]).score(X_test, y_test)
    assert clf.fit(X, y, (y != 3).astype(float)).score(X_test, y_test) > without - 0.01
    in_parts = CLCEClassifier("precomputed", random_state=0)
    in_parts.partial_fit(X[y != 3], y[y != 3], classes=np.arange(10))
    assert in_parts.score(X_test, y_test) > without - 0.02
    in_parts.partial_fit(X, y)  # the missing class starts as the others did
    assert in_parts.score(DIGITS[400:].numpy(), LABELS[400:]) > without - 0.03


@pytest.mark.parametrize("frozen", [True, False])
def test_partial_fit_learns_classes_one_by_one(frozen):
    X, y = DIGITS[:200].numpy(), LABELS[:200]
    settings = {"random_state": 0, "max_epochs": 1, "learning_rate": 1e-5}
    if frozen:
        clf = CLCEClassifier("precomputed", **settings)
    else:
        X = X.reshape(-1, 8, 8) / 16
        clf = CLCEClassifier(trainable=1, image_size=32, **settings)
    for label in range(5):
        clf.partial_fit(X[y == label], y[y == label], classes=np.arange(10))
    old = y < 5
    assert clf.score(X[old], y[old]) > 0.8


def test_separable_start_is_not_overconfident():
    features = torch.cat([torch.randn(6, 3), torch.randn(6, 3) + 100])
    with torch.no_grad():
        logits, _ = started(features, [0] * 6 + [1] * 6, n_classes=2)(features)
    sure = logits.softmax(dim=1).max(dim=1).values
    assert (sure > 0.8).all()
    assert sure.median() < 0.9999


def test_one_sample_per_class_is_enough():
    first = [np.flatnonzero(label == LABELS)[0] for label in range(10)]
    with torch.no_grad():
        logits, _ = started(DIGITS[first], LABELS[first])(DIGITS[first])
    assert (logits.argmax(dim=1).numpy() == LABELS[first]).all()


TINY_RATE = {"image_size": 32, "max_epochs": 1, "random_state": 0, "learning_rate": 1e-9}
FEW, FEW_LABELS = DIGITS.reshape(-1, 8, 8).numpy()[:20] / 16, LABELS[:20]


def test_finetuned_backbone_starts_from_head_on_features():
    tuned = CLCEClassifier(**TINY_RATE).partial_fit(FEW, FEW_LABELS % 2, [0, 1])
    features = BackboneFeatures(image_size=32).fit_transform(FEW)
    settings = {name: value for name, value in TINY_RATE.items() if name != "image_size"}
    head = CLCEClassifier("precomputed", **settings).partial_fit(features, FEW_LABELS % 2, [0, 1])
    assert tuned.trainable_ == 12
    np.testing.assert_allclose(
        tuned.decision_function(FEW), head.decision_function(features), rtol=1e-3, atol=1e-3
    )
    assert tuned.score(FEW, FEW_LABELS % 2) > 0.9


@pytest.mark.parametrize("n_classes", [2, 3])
def test_finetuned_classifier_is_averaged_with_regression(
    n_classes,
):
    y = FEW_LABELS % n_classes
    weights = np.arange(1.0, len(y) + 1)
    trained = CLCEClassifier(**TINY_RATE).partial_fit(FEW, y, range(n_classes), weights)
    ended = CLCEClassifier(**TINY_RATE).fit(FEW, y, sample_weight=weights)
    features = BackboneFeatures(image_size=32).fit_transform(FEW)  # no step has moved it
    read = ended.module_.head.standardize(torch.from_numpy(features)).numpy()
    model = LogisticRegression(C=REFIT_C, tol=1e-3)
    scores = model.fit(read, y, weights / weights.mean()).decision_function(read)
    before, after = trained.decision_function(FEW), ended.decision_function(FEW)
    np.testing.assert_allclose(after, (before + scores) / 2, rtol=1e-2, atol=1e-2)
    assert abs(after - before).max() > 0.1


def test_resumed_fit_ends_at_equal_classifier(tmp_path):
    settings = TINY_RATE | {"checkpoint": tmp_path, "learning_rate": 1e-3}
    first, again = (CLCEClassifier(**settings).fit(FEW, FEW_LABELS % 2) for _ in range(2))
    np.testing.assert_array_equal(first.decision_function(FEW), again.decision_function(FEW))


def test_early_stopping_returns_the_scored_classifier():
    settings = TINY_RATE | {"early_stopping": True, "learning_rate": 1e-3}
    clf = CLCEClassifier(**settings, scoring="neg_log_loss")
    clf.fit(FEW, FEW_LABELS % 2, X_val=FEW, y_val=FEW_LABELS % 2)
    loss = log_loss(FEW_LABELS % 2, clf.predict_proba(FEW))
    assert -clf.best_validation_score_ == pytest.approx(loss, rel=1e-4)


def test_random_backbone_starts_at_zero():
    X, y = DIGITS.reshape(-1, 8, 8).numpy()[:8] / 16, LABELS[:8] % 2
    settings = {"image_size": 32, "max_epochs": 1, "random_state": 0, "learning_rate": 1e-9}
    clf = CLCEClassifier(pretrained=False, **settings).fit(X, y)
    assert clf.trainable_ == "all"
    assert abs(clf.decision_function(X)).max() < 1e-3
    assert not clf.module_.pretrained


def test_identical_samples_with_different_labels_can_be_fitted():
    X = np.full((4, 3), 37.0)
    clf = CLCEClassifier("precomputed", max_epochs=1, random_state=0).fit(X, ["a", "b"] * 2)
    np.testing.assert_allclose(clf.predict_proba(X), 0.5, atol=0.01)


def test_rank_within_class_counts_earlier_samples():
    labels, weights = torch.tensor([0, 1, 0, 0, 1]), torch.tensor([1, 1, 0, 1, 1])
    assert rank_within_class(labels, weights).tolist() == [0, 0, 1, 1, 1]


def test_root_is_saved(tmp_path):
    clf = CLCEClassifier("precomputed", max_epochs=1, random_state=0)
    clf.fit(DIGITS[:60].numpy(), LABELS[:60]).save(tmp_path / "clf.safetensors")
    loaded = CLCEClassifier.load(tmp_path / "clf.safetensors")
    assert loaded.module_.head.standardize.floors == clf.module_.head.standardize.floors
    assert clf.module_.head.standardize.floors[0] > 0
    np.testing.assert_array_equal(*(c.predict_proba(DIGITS[60:90]) for c in (clf, loaded)))
