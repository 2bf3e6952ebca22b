"""What a fit shows and records."""

import pickle

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from sklearn_clce import CLCEClassifier
from small_fits import head


def test_verbose_says_what_trains_and_how_it_goes(clouds, capfd):
    head(verbose=1, early_stopping=True, max_epochs=2).fit(*clouds)
    shown = capfd.readouterr().err
    assert "training 17,813 of 17,813 parameters" in shown
    assert "epoch 2/2" in shown
    assert "loss=" in shown
    assert "valid acc=" in shown
    assert shown.count("\n") == 2


def test_verbose_tells_trained_from_frozen(capfd, colour_images, colour_labels):
    clf = CLCEClassifier("resnet10t", pretrained=False, trainable=1, verbose=1, max_epochs=1)
    clf.set_params(image_size=32).fit(colour_images, colour_labels)
    parameters = list(clf.module_.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    assert trained < total
    assert f"training {trained:,} of {total:,} parameters" in capfd.readouterr().err


def test_scikit_learns_callbacks_over_a_grid_search(clouds, capfd):
    pytest.importorskip("sklearn.callback")
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    search = GridSearchCV(head(max_epochs=3), {"weight": [0.0, 0.5]}, cv=2)
    search.set_callbacks(ProgressBar()).fit(*clouds)
    assert search.best_params_["weight"] in (0.0, 0.5)
    shown = capfd.readouterr().out
    assert "GridSearchCV" in shown
    assert "CLCEClassifier" in shown
    pickle.loads(pickle.dumps(search.best_estimator_))
    with pytest.raises(ValueError, match="one class"):  # and the callback ends with the fit
        head().set_callbacks(ProgressBar()).fit(clouds[0], np.zeros(60, dtype=int))


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_history_keeps_both_terms_of_the_criterion(weight, clouds):
    clf = head(weight=weight).fit(*clouds)
    for row in clf.history_:
        expected = (1 - weight) * row["train_cross_entropy"]
        if weight:
            expected += weight * row["train_contrastive"]
        assert row["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert ("train_contrastive" in clf.history_[0]) == (weight > 0)
