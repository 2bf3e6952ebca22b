"""A search over a frozen backbone costs one pass, in one process or on a cluster."""

import copy

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_predict

from sklearn_clce import CLCEClassifier
from small_backbones import Counting

GRID = {"temperature": [0.05, 0.1, 0.5], "weight": [0.0, 0.3, 0.6, 0.9]}


@pytest.fixture(scope="module")
def images():
    data = load_digits()
    return data.images[:200] / 16, data.target[:200]


def head(memory, **params):
    defaults = {"max_epochs": 2, "random_state": 0, "trainable": "head", "projection_dim": 16}
    return CLCEClassifier(Counting(), memory=memory, **defaults | params)


def test_grid_search_runs_frozen_backbone_once_per_image(images, count, tmp_path):
    X, y = images
    first = GridSearchCV(head(tmp_path), GRID, cv=2).fit(X, y)
    assert count() == 200
    second = GridSearchCV(head(tmp_path), GRID, cv=2).fit(X[::-1], y[::-1])
    assert count() == 200
    assert len(first.cv_results_["params"]) == len(second.cv_results_["params"]) == 12


def test_feature_store_does_not_change_scores(images, count, tmp_path):
    X, y = images
    with_store = GridSearchCV(head(tmp_path), GRID, cv=2).fit(X, y).cv_results_
    without = GridSearchCV(head(joblib.Memory(None)), GRID, cv=2).fit(X, y).cv_results_
    assert count() > 200 * 12 * 2
    for fold in range(2):
        name = f"split{fold}_test_score"
        assert_array_equal(with_store[name], without[name])


def test_feature_store_serves_any_fold(images, count, tmp_path):
    X, y = images
    head(joblib.Memory(tmp_path, verbose=0)).fit(X, y)
    cross_val_predict(head(tmp_path), X, y, cv=3)
    head(tmp_path).fit(X[::3], y[::3]).predict_proba(X[1::2])
    assert count() == 200


def test_predict_runs_backbone_only_on_new_images(images, count, tmp_path):
    X, y = images
    clf = head(tmp_path).fit(X[:150], y[:150])
    clf.predict(X)
    assert count() == 200
    copied = copy.deepcopy(clf)
    assert_array_equal(copied.predict_proba(X), clf.predict_proba(X))
    assert count() == 200


def test_augmented_head_runs_backbone_every_epoch(images, count, tmp_path):
    X, y = images
    augmented = head(tmp_path, augment=lambda batch: batch.flip(-1), max_epochs=3)
    augmented.fit(X, y)
    assert count() == 200 + 3 * 200


def test_clones_share_loaded_weights(monkeypatch, images):
    X, y = images
    loaded = []
    from sklearn_clce.backbones import _frozen

    load = _frozen.load_backbone
    monkeypatch.setattr(_frozen, "_loaded", type(_frozen._loaded)())
    monkeypatch.setattr(_frozen, "load_backbone", lambda *a, **k: loaded.append(a) or load(*a, **k))
    clf = CLCEClassifier(trainable="head", image_size=32, max_epochs=1, random_state=0)
    GridSearchCV(clf, {"weight": [0.0, 0.5]}, cv=2).fit(X[:40], y[:40] % 2)
    assert len(loaded) == 1


def test_two_jobs_share_a_feature_store(images, tmp_path):
    X, y = images
    search = GridSearchCV(head(tmp_path), {"weight": [0.0, 0.5]}, cv=3, n_jobs=2).fit(X, y)
    expected = GridSearchCV(head(None), {"weight": [0.0, 0.5]}, cv=3).fit(X, y)
    assert_array_equal(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )


@pytest.mark.filterwarnings("default")
def test_dask_cluster_shares_a_feature_store(images, count, tmp_path):
    distributed = pytest.importorskip("distributed")
    X, y = images
    expected = GridSearchCV(head(None), {"weight": [0.0, 0.5]}, cv=3).fit(X, y)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        search = GridSearchCV(head(tmp_path), {"weight": [0.0, 0.5]}, cv=3).fit(X, y)
    assert_array_equal(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    before = count()
    head(tmp_path).fit(X, y)
    assert count() == before
    assert np.all(np.diff(search.best_estimator_.classes_) > 0)
