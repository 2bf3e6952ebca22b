"""What a practitioner trusts a fit with: batches, augmentation, stopping, going on, failing."""

import copy
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, LRScheduler
from torch import nn
from torchvision.transforms.v2 import RandomHorizontalFlip

from sklearn_clce import CLCEClassifier
from sklearn_clce.data import Augmentation, is_grey
from sklearn_clce.samplers import ClassBalancedBatchSampler, ShuffledBatchSampler


@pytest.fixture(scope="module")
def features():
    """Three overlapping clouds of 20 rows."""
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 3
    return rng.normal(size=(60, 6)) + 2 * np.eye(3, 6)[codes], codes


def head(**params):
    defaults = {"max_epochs": 6, "learning_rate": 0.01, "random_state": 0}
    return CLCEClassifier("precomputed", **defaults | params)


def weights_of(clf):
    return {name: value.clone() for name, value in clf.module_.state_dict().items()}


def same_weights(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


class Recorder(Callback):
    """Record something of the net after each training step."""

    def __init__(self, what):
        self.what = what
        self.seen = []

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        if training:
            self.seen.append(self.what(net, batch))


# --- schedule and optimizer -------------------------------------------------------------------


def test_the_rate_warms_up_and_decays_step_by_step(features):
    recorder = Recorder(lambda net, batch: net.optimizer_.param_groups[0]["lr"])
    clf = head(batch_size=10, warmup=0.25, callbacks=[recorder]).fit(*features)
    rates = np.array(recorder.seen)
    assert len(rates) == 6 * 6
    assert_allclose(rates.max(), 0.01)
    assert np.argmax(rates) == 8
    assert rates[-1] == 0
    assert_allclose(clf.history_[:, "lr"], rates[5::6])


def test_optimizer_and_scheduler_can_be_replaced(features):
    params = {"optimizer": torch.optim.SGD, "callbacks__lr_scheduler": None}
    stepped = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.1)
    clf = head(skorch_params=params, callbacks=[stepped]).fit(*features)
    assert isinstance(clf.net_.optimizer_, torch.optim.SGD)
    assert_allclose(clf.history_[:, "event_lr"], [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])
    pickle.loads(pickle.dumps(clf)).partial_fit(*features)


@pytest.mark.parametrize(("clip_grad", "largest"), [(0.01, 0.01), (None, np.inf)])
def test_gradients_are_clipped(clip_grad, largest, features):
    def norm(net, batch):
        grads = [p.grad.norm() for p in net.module_.parameters() if p.grad is not None]
        return torch.stack(grads).norm().item()

    recorder = Recorder(norm)
    head(clip_grad=clip_grad, callbacks=[recorder]).fit(*features)
    assert max(recorder.seen) <= largest * 1.001
    assert max(recorder.seen) > 0.009


# --- batches ----------------------------------------------------------------------------------


def many_classes(n_classes=30, rows=4):
    codes = np.repeat(np.arange(n_classes), rows)
    return np.eye(n_classes)[codes] + 0.1, codes


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ClassBalancedBatchSampler),
        ({"weight": 0.0}, ShuffledBatchSampler),
        ({"batch_size": 200}, ShuffledBatchSampler),
        ({"sampler": "balanced", "batch_size": 200}, ClassBalancedBatchSampler),
    ],
)
def test_sampler(params, expected):
    clf = head(**{"batch_size": 16, "max_epochs": 1} | params).fit(*many_classes())
    assert type(clf.net_.batch_sampler) is expected


def test_lonely_anchors_are_warned_of_once():
    X, codes = many_classes()
    with pytest.warns(UserWarning, match="anchors have a positive.* sampler='balanced'") as caught:
        head(sampler="shuffle", batch_size=8).fit(X, codes)
    assert len(caught) == 1


def test_no_last_batch_of_one_row(tiny_backbone, colour_images, colour_labels):
    recorder = Recorder(lambda net, batch: len(batch[0]))
    clf = CLCEClassifier(tiny_backbone, batch_size=11, max_epochs=1, callbacks=[recorder])
    clf.fit(colour_images, colour_labels)
    assert recorder.seen == [6, 6]


def test_a_batch_larger_than_the_data_still_trains(features):
    X, codes = features
    before = head(max_epochs=1, learning_rate=1e-12).fit(X, codes)
    after = head(max_epochs=1, batch_size=1000).fit(X, codes)
    assert not same_weights(weights_of(before), weights_of(after))


# --- augmentation -----------------------------------------------------------------------------


def test_digits_are_never_mirrored():
    """A bright left edge stays on the left."""
    images = torch.zeros(200, 3, 16, 16)
    images[..., :4] = 1
    torch.manual_seed(0)
    changed = Augmentation(grey=True)(images)
    left, right = changed[..., :8].mean(dim=(1, 2, 3)), changed[..., 8:].mean(dim=(1, 2, 3))
    assert (left > right).all()
    assert not torch.equal(changed[0], changed[1])
    mirrored = Augmentation(grey=False)(images)
    assert (mirrored[..., 8:].mean(dim=(1, 2, 3)) > 0.5).any()


@pytest.mark.parametrize("grey", [True, False])
def test_augmented_images_stay_in_range_and_shape(grey):
    torch.manual_seed(0)
    images = torch.rand(5, 3, 16, 12)
    changed = Augmentation(grey)(images)
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 1


def test_grey_is_told_from_colour(colour_images, digits):
    assert not is_grey(torch.from_numpy(colour_images[0] / 255).permute(2, 0, 1))
    assert is_grey(torch.from_numpy(digits[0][:1]))
    assert is_grey(torch.from_numpy(digits[0][:1]).expand(3, 8, 8))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "photographs"),
        ({"grey": True}, "grey"),
        ({"augment": None}, None),
        ({"trainable": "head"}, None),
    ],
)
def test_auto_augmentation(params, expected, tiny_backbone, colour_images, colour_labels):
    params = dict(params)
    X = colour_images[..., :1] if params.pop("grey", False) else colour_images
    clf = CLCEClassifier(tiny_backbone, max_epochs=1, **params).fit(X, colour_labels)
    augment = clf.net_.augment
    kind = None if augment is None else "grey" if augment.grey else "photographs"
    assert kind == expected


@pytest.mark.parametrize("trainable", ["all", "head"])
@pytest.mark.parametrize("n_views", [1, 3])
def test_a_callable_sees_batches_of_images(
    trainable, n_views, tiny_backbone, colour_images, colour_labels
):
    shapes = []

    def darker(images):
        shapes.append(tuple(images.shape))
        assert 0 <= images.min() <= images.max() <= 1
        return images * torch.rand(1)

    recorder = Recorder(lambda net, batch: None)
    clf = CLCEClassifier(
        tiny_backbone,
        trainable=trainable,
        augment=darker,
        n_views=n_views,
        batch_size=6,
        max_epochs=2,
        random_state=0,
        callbacks=[recorder],
    )
    clf.fit(colour_images, colour_labels)
    assert shapes == [(6, 3, 16, 20)] * (4 * n_views)
    assert len(recorder.seen) == 4


def test_a_module_may_augment_and_is_no_part_of_the_network(
    tiny_backbone, colour_images, colour_labels
):
    clf = CLCEClassifier(
        tiny_backbone, augment=RandomHorizontalFlip(p=1), max_epochs=1, random_state=0
    ).fit(colour_images, colour_labels)
    images = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(clf.net_.augment(images), images.flip(-1))
    reloaded = pickle.loads(pickle.dumps(clf))
    torch.testing.assert_close(reloaded.net_.augment(images), images.flip(-1))


def test_views_are_positives_of_each_other(tiny_backbone, colour_images):
    """Each row a class of its own: only views give the contrastive term something to do."""
    fits = {}
    for n_views in (1, 2):
        clf = CLCEClassifier(
            tiny_backbone, weight=1.0, n_views=n_views, max_epochs=1, random_state=0
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            clf.fit(colour_images[:4], np.arange(4))
        fits[n_views] = clf.history_[0, "train_loss"], len(caught)
    assert fits[1] == (0, 1)
    assert fits[2][0] > 0
    assert fits[2][1] == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_views": 2, "augment": None}, "n_views=2: without augmentation"),
        ({"n_views": 2, "trainable": "head"}, "n_views=2: without augmentation"),
    ],
)
def test_views_that_would_be_the_same(params, message, tiny_backbone, colour_images, colour_labels):
    with pytest.raises(ValueError, match=message):
        CLCEClassifier(tiny_backbone, **params).fit(colour_images, colour_labels)


def test_features_are_not_augmented(features):
    with pytest.raises(ValueError, match="augment: X holds features"):
        head(augment=torch.neg).fit(*features)


# --- weights ----------------------------------------------------------------------------------


def test_sample_weight_is_routed_as_metadata(features):
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


# --- early stopping ---------------------------------------------------------------------------


def test_early_stopping_gives_the_best_weights_back(features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, codes = features
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


def test_validation_rows_hold_every_class(features):
    X, codes = features
    recorder = Recorder(lambda net, batch: net.train_split.keywords["valid_ds"].targets.labels)
    clf = head(early_stopping=True, validation_fraction=0.2, max_epochs=1, callbacks=[recorder])
    clf.fit(X, codes)
    assert torch.bincount(recorder.seen[0]).tolist() == [4, 4, 4]
    assert clf.net_.train_split is None


def test_without_early_stopping_there_are_no_validation_scores(features):
    clf = head(max_epochs=2).fit(*features)
    assert clf.validation_scores_ is None
    assert clf.best_validation_score_ is None
    assert clf.n_iter_ == 2


def test_too_few_rows_to_set_aside(features):
    X, codes = features
    with pytest.raises(ValueError, match=r"early_stopping=True with validation_fraction=0.01"):
        head(early_stopping=True, validation_fraction=0.01).fit(X, codes)


# --- going on ---------------------------------------------------------------------------------


def test_partial_fit_learns_from_parts(features):
    X, codes = features
    y = np.array(["c", "a", "b"])[codes]
    clf = head()
    for _ in range(10):
        for part in np.array_split(np.arange(60), 3):
            clf.partial_fit(X[part], y[part], classes=["a", "b", "c"])
    assert_array_equal(clf.classes_, ["a", "b", "c"])
    assert clf.score(X, y) > 0.9
    assert clf.n_iter_ == 30
    assert set(clf.history_[:, "lr"]) == {0.01}


def test_partial_fit_needs_no_row_of_each_class_in_each_call(features):
    X, codes = features
    clf = head().partial_fit(X, codes, classes=[0, 1, 2, 3])
    clf.partial_fit(X[codes == 1], codes[codes == 1])
    assert clf.predict_proba(X).shape == (60, 4)


def test_partial_fit_goes_on_after_fit_and_after_a_pickle(features):
    X, codes = features
    clf = head().fit(X, codes)
    before = weights_of(clf)
    copied = pickle.loads(pickle.dumps(clf))
    for fitted in (clf, copied):
        fitted.partial_fit(X, codes)
        assert fitted.n_iter_ == 7
        assert not same_weights(before, weights_of(fitted))


@pytest.mark.parametrize("name", ["temperature", "weight", "hardness", "label_smoothing"])
def test_changed_parameters_take_effect(name, features):
    X, codes = features
    clf = head().partial_fit(X, codes, classes=[0, 1, 2])
    other = copy.deepcopy(clf).set_params(**{name: 0.9})
    clf.partial_fit(X, codes)
    other.partial_fit(X, codes)
    assert getattr(other.net_.criterion_, name) == 0.9
    assert not same_weights(weights_of(clf), weights_of(other))


def test_a_changed_learning_rate_takes_effect(features):
    X, codes = features
    clf = head().partial_fit(X, codes, classes=[0, 1, 2])
    before = weights_of(clf)
    clf.set_params(learning_rate=1e-9, weight_decay=0.0, layer_decay=0.5).partial_fit(X, codes)
    assert all(torch.allclose(v, before[k], atol=1e-6) for k, v in weights_of(clf).items())


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        ([0, 1, 7], None, r"labels that are not in classes: \[7\]"),
        ([0, 1, 2], [0, 1, 2, 3], "is not the same as on last call"),
    ],
)
def test_partial_fit_refuses_and_changes_nothing(y, classes, message, features):
    X, codes = features
    clf = head().partial_fit(X, codes, classes=[0, 1, 2])
    before = clf.predict_proba(X)
    with pytest.raises(ValueError, match=message):
        clf.partial_fit(X[:3], y, classes=classes)
    assert_array_equal(clf.predict_proba(X), before)
    assert_array_equal(clf.classes_, [0, 1, 2])


def test_partial_fit_sets_no_rows_aside(features):
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        head(early_stopping=True).partial_fit(*features, classes=[0, 1, 2])


def test_first_partial_fit_needs_classes(features):
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        head().partial_fit(*features)


def test_an_error_in_the_middle_of_partial_fit_changes_nothing(
    tiny_backbone, colour_images, colour_labels
):
    clf = CLCEClassifier(tiny_backbone, batch_size=4, max_epochs=1, augment=None, random_state=0)
    clf.fit(colour_images, colour_labels)
    before = weights_of(clf)
    X = list(colour_images)
    X[3] = X[3] * 3.7  # out of range, found when its batch is read
    with pytest.raises(ValueError, match=r"X\[3\] has pixels"):
        clf.partial_fit(X, colour_labels)
    assert same_weights(before, weights_of(clf))


def test_warm_start_goes_on(features):
    X, codes = features
    clf = head(warm_start=True, max_epochs=2).fit(X, codes)
    first = weights_of(clf)
    clf.set_params(learning_rate=1e-9, weight_decay=0.0).fit(X, codes)
    assert all(torch.allclose(v, first[k], atol=1e-6) for k, v in weights_of(clf).items())
    assert clf.n_iter_ == 4
    with pytest.raises(ValueError, match="warm_start=True: y holds the classes"):
        clf.fit(X, codes + 1)


def test_pickles_hold_optimizer_state_only_for_a_warm_start(features):
    X, codes = features
    sizes = {
        warm: len(pickle.dumps(head(warm_start=warm, projection_dim=200).fit(X, codes)))
        for warm in (False, True)
    }
    assert sizes[True] > 2.5 * sizes[False]
    warm = head(warm_start=True).fit(X, codes)
    copied = pickle.loads(pickle.dumps(warm))
    assert_array_equal(copied.fit(X, codes).predict_proba(X), warm.fit(X, codes).predict_proba(X))


# --- precision and memory ---------------------------------------------------------------------


def test_bfloat16(tiny_backbone, colour_images, colour_labels):
    dtypes = []
    clf = CLCEClassifier(tiny_backbone, precision="bfloat16", max_epochs=2, random_state=0)
    recorder = Recorder(lambda net, batch: dtypes.append(net.infer(batch[0])[0].dtype))
    clf.set_params(callbacks=[recorder]).fit(colour_images, colour_labels)
    assert set(dtypes) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in clf.module_.parameters())
    proba = clf.predict_proba(colour_images)
    assert proba.dtype == np.float32
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)


def test_gradient_checkpointing_changes_nothing_but_memory(colour_images, colour_labels):
    def fit(gradient_checkpointing):
        clf = CLCEClassifier(
            "test_vit",
            pretrained=False,
            image_size=32,
            max_epochs=1,
            random_state=0,
            gradient_checkpointing=gradient_checkpointing,
        )
        return clf.fit(colour_images, colour_labels).predict_proba(colour_images)

    assert_allclose(fit(True), fit(False), rtol=1e-3)


def test_gradient_checkpointing_that_a_backbone_lacks(tiny_backbone, colour_images, colour_labels):
    with pytest.raises(ValueError, match="gradient_checkpointing=True: TinyBackbone does not"):
        CLCEClassifier(tiny_backbone, gradient_checkpointing=True).fit(colour_images, colour_labels)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_fit_is_the_same_fit(tiny_backbone, colour_images, colour_labels):
    def fit(compile):
        clf = CLCEClassifier(tiny_backbone, compile=compile, max_epochs=2, random_state=0)
        return clf.fit(colour_images, colour_labels)

    compiled = fit(True)
    expected = fit(False).predict_proba(colour_images)
    assert_allclose(compiled.predict_proba(colour_images), expected, rtol=1e-2)
    copied = pickle.loads(pickle.dumps(compiled))
    assert_allclose(copied.predict_proba(colour_images), expected, rtol=1e-2)


# --- what is shown ----------------------------------------------------------------------------


def test_verbose_says_what_trains_and_how_it_goes(features, capfd):
    head(verbose=1, early_stopping=True, max_epochs=2).fit(*features)
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


def test_scikit_learns_callbacks_over_a_grid_search(features, capfd):
    pytest.importorskip("sklearn.callback")
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    search = GridSearchCV(head(max_epochs=3), {"weight": [0.0, 0.5]}, cv=2)
    search.set_callbacks(ProgressBar()).fit(*features)
    assert search.best_params_["weight"] in (0.0, 0.5)
    shown = capfd.readouterr().out
    assert "GridSearchCV" in shown
    assert "CLCEClassifier" in shown
    pickle.loads(pickle.dumps(search.best_estimator_))
    with pytest.raises(ValueError, match="one class"):  # and the callback ends with the fit
        head().set_callbacks(ProgressBar()).fit(features[0], np.zeros(60, dtype=int))


# --- failing ----------------------------------------------------------------------------------


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


class StopAfter(Callback):
    """Press Ctrl-C when some epochs are over."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history_) > self.epochs:
            raise KeyboardInterrupt


def test_nan_in_the_first_epoch_is_an_error(colour_images, colour_labels):
    clf = CLCEClassifier(Breaking(step=1), batch_size=6, augment=None)
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1, step 1.* nothing is kept"):
        clf.fit(colour_images, colour_labels)
    assert not hasattr(clf, "classes_")


def test_an_absurd_learning_rate_is_named(features):
    with pytest.raises(ValueError, match="learning_rate that is too high"):
        head(learning_rate=1e30, clip_grad=None).fit(*features)


def test_keyboard_interrupt_leaves_a_usable_estimator(features):
    X, codes = features
    with pytest.warns(ConvergenceWarning, match="interrupted by the user"):
        clf = head(max_epochs=50, callbacks=[StopAfter(5)]).fit(X, codes)
    assert clf.predict(X).shape == (60,)
    assert clf.n_iter_ == 5


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_history_keeps_both_terms_of_the_criterion(weight, features):
    clf = head(weight=weight).fit(*features)
    for row in clf.history_:
        expected = (1 - weight) * row["train_cross_entropy"]
        if weight:
            expected += weight * row["train_contrastive"]
        assert row["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert ("train_contrastive" in clf.history_[0]) == (weight > 0)
