"""The classifier in scikit-learn's use: labels, meta-estimators, weights, seeds, pickles."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from skorch.callbacks import Callback
from torch import nn

import small_fits
from sklearn_clce import CLCEClassifier, label_aware_contrastive_loss

LABELS = {
    "str": np.array(["zebra", "ant", "mole"]),
    "object": np.array(["zebra", "ant", "mole"], dtype=object),
    "bool": np.array([True, False, True]),
    "negative": np.array([-5, 3, -1]),
    "gaps": np.array([700, 20, 3], dtype=np.int16),
    "float": np.array([2.0, 1.0, 7.0]),
}


head = partial(small_fits.head, max_epochs=15)


@pytest.fixture(scope="module")
def features():
    """Three well separated clouds of 20 samples."""
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 3
    return rng.normal(size=(60, 6)) + 4 * np.eye(3, 6)[codes], codes


@pytest.mark.parametrize("kind", LABELS)
def test_predicted_labels_keep_kind_and_dtype(kind, features):
    X, codes = features
    y = LABELS[kind][codes]
    clf = head().fit(X, y)
    assert_array_equal(clf.classes_, np.unique(y))
    assert clf.classes_.dtype == y.dtype
    predicted = clf.predict(X)
    assert predicted.dtype == y.dtype
    assert_array_equal(predicted, y)
    assert clf.score(X, y) == 1
    proba = clf.predict_proba(X)
    assert proba.shape == (60, len(clf.classes_))
    assert_array_equal(clf.classes_[proba.argmax(axis=1)], y)
    scores = clf.decision_function(X)
    if len(clf.classes_) == 2:
        assert_array_equal(clf.classes_[(scores > 0).astype(int)], y)
    else:
        assert_array_equal(clf.classes_[scores.argmax(axis=1)], y)


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda clf: make_pipeline(FunctionTransformer(), clf),
        lambda clf: GridSearchCV(clf, {"temperature": [0.1, 0.5], "weight": [0.0, 0.5]}, cv=2),
        lambda clf: VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft"),
        lambda clf: CalibratedClassifierCV(clf, cv=2),
    ],
    ids=["Pipeline", "GridSearchCV", "VotingClassifier", "CalibratedClassifierCV"],
)
def test_meta_estimators_accept_labels_of_any_kind(kind, wrap, features):
    X, codes = features
    y = LABELS[kind][codes]
    fitted = wrap(head(max_epochs=8)).fit(X, y)
    assert_array_equal(fitted.classes_, np.unique(y))
    assert fitted.predict(X).dtype == fitted.classes_.dtype
    assert fitted.score(X, y) > 0.95
    assert_array_equal(fitted.classes_[fitted.predict_proba(X).argmax(axis=1)], fitted.predict(X))


@pytest.mark.parametrize("kind", LABELS)
def test_cross_validation_accepts_labels_of_any_kind(kind, features):
    X, codes = features
    y = LABELS[kind][codes]
    assert cross_val_score(head(), X, y, cv=3).mean() > 0.95
    assert (cross_val_predict(head(), X, y, cv=3) == y).mean() > 0.95
    log_loss = get_scorer("neg_log_loss")(head().fit(X, y), X, y)
    assert log_loss > -0.1


def test_grid_search_tunes_criterion_parameters(features):
    X, codes = features
    grid = {"temperature": [0.05, 0.5], "weight": [0.0, 0.9], "hardness": [0.0, 1.0]}
    search = GridSearchCV(head(max_epochs=2), grid, cv=2).fit(X, codes)
    assert len(search.cv_results_["params"]) == 8
    assert set(search.best_params_) == set(grid)


def test_criterion_gets_estimator_parameters(features):
    X, codes = features
    settings = {"weight": 0.3, "temperature": 0.7, "hardness": 2.0, "positives": "mean"}
    clf = head(max_epochs=1, label_smoothing=0.1, **settings)
    criterion = clf.fit(X, codes).net_.criterion_
    assert criterion.positives == "mean"
    assert (criterion.weight, criterion.temperature) == (0.3, 0.7)
    assert (criterion.hardness, criterion.label_smoothing) == (2.0, 0.1)


def test_contrastive_term_clusters_embeddings_by_class(features):
    X, codes = features

    least = np.log(19)  # 19 positives that coincide, and negatives far away

    def above_least(clf):
        embeddings = torch.from_numpy(clf.fit(X, codes).transform(X))
        labels = torch.from_numpy(codes)
        return label_aware_contrastive_loss(embeddings, labels, temperature=0.1).item() - least

    assert 0 < above_least(head(weight=0.9, temperature=0.1)) < 0.2 * above_least(head(weight=0.0))


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_random_state_makes_fit_reproducible_bit_for_bit(
    on_images, trainable, colour_images, colour_labels
):
    first = on_images(trainable=trainable).fit(colour_images, colour_labels)
    second = on_images(trainable=trainable).fit(colour_images, colour_labels)
    refitted = first.fit(colour_images, colour_labels)
    other = on_images(trainable=trainable, random_state=1).fit(colour_images, colour_labels)
    weights = second.module_.state_dict()
    for fitted in (first, refitted):
        assert all(torch.equal(v, weights[k]) for k, v in fitted.module_.state_dict().items())
    assert_array_equal(first.predict_proba(colour_images), second.predict_proba(colour_images))
    assert not torch.equal(
        other.module_.head.classifier.weight, second.module_.head.classifier.weight
    )


def numpy_global_state():
    return pickle.dumps(np.random.get_state())  # noqa: NPY002


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_global_generators_are_unchanged_by_fit_and_predict(
    on_images, trainable, colour_images, colour_labels
):
    torch_state, numpy_state = torch.get_rng_state(), numpy_global_state()
    clf = on_images(trainable=trainable).fit(colour_images, colour_labels)
    clf.predict(colour_images)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert numpy_global_state() == numpy_state


def test_fits_do_not_depend_on_global_generators(on_images, colour_images, colour_labels):
    first = on_images().fit(colour_images, colour_labels)
    torch.rand(3)
    second = on_images().fit(colour_images, colour_labels)
    assert_array_equal(first.predict_proba(colour_images), second.predict_proba(colour_images))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_num_workers_does_not_change_model(num_workers, on_images, colour_images, colour_labels):
    expected = on_images(max_epochs=1).fit(colour_images, colour_labels)
    clf = on_images(max_epochs=1, num_workers=num_workers).fit(colour_images, colour_labels)
    assert_array_equal(clf.predict_proba(colour_images), expected.predict_proba(colour_images))


def test_bundled_backbone_learns_digits_from_few_labels(digits):
    X, y = digits
    clf = CLCEClassifier(image_size=64, max_epochs=12, batch_size=10, random_state=0)
    assert clf.fit(X[:30], y[:30]).score(X[30:], y[30:]) > 0.8
    assert clf.backbone_config_.image_size == 64


def batch_statistics(module):
    return {k: v.clone() for k, v in module.state_dict().items() if "running" in k}


def test_frozen_backbone_keeps_weights_and_statistics(
    on_images, tiny_backbone, colour_images, colour_labels
):
    clf = on_images(trainable="head").fit(colour_images, colour_labels)
    for name, value in tiny_backbone.state_dict().items():
        assert torch.equal(clf.module_.backbone.state_dict()[name], value)
    clf.module_.train()
    clf.module_(torch.rand(4, 3, 16, 16))
    assert not clf.module_.backbone.training
    assert all(
        torch.equal(v, tiny_backbone.state_dict()[k])
        for k, v in batch_statistics(clf.module_.backbone).items()
    )
    assert all(not p.requires_grad for p in clf.module_.backbone.parameters())


def test_frozen_backbone_runs_once_per_image(colour_images, colour_labels, tiny_backbone):
    clf = CLCEClassifier(tiny_backbone, trainable="head", max_epochs=7, random_state=0)
    seen = []
    tiny_backbone.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    clf.set_params(backbone=tiny_backbone).fit(colour_images, colour_labels)
    counted = sum(clf.module_.backbone._forward_hooks.popitem()[1].__closure__[0].cell_contents)
    assert counted == len(colour_images)


def test_trained_backbone_changes_every_weight(
    on_images, tiny_backbone, colour_images, colour_labels
):
    clf = on_images().fit(colour_images, colour_labels)
    trained, original = clf.module_.backbone.state_dict(), tiny_backbone.state_dict()
    assert not any(torch.equal(trained[k], v) for k, v in original.items())


def test_second_fit_starts_from_scratch(on_images, tiny_backbone, colour_images, colour_labels):
    before = {k: v.clone() for k, v in tiny_backbone.state_dict().items()}
    clf = on_images().fit(colour_images, colour_labels)
    once = clf.predict_proba(colour_images)
    assert_array_equal(clf.fit(colour_images, colour_labels).predict_proba(colour_images), once)
    assert all(torch.equal(v, before[k]) for k, v in tiny_backbone.state_dict().items())


@pytest.mark.parametrize(
    ("trainable", "projection_dim", "width"),
    [("all", "auto", 16), ("head", "auto", 128), ("all", 7, 7), ("head", None, 16)],
)
def test_transform_gives_embeddings_of_expected_width(
    on_images, trainable, projection_dim, width, colour_images, colour_labels
):
    clf = on_images(trainable=trainable, projection_dim=projection_dim)
    embeddings = clf.fit_transform(colour_images, colour_labels)
    assert embeddings.shape == (12, width)
    assert embeddings.dtype == np.float32
    assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    names = clf.get_feature_names_out()
    assert names[0] == "clceclassifier0"
    assert len(names) == width


def test_transform_works_in_pipeline_and_set_output(on_images, colour_images, colour_labels):
    pipeline = make_pipeline(on_images(), KNeighborsClassifier(1)).fit(colour_images, colour_labels)
    assert pipeline.score(colour_images, colour_labels) == 1
    frame = on_images().set_output(transform="pandas").fit(colour_images, colour_labels)
    assert list(frame.transform(colour_images[:1]).columns)[1] == "clceclassifier1"


@pytest.mark.parametrize("class_weight", ["balanced", {"few": 9.0}])
def test_class_weight_equals_sample_weight(class_weight, features):
    X, codes = features
    rows = np.concatenate([np.flatnonzero(codes == 0), np.flatnonzero(codes == 1)[:4]])
    X, y = X[rows], np.where(codes[rows] == 0, "many", "few")
    unweighted = head(max_epochs=2)
    weighted = clone(unweighted).set_params(class_weight=class_weight).fit(X, y)
    weights = compute_sample_weight(class_weight, y)
    expected = clone(unweighted).fit(X, y, sample_weight=weights).predict_proba(X)
    assert_allclose(weighted.predict_proba(X), expected, rtol=1e-5)
    assert not np.allclose(unweighted.fit(X, y).predict_proba(X), expected, rtol=0.01)


def test_integer_sample_weights_match_repeated_rows(features):
    """With full batches and plain cross-entropy they differ by rounding only."""
    X, codes = features
    weights = np.arange(60) % 4
    clf = head(weight=0.0, batch_size=1000, max_epochs=5)
    weighted = clf.fit(X, codes, sample_weight=weights).predict_proba(X)
    repeated = clf.fit(X.repeat(weights, axis=0), codes.repeat(weights)).predict_proba(X)
    assert_allclose(weighted, repeated, rtol=5e-3, atol=1e-6)


def test_zero_weight_samples_are_not_learned(features):
    X, codes = features
    wrong = codes.copy()
    wrong[::2] = (wrong[::2] + 1) % 3
    clf = head(weight=0.0).fit(X, wrong, sample_weight=np.arange(60) % 2)
    assert clf.score(X, codes) > 0.95


def test_sample_weight_is_routed_by_meta_estimators(features):
    X, codes = features
    weights = np.where(codes == 0, 5.0, 1.0)
    with config_context(enable_metadata_routing=True):
        clf = head().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), clf)
        routed = pipeline.fit(X, codes, sample_weight=weights)
        search = GridSearchCV(clf, {"temperature": [0.5]}, cv=2)
        search.fit(X, codes, sample_weight=weights)
    direct = head().fit(StandardScaler().fit_transform(X), codes, sample_weight=weights)
    assert_array_equal(
        routed.predict_proba(X), direct.predict_proba(StandardScaler().fit_transform(X))
    )
    expected = head().fit(X, codes, sample_weight=weights).predict_proba(X)
    assert_array_equal(search.best_estimator_.predict_proba(X), expected)


def test_default_verbosity_prints_nothing(on_images, colour_images, colour_labels, capfd):
    clf = on_images().fit(colour_images, colour_labels)
    clf.partial_fit(colour_images, colour_labels).predict(colour_images)
    assert capfd.readouterr() == ("", "")


class CountEpochs(Callback):
    def __init__(self):
        self.epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1


def test_callbacks_and_skorch_params_reach_skorch(features):
    X, codes = features
    counter = CountEpochs()
    params = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}
    clf = head(max_epochs=3, callbacks=[("count", counter)], skorch_params=params).fit(X, codes)
    assert counter.epochs == clf.n_iter_ == len(clf.history_) == 3
    assert isinstance(clf.net_.optimizer_, torch.optim.SGD)
    assert clf.net_.optimizer_.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"module__n_classes": 3}, ValueError, "'module__n_classes': ...} has no effect"),
        ({"optimiser": torch.optim.SGD}, (TypeError, ValueError), "optimiser"),
    ],
)
def test_bad_skorch_params_are_rejected(params, error, message, features):
    with pytest.raises(error, match=message):
        head(skorch_params=params).fit(*features)


def test_pickle_holds_network_once_and_can_refit(on_images, colour_images, colour_labels):
    clf = on_images(batch_size=12).fit(colour_images, colour_labels)
    copy = pickle.loads(pickle.dumps(clf))
    assert_array_equal(copy.predict_proba(colour_images), clf.predict_proba(colour_images))
    assert copy.net_.module is copy.module_
    again = copy.fit(colour_images, colour_labels)
    assert_array_equal(again.predict_proba(colour_images), clf.predict_proba(colour_images))


def test_pickle_holds_large_module_once():
    wide = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 5000))
    X = np.random.default_rng(0).random((4, 8, 8, 3))
    clf = CLCEClassifier(wide, trainable="head", projection_dim=None, max_epochs=1, random_state=0)
    clf.fit(X, [0, 1, 0, 1]).set_params(backbone="efficientnet_lite0")
    size = sum(p.numel() * p.element_size() for p in wide.parameters())
    assert len(pickle.dumps(clf)) < 1.2 * size


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("trainable", ["all", "head"])
def test_cuda_fit_survives_pickle(on_images, trainable, colour_images, colour_labels):
    clf = on_images(trainable=trainable).fit(colour_images, colour_labels)
    assert next(clf.module_.parameters()).device.type == "cuda"
    copy = pickle.loads(pickle.dumps(clf))
    assert_allclose(copy.predict_proba(colour_images), clf.predict_proba(colour_images), rtol=1e-5)
