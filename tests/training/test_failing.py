"""A fit that fails or is interrupted keeps its last good weights."""

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


def test_nan_loss_keeps_last_good_weights(colour_images, colour_labels):
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


def test_nan_in_first_epoch_raises(colour_images, colour_labels):
    clf = CLCEClassifier(Breaking(step=1), batch_size=6, augment=None)
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1, step 1.* nothing is kept"):
        clf.fit(colour_images, colour_labels)
    assert not hasattr(clf, "classes_")


def test_excessive_learning_rate_is_reported(clouds):
    with pytest.raises(ValueError, match="learning_rate that is too high"):
        head(learning_rate=1e30, max_grad_norm=None).fit(*clouds)


def test_keyboard_interrupt_leaves_a_usable_estimator(clouds):
    X, codes = clouds
    with pytest.warns(ConvergenceWarning, match="interrupted by the user"):
        clf = head(max_epochs=50, callbacks=[StopAfter(5)]).fit(X, codes)
    assert clf.predict(X).shape == (60,)
    assert clf.n_iter_ == 5


class FiniteLoss(Breaking):
    """A backbone whose gradient breaks at some training step, while the loss is finite."""

    factor = torch.nan

    def forward(self, images):
        self.steps += self.training
        features = images.mean(dim=(2, 3)) * self.weight
        if self.training and self.steps == self.step:
            features.register_hook(lambda gradient: gradient * self.factor)
        return features


def finite_loss(step, **params):
    defaults = {"batch_size": 6, "max_epochs": 3, "augment": None, "random_state": 0}
    return CLCEClassifier(FiniteLoss(step), **defaults | params)


def weights_are_finite(clf):
    return all(value.isfinite().all() for value in weights_of(clf).values())


@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("step", [3, 4, 6])
def test_non_finite_gradient_in_last_step_is_discarded(
    step, early_stopping, max_grad_norm, factor, colour_images, colour_labels, monkeypatch
):
    monkeypatch.setattr(FiniteLoss, "factor", factor)
    params = {"early_stopping": early_stopping, "validation_fraction": 0.3, "batch_size": 4}
    clf = finite_loss(step, max_grad_norm=max_grad_norm, **params if early_stopping else {})
    with pytest.warns(ConvergenceWarning, match="keeps the weights of (the )?epoch"):
        clf.fit(colour_images, colour_labels)
    assert weights_are_finite(clf)
    assert np.isfinite(clf.predict_proba(colour_images)).all()
    assert clf.n_iter_ == (step - 1) // 2


def test_checkpoint_holds_only_finite_weights(colour_images, colour_labels, tmp_path):
    clf = finite_loss(4, checkpoint=tmp_path)
    with pytest.warns(ConvergenceWarning, match="keeps the weights of epoch 1"):
        clf.fit(colour_images, colour_labels)
    (path,) = tmp_path.glob("**/checkpoint.pt")
    state = torch.load(path, weights_only=True)
    assert state["epochs_done"] == 1
    assert all(value.isfinite().all() for value in state["weights"].values())


@pytest.mark.parametrize("step", [1, 2])
def test_partial_fit_discards_non_finite_weights(step, colour_images, colour_labels):
    clf = finite_loss(step + 2).partial_fit(colour_images, colour_labels, ["left", "none"])
    before = weights_of(clf)
    with pytest.raises(ValueError, match=r"in epoch 1, step . *.* nothing is kept"):
        clf.partial_fit(colour_images, colour_labels)
    assert same_weights(before, weights_of(clf))


class Leaping(torch.optim.SGD):
    """An optimizer that leaves the range of float32, from finite gradients."""

    def step(self, closure):
        loss = super().step(closure)
        with torch.no_grad():
            self.param_groups[0]["params"][0].mul_(1e38).mul_(1e38)
        return loss


def test_weights_beyond_float32_range_are_rejected(clouds):
    clf = head(max_epochs=1, batch_size=60, skorch_params={"optimizer": Leaping})
    with pytest.raises(ValueError, match="the weights are not finite after epoch 1"):
        clf.fit(*clouds)


def test_interrupt_discards_non_finite_weights(colour_images, colour_labels):
    class Interrupt(StopAfter):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history_) > self.epochs:
                with torch.no_grad():
                    net.module_.head.classifier.weight.fill_(torch.nan)
                raise KeyboardInterrupt

    clf = finite_loss(99, callbacks=[Interrupt(2)])
    with pytest.warns(ConvergenceWarning, match="keeps the weights of epoch 2"):
        clf.fit(colour_images, colour_labels)
    assert weights_are_finite(clf)


class Interrupted(torch.utils.data.Dataset):
    """Images; Ctrl-C is pressed at one of the reads."""

    def __init__(self, images, at):
        self.images, self.at, self.reads = images, at, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads += 1
        if self.reads == self.at:
            raise KeyboardInterrupt
        return self.images[index]


def test_interrupt_in_final_pass_keeps_fit(colour_images, colour_labels):
    def fit(at):
        X = Interrupted(colour_images, at)
        clf = CLCEClassifier(image_size=32, max_epochs=2, cache_size=0, num_workers=0)
        return clf.set_params(random_state=0).fit(X, colour_labels), X.reads

    whole, n_reads = fit(at=0)
    for at in (n_reads - 11, n_reads):  # the last pass reads each image once
        with pytest.warns(ConvergenceWarning, match="in the pass that follows training"):
            clf, _ = fit(at)
        assert clf.n_iter_ == whole.n_iter_ == 2
        with pytest.raises(ValueError, match=r"score_samples needs .* interrupted in its last"):
            clf.score_samples(colour_images)
        before = clf.set_params(learning_rate=1e-9, weight=0).predict_proba(colour_images)
        clf.partial_fit(colour_images[:2], colour_labels[:2])  # nothing starts again
        np.testing.assert_allclose(clf.predict_proba(colour_images), before, atol=1e-3)


def test_interrupt_skips_final_pass(colour_images, colour_labels):
    X = Interrupted(colour_images, 0)
    clf = CLCEClassifier(image_size=32, max_epochs=9, cache_size=0, num_workers=0, random_state=0)
    with pytest.warns(ConvergenceWarning, match="keeps its weights of that moment"):
        clf.set_params(callbacks=[StopAfter(1)]).fit(X, colour_labels)
    classifier = clf.module_.head.classifier.weight.clone()
    assert clf.n_iter_ == 1
    clf.score_samples(colour_images)
    reads = X.reads
    clf.set_params(callbacks=None, max_epochs=1).fit(X, colour_labels)
    assert X.reads - reads == reads  # as many: with a pass for the classifier, or for the means
    assert not torch.equal(classifier, clf.module_.head.classifier.weight)


class StopAfterSteps(StopAfter):
    """Press Ctrl-C in the first step after some epochs."""

    def on_epoch_begin(self, net, **kwargs):
        pass

    def on_batch_end(self, net, training=False, **kwargs):
        super().on_epoch_begin(net)


def test_interrupt_message_names_best_epoch_weights(clouds):
    clf = head(early_stopping=True, max_epochs=9, callbacks=[StopAfterSteps(3)])
    with pytest.warns(ConvergenceWarning, match="epoch with the best validation score"):
        clf.fit(*clouds)


def test_infinite_mask_buffer_is_allowed(colour_images, colour_labels):
    backbone = FiniteLoss(99)
    backbone.register_buffer("mask", torch.full((3,), -torch.inf))
    clf = finite_loss(99).set_params(backbone=backbone, max_epochs=1)
    assert clf.fit(colour_images, colour_labels).n_iter_ == 1
