"""Features kept in the process: one pass for a search, bounded, never a wrong one."""

import copy
import multiprocessing
import os
import pickle
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce.features import ProcessStore, _computing, process_store
from small_backbones import Counting, log_images

by_fork = pytest.mark.skipif(sys.platform != "linux", reason="processes are forks")


def vectors(numbers, width=8):
    return {b"%d" % number: np.full(width, number, dtype=np.float32) for number in numbers}


def keys_of(store):
    return {int(key) for key in store.get([b"%d" % number for number in range(1000)])}


def head(backbone=None, **params):
    defaults = {"trainable": "head", "max_epochs": 1, "projection_dim": 8, "random_state": 0}
    return CLCEClassifier(backbone or Counting(), **defaults | params)


@pytest.fixture(scope="module")
def images():
    """Forty photographs of two kinds that are all different, and their labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (40, 8, 8, 3), dtype=np.uint8)
    images[::2] += 50
    return images, np.arange(40) % 2


@pytest.fixture
def paths(images, tmp_path):
    files = [str(tmp_path / f"{number}.png") for number in range(40)]
    for path, image in zip(files, images[0], strict=True):
        save(path, image)
    return files


def save(path, image):
    Image.fromarray(image).save(path)
    os.utime(path, (time.time() - 60,) * 2)


# the store


def test_store_returns_what_was_put_and_nothing_else():
    store = ProcessStore()
    store.put(vectors([1, 2]))
    store.put({b"1": np.ones(3, dtype=np.float32)})
    kept = store.get([b"1", b"2", b"3"])
    assert {key: vector.tolist() for key, vector in kept.items()} == {
        b"1": [1] * 3,
        b"2": [2] * 8,
    }


def test_kept_features_are_copies_that_can_not_be_changed():
    store, batch = ProcessStore(), np.zeros((4, 8), dtype=np.float32)
    store.put({b"%d" % number: row for number, row in enumerate(batch)})
    batch[:] = 7
    kept = store.get([b"2"])[b"2"]
    assert kept.base is None
    assert kept.tolist() == [0] * 8
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def test_features_that_were_not_used_for_longest_make_room():
    store = ProcessStore(max_bytes=10 * 8 * 4)
    store.put(vectors(range(10)))
    store.get([b"0", b"3"])
    store.put(vectors(range(10, 15)))
    assert keys_of(store) == {0, 3, 7, 8, 9, 10, 11, 12, 13, 14}
    store.put(vectors(range(100, 200)))
    assert keys_of(store) == set(range(190, 200))
    store.put({b"5": np.zeros(1000, dtype=np.float32)})
    assert keys_of(store) == set()


def test_replaced_features_do_not_count_twice():
    store = ProcessStore(max_bytes=10 * 8 * 4)
    for _ in range(5):
        store.put(vectors(range(10)))
    assert len(keys_of(store)) == 10


def test_cleared_store_is_empty_and_can_be_filled():
    store = ProcessStore(max_bytes=10 * 8 * 4)
    store.put(vectors(range(10)))
    store.clear()
    assert keys_of(store) == set()
    store.put(vectors(range(10)))
    assert len(keys_of(store)) == 10


def test_threads_share_a_store_within_its_bound():
    store = ProcessStore(max_bytes=50 * 8 * 4)

    def work(start):
        for number in range(start, start + 100):
            store.put(vectors([number % 120]))
            for key, vector in store.get(list(vectors(range(120)))).items():
                assert vector.tolist() == [int(key)] * 8

    threads = [threading.Thread(target=work, args=(40 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys_of(store)) == 50


@by_fork
def test_forked_child_inherits_features_and_a_free_lock():
    store = ProcessStore(max_bytes=10 * 8 * 4)
    store.put(vectors(range(5)))
    store._n_bytes = 10**9  # as a thread leaves it that is within put

    def use():
        store.put(vectors(range(5, 12)))
        os._exit(0 if keys_of(store) == set(range(2, 12)) else 1)

    held, done = threading.Event(), threading.Event()

    def hold():
        with store._lock:
            held.set()
            done.wait(60)

    threading.Thread(target=hold).start()
    held.wait(60)
    process = multiprocessing.get_context("fork").Process(target=use)
    process.start()
    process.join(60)
    done.set()
    assert process.exitcode == 0


def test_copies_and_pickles_are_the_store_of_the_process():
    process_store.put(vectors(range(100), width=1000))
    content = pickle.dumps(process_store)
    assert len(content) < 200
    assert pickle.loads(content) is copy.deepcopy(process_store) is process_store


# one pass


@pytest.mark.parametrize("kind", ["paths", "arrays", "list", "PIL", "bytes"])
def test_cross_validation_runs_each_image_once(kind, images, paths, count):
    X, y = images
    kinds = {
        "paths": lambda: paths,
        "arrays": lambda: X,
        "list": lambda: list(X),
        "PIL": lambda: [Image.fromarray(image) for image in X],
        "bytes": lambda: [Path(path).read_bytes() for path in paths],
    }
    X = kinds[kind]()
    clf = head().fit(X, y)
    cross_val_score(clf, X, y, cv=3)
    head(weight=0.1).fit(X[::-1], y[::-1])
    assert count() == 40


def test_search_gives_the_scores_of_one_that_keeps_nothing(images, count):
    X, y = images
    grid = {"weight": [0.0, 0.5]}
    scores = GridSearchCV(head(), grid, cv=2).fit(X, y).cv_results_
    assert count() == 40
    nothing = GridSearchCV(head(memory=joblib.Memory(None)), grid, cv=2).fit(X, y).cv_results_
    assert count() == 40 + 40 * 2 * 2 + 40
    for fold in range(2):
        name = f"split{fold}_test_score"
        np.testing.assert_array_equal(scores[name], nothing[name])


def test_pipeline_of_features_runs_each_image_once(images, count):
    X, y = images
    cross_val_score(make_pipeline(BackboneFeatures(Counting()), LogisticRegression()), X, y, cv=3)
    assert count() == 40


def test_bundled_backbone_has_bitwise_the_same_fit_with_and_without(images):
    X, y = images[0][:16], images[1][:16]
    fits = [
        head("efficientnet_lite0", image_size=32, memory=memory).fit(X, y)
        for memory in (joblib.Memory(None), None, None)
    ]
    expected, *others = [fit.predict_proba(X) for fit in fits]
    for other in others:
        np.testing.assert_array_equal(other, expected)


def test_start_of_a_backbone_that_trains_is_kept_and_its_end_is_not(images, count):
    X, y = images

    def runs():
        before = count()
        CLCEClassifier(FineTuned(), max_epochs=1, random_state=0, augment=None).fit(X, y)
        return count() - before

    assert runs() == runs()


class FineTuned(Counting):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(48, 4)

    def forward(self, images):
        return self.layer(super().forward(images))


# never a wrong one


def test_changed_file_is_computed_again(images, paths, count):
    first = BackboneFeatures(Counting()).transform(paths)
    save(paths[3], 255 - images[0][3])
    second = BackboneFeatures(Counting()).transform(paths)
    assert count() == 41
    assert np.flatnonzero((first != second).any(axis=1)).tolist() == [3]


def test_array_changed_in_place_is_computed_again(images, count):
    X = images[0].copy()
    BackboneFeatures(Counting()).transform(X)
    X[5] = 255 - X[5]
    second = BackboneFeatures(Counting()).transform(X)
    assert count() == 41
    assert not np.array_equal(second[5], BackboneFeatures(Counting()).transform(images[0])[5])


def test_weights_changed_in_place_are_seen_by_a_clone(images):
    X, y = images
    search = GridSearchCV(head(FineTuned()), {"weight": [0.5]}, cv=2).fit(X, y)
    before = search.predict_proba(X)
    search.best_estimator_.module_.backbone.layer.weight.data.mul_(-1)
    assert not np.allclose(search.predict_proba(X), before)


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"image_size": 6}])
def test_another_setting_is_computed_again(images, count, change):
    features = BackboneFeatures(Counting(), precision="float32")
    features.transform(images[0])
    features.set_params(**change).transform(images[0])
    assert count() == 80


def test_backbone_that_can_not_be_described_is_not_kept_and_nothing_is_said(images, count):
    class Evaluating(Counting):
        def forward(self, images):
            log_images(images)
            return eval("images.mean(dim=(2, 3))")

    for _ in range(2):
        BackboneFeatures(Evaluating()).transform(images[0])
    assert count() == 80


# what is not kept


class Readings:
    """A Dataset that counts its readings."""

    n_read = 0

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.n_read += 1
        return self.images[index]


def test_dataset_is_read_no_more_often_than_before(images):
    dataset = Readings(images[0])
    features = BackboneFeatures(Counting())
    features.transform(dataset)
    by_store = dataset.n_read
    features.set_params(memory=joblib.Memory(None)).transform(dataset)
    assert dataset.n_read == 2 * by_store


def test_prediction_outside_of_a_search_keeps_nothing(images, count):
    X, y = images
    clf = head().fit(X[:20], y[:20])
    for _ in range(2):
        clf.predict(X)
    assert count() == 20 + 2 * 40


def test_few_images_are_not_worth_a_description(images, count, monkeypatch):
    monkeypatch.setattr(_computing, "_run_key", None)
    for _ in range(2):
        BackboneFeatures(Counting()).transform(images[0][:7])
    assert count() == 14


def test_memory_that_keeps_nothing_is_heeded_without_a_warning(images, count):
    X, y = images
    for _ in range(2):
        head(memory=joblib.Memory(None)).fit(X, y)
    assert count() == 80
    CLCEClassifier(FineTuned(), memory=joblib.Memory(None), max_epochs=1).fit(X, y)


def test_state_of_a_store_holds_no_features():
    store = ProcessStore(max_bytes=100)
    store.put({b"key": np.ones(3, np.float32)})
    other = ProcessStore.__new__(ProcessStore)
    other.__setstate__(store.__getstate__())
    assert other.max_bytes == 100
    assert other.get([b"key"]) == {}
