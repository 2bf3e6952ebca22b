"""Fits in threads and daemonic processes, and interrupted fits."""

import multiprocessing

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch.utils.data import DataLoader

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce._system import loader_processes, seeded_torch
from small_backbones import TinyBackbone


def fit(backbone, X, y, seed):
    clf = CLCEClassifier(backbone, max_epochs=2, batch_size=6, random_state=seed)
    return clf.fit(X, y).predict_proba(X)


def test_threaded_fits_match_sequential_fits(tiny_backbone, colour_images, colour_labels):
    seeds = [0, 1, 2, 0, 1, 2]
    expected = [fit(tiny_backbone, colour_images, colour_labels, seed) for seed in seeds[:3]] * 2
    torch.manual_seed(7)
    before = torch.get_rng_state()
    features = BackboneFeatures("test_resnet", pretrained=False, image_size=32)  # draws weights
    jobs = [
        joblib.delayed(fit)(tiny_backbone, colour_images, colour_labels, seed) for seed in seeds
    ]
    jobs[3:3] = [joblib.delayed(features.transform)(colour_images[:2])] * 2
    found = joblib.Parallel(n_jobs=4, backend="threading")(jobs)
    assert torch.equal(torch.get_rng_state(), before)
    assert_array_equal(found.pop(3), found.pop(3))
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(one, other)


def test_seeding_does_not_touch_other_devices(monkeypatch):
    """torch.manual_seed seeds every GPU, but fork_rng restores only those named."""
    monkeypatch.setattr(torch, "manual_seed", None)
    with seeded_torch(3):
        assert torch.initial_seed() == 3


def loaded(queue):
    data = list(DataLoader(range(3), **loader_processes(2)))
    queue.put([int(item) for item in data])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_daemonic_process_loads_without_workers():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=loaded, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=60) == [0, 1, 2]
    process.join()


def test_loader_does_not_use_loky_start_method(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "loky")
    options = loader_processes(1)
    assert options["multiprocessing_context"] in multiprocessing.get_all_start_methods()
    assert sorted(map(int, DataLoader(range(3), **options))) == [0, 1, 2]


def test_search_workers_may_use_loader_processes(colour_images, colour_labels):
    clf = CLCEClassifier(TinyBackbone(), max_epochs=1, random_state=0, num_workers=1, batch_size=6)
    search = GridSearchCV(clf, {"weight": [0.0]}, cv=2, n_jobs=2, refit=False, error_score="raise")
    search.fit(colour_images, colour_labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


class CutOff(Callback):
    """Presses Ctrl-C after a step, or before the first one."""

    def __init__(self, step):
        self.step = step
        self.steps_ = 0

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and self.step == 0:
            raise KeyboardInterrupt

    def on_batch_end(self, net, training=False, **kwargs):
        self.steps_ += training
        if self.steps_ == self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X / 8, y


def head(step, **parameters):
    return CLCEClassifier(
        "precomputed", callbacks=[CutOff(step)], max_epochs=3, random_state=0, **parameters
    )


@pytest.mark.parametrize("step", [1, 7])
def test_interrupted_fit_can_predict(iris, step):
    clf = head(step)
    with pytest.warns(ConvergenceWarning, match="interrupted by the user"):
        assert clf.fit(*iris) is clf
    assert clf.predict(iris[0]).shape == (150,)


def test_interrupt_before_first_step_leaves_unfitted(iris):
    clf = head(0)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*iris)
    assert not hasattr(clf, "net_")
    assert not hasattr(clf, "classes_")


def test_interrupt_before_first_step_keeps_previous_fit(iris):
    clf = head(0, warm_start=True).set_params(callbacks=None).fit(*iris)
    before = clf.predict_proba(iris[0])
    with pytest.raises(KeyboardInterrupt):
        clf.set_params(callbacks=[CutOff(0)]).fit(*iris)
    assert_array_equal(clf.predict_proba(iris[0]), before)
    assert clf.n_iter_ == 3


def test_interrupted_search_ends(iris):
    with pytest.raises(KeyboardInterrupt):
        GridSearchCV(head(7), {"weight": [0.0, 0.5]}, cv=2).fit(*iris)
