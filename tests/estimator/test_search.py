"""A grid search over a frozen backbone costs one pass, in one process or on a cluster."""

import copy

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_predict
from torch import nn

from sklearn_clce import CLCEClassifier
from small_backbones import counting_images, log_images

GRID = {"temperature": [0.05, 0.1, 0.5], "weight": [0.0, 0.3, 0.6, 0.9]}


class Counting(nn.Module):
    """Reports the images that pass any copy of it."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)

    def forward(self, images):
        log_images(images)
        return self.pool(images).flatten(1)


@pytest.fixture(scope="module")
def images():
    data = load_digits()
    return data.images[:200] / 16, data.target[:200]


def head(memory, **params):
    defaults = {"max_epochs": 2, "random_state": 0, "trainable": "head", "projection_dim": 16}
    return CLCEClassifier(Counting(), memory=memory, **defaults | params)


@pytest.fixture
def count():
    with counting_images() as passed:
        yield lambda: passed.n_images


def test_twelve_candidates_in_five_folds_run_the_backbone_once_an_image(images, count, tmp_path):
    X, y = images
    first = GridSearchCV(head(tmp_path), GRID, cv=5).fit(X, y)
    assert count() == 200
    second = GridSearchCV(head(tmp_path), GRID, cv=5).fit(X[::-1], y[::-1])
    assert count() == 200
    assert len(first.cv_results_["params"]) == len(second.cv_results_["params"]) == 12


def test_scores_with_and_without_the_store_are_identical(images, count, tmp_path):
    X, y = images
    with_store = GridSearchCV(head(tmp_path), GRID, cv=5).fit(X, y).cv_results_
    without = GridSearchCV(head(None), GRID, cv=5).fit(X, y).cv_results_
    assert count() > 200 * 12 * 5
    for fold in range(5):
        name = f"split{fold}_test_score"
        assert_array_equal(with_store[name], without[name])


def test_any_other_fold_is_a_hit(images, count, tmp_path):
    X, y = images
    head(joblib.Memory(tmp_path, verbose=0)).fit(X, y)
    cross_val_predict(head(tmp_path), X, y, cv=3)
    head(tmp_path).fit(X[::3], y[::3]).predict_proba(X[1::2])
    assert count() == 200


def test_predict_of_new_images_runs_only_on_them(images, count, tmp_path):
    X, y = images
    clf = head(tmp_path).fit(X[:150], y[:150])
    clf.predict(X)
    assert count() == 200
    copied = copy.deepcopy(clf)
    assert_array_equal(copied.predict_proba(X), clf.predict_proba(X))
    assert count() == 200


def test_an_augmented_head_is_an_explicit_choice(images, count, tmp_path):
    X, y = images
    augmented = head(tmp_path, augment=lambda batch: batch.flip(-1), max_epochs=3)
    augmented.fit(X, y)
    assert count() == 200 + 3 * 200


def test_clones_do_not_load_weights_again(monkeypatch, images):
    X, y = images
    loaded = []
    from sklearn_clce.backbones import _frozen

    load = _frozen.load_backbone
    monkeypatch.setattr(_frozen, "_loaded", type(_frozen._loaded)())
    monkeypatch.setattr(_frozen, "load_backbone", lambda *a, **k: loaded.append(a) or load(*a, **k))
    clf = CLCEClassifier(trainable="head", image_size=32, max_epochs=1, random_state=0)
    GridSearchCV(clf, {"weight": [0.0, 0.5]}, cv=2).fit(X[:40], y[:40] % 2)
    assert len(loaded) == 1


def test_two_jobs_share_a_folder(images, tmp_path):
    X, y = images
    search = GridSearchCV(head(tmp_path), {"weight": [0.0, 0.5]}, cv=3, n_jobs=2).fit(X, y)
    expected = GridSearchCV(head(None), {"weight": [0.0, 0.5]}, cv=3).fit(X, y)
    assert_array_equal(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_shares_a_folder(images, tmp_path):
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
    Counting.seen = 0
    head(tmp_path).fit(X, y)
    assert Counting.seen == 0
    assert np.all(np.diff(search.best_estimator_.classes_) > 0)
