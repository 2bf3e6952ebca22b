"""A fit that breaks or is interrupted keeps what can be kept."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklearn_clce import CLCEClassifier
from small_fits import StopAfter, head, same_weights, weights_of


class Breaking(nn.Module):
    """A backbone that gives NaN from some training step on."""

    def __init__(self, step):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.step = step
        self.steps = 0

    def forward(self, images):
        if self.training:
            self.steps += 1
        broken = torch.nan if self.training and self.steps >= self.step else 1
        return images.mean(dim=(2, 3)) * self.weight * broken


def test_nan_stops_the_fit_and_keeps_the_last_good_weights(colour_images, colour_labels):
    clf = CLCEClassifier(Breaking(step=6), batch_size=6, max_epochs=9, augment=None, random_state=0)
    with pytest.warns(ConvergenceWarning) as caught:
        clf.fit(colour_images, colour_labels)
    message = str(caught[0].message)
    assert "the loss is nan in epoch 3, step 2" in message
    assert "learning_rate" in message
    assert "keeps the weights of epoch 2" in message
    two = CLCEClassifier(
        Breaking(step=99), batch_size=6, max_epochs=9, augment=None, random_state=0
    )
    two.set_params(callbacks=[StopAfter(2)])
    with pytest.warns(ConvergenceWarning, match="interrupted by the user"):
        two.fit(colour_images, colour_labels)
    assert same_weights(weights_of(two), weights_of(clf))
    assert np.isfinite(clf.predict_proba(colour_images)).all()


def test_nan_in_the_first_epoch_is_an_error(colour_images, colour_labels):
    clf = CLCEClassifier(Breaking(step=1), batch_size=6, augment=None)
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1, step 1.* nothing is kept"):
        clf.fit(colour_images, colour_labels)
    assert not hasattr(clf, "classes_")


def test_an_absurd_learning_rate_is_named(clouds):
    with pytest.raises(ValueError, match="learning_rate that is too high"):
        head(learning_rate=1e30, clip_grad=None).fit(*clouds)


def test_keyboard_interrupt_leaves_a_usable_estimator(clouds):
    X, codes = clouds
    with pytest.warns(ConvergenceWarning, match="interrupted by the user"):
        clf = head(max_epochs=50, callbacks=[StopAfter(5)]).fit(X, codes)
    assert clf.predict(X).shape == (60,)
    assert clf.n_iter_ == 5
