"""Early stopping: the validation split and the weights that are kept."""

import copy

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from small_fits import Recorder, head, same_weights, weights_of


def test_early_stopping_restores_best_weights(clouds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, codes = clouds
    y = np.array(["c", "a", "b"])[codes]
    kept = []

    class Keep(Callback):
        def on_epoch_end(self, net, **kwargs):
            kept.append(copy.deepcopy(net.module_.state_dict()))

    clf = head(
        early_stopping=True,
        n_iter_no_change=3,
        validation_fraction=0.25,
        max_epochs=100,
        callbacks=[Keep()],
    ).fit(X, y)
    scores = clf.history_[:, "valid_acc"]
    assert len(scores) == clf.n_iter_ < 100
    best = int(np.argmax(scores))
    assert clf.n_iter_ == best + 1 + 4  # one more than n_iter_no_change, as MLPClassifier
    assert same_weights(kept[best], weights_of(clf))
    assert clf.validation_scores_ == scores
    assert clf.best_validation_score_ == max(scores)
    assert list(tmp_path.iterdir()) == []


def test_validation_split_is_stratified(clouds):
    X, codes = clouds
    recorder = Recorder(lambda net, batch: net.state.validation.targets.labels)
    clf = head(early_stopping=True, validation_fraction=0.2, max_epochs=1, callbacks=[recorder])
    clf.fit(X, codes)
    assert torch.bincount(recorder.seen[0]).tolist() == [4, 4, 4]
    assert clf.net_.fit_state is None


def test_validation_scores_are_none_without_early_stopping(clouds):
    clf = head(max_epochs=2).fit(*clouds)
    assert clf.validation_scores_ is None
    assert clf.best_validation_score_ is None
    assert clf.n_iter_ == 2


def test_too_small_validation_fraction_is_rejected(clouds):
    X, codes = clouds
    with pytest.raises(ValueError, match=r"early_stopping=True with validation_fraction=0.01"):
        head(early_stopping=True, validation_fraction=0.01).fit(X, codes)
