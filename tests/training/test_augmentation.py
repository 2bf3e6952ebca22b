"""Augmented images and their views."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import RandomHorizontalFlip

from sklearn_clce import CLCEClassifier
from sklearn_clce.backbones import BackboneConfig
from sklearn_clce.data import Augmentation, RandomCrops
from small_backbones import Counting
from small_fits import Recorder, head


def test_grey_images_are_never_mirrored():
    """A bright left edge stays on the left."""
    images = torch.zeros(200, 3, 16, 16)
    images[..., :4] = 1
    torch.manual_seed(0)
    changed = Augmentation(grey=True)(images)
    left, right = changed[..., :8].mean(dim=(1, 2, 3)), changed[..., 8:].mean(dim=(1, 2, 3))
    assert (left > right).all()
    assert not torch.equal(changed[0], changed[1])
    crops = RandomCrops(BackboneConfig(name="any"))
    mirrored = torch.stack([crops.finish(image, torch.rand(crops.n_numbers)) for image in images])
    assert (mirrored[..., 8:].mean(dim=(1, 2, 3)) > mirrored[..., :8].mean(dim=(1, 2, 3))).any()


@pytest.mark.parametrize("grey", [True, False])
def test_augmented_images_keep_range_and_shape(grey):
    torch.manual_seed(0)
    images = torch.rand(5, 3, 16, 12)
    changed = Augmentation(grey)(images)
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 1


def test_zero_weight_sample_does_not_count_as_colour(colour_images, colour_labels):
    grey = np.repeat(colour_images.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    X = np.concatenate([grey, colour_images[:1]])
    y = np.r_[colour_labels, colour_labels[:1]]
    clf = CLCEClassifier(image_size=32, max_epochs=1, random_state=0)
    proba = [
        clf.fit(grey, colour_labels).predict_proba(grey),
        clf.fit(X, y, sample_weight=np.r_[np.ones(12), 0]).predict_proba(grey),
    ]
    np.testing.assert_array_equal(*proba)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "photographs"),
        ({"grey": True}, "grey"),
        ({"augment": None}, None),
        ({"trainable": "head"}, None),
    ],
)
def test_auto_augmentation_follows_images_and_trainable(
    params, expected, tiny_backbone, colour_images, colour_labels
):
    params = dict(params)
    X = colour_images[..., :1] if params.pop("grey", False) else colour_images
    clf = CLCEClassifier(tiny_backbone, max_epochs=1, **params).fit(X, colour_labels)
    augment = clf.net_.plan.augment
    kind = None if augment is None else "grey" if augment.grey else "photographs"
    assert kind == expected


@pytest.mark.parametrize("trainable", ["all", "head"])
@pytest.mark.parametrize("n_views", [1, 3])
def test_augment_callable_sees_batches_of_images(
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


def test_augment_module_survives_pickle(tiny_backbone, colour_images, colour_labels):
    clf = CLCEClassifier(
        tiny_backbone, augment=RandomHorizontalFlip(p=1), max_epochs=1, random_state=0
    ).fit(colour_images, colour_labels)
    images = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(clf.net_.plan.augment(images), images.flip(-1))
    reloaded = pickle.loads(pickle.dumps(clf))
    torch.testing.assert_close(reloaded.net_.plan.augment(images), images.flip(-1))


def test_views_are_positives_of_each_other(tiny_backbone, colour_images):
    """Each sample is its own class, so that only views are positives."""
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
def test_views_without_augmentation_are_rejected(
    params, message, tiny_backbone, colour_images, colour_labels
):
    with pytest.raises(ValueError, match=message):
        CLCEClassifier(tiny_backbone, **params).fit(colour_images, colour_labels)


def test_augment_of_features_is_rejected(clouds):
    with pytest.raises(ValueError, match="augment: X holds features"):
        head(augment=torch.neg).fit(*clouds)


@pytest.mark.parametrize(
    ("augment", "named"),
    [
        (transforms.ToTensor(), "ToTensor"),
        (
            transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor()]),
            "ToTensor",
        ),
        (v2.Compose([v2.RandomApply([transforms.PILToTensor()])]), "PILToTensor"),
        (torch.nn.Sequential(v2.Normalize([0.5], [0.5])), "Normalize"),
    ],
)
def test_augment_for_files_or_networks_is_rejected_at_once(augment, named, count, colour_images):
    backbone = Counting()
    clf = CLCEClassifier(backbone, trainable="head", augment=augment)
    message = f"augment gets a batch .* leave out ToTensor, .* it holds {named}$"
    with pytest.raises(ValueError, match=message):
        clf.fit(colour_images, [0, 1] * 6)
    assert count() == 0


def test_error_of_augment_names_it(tiny_backbone, colour_images, colour_labels):
    def fails(images):
        raise KeyError("brightness")

    clf = CLCEClassifier(tiny_backbone, augment=fails)
    with pytest.raises(ValueError, match=r"augment gets .*; it raised KeyError: 'bri") as caught:
        clf.fit(colour_images, colour_labels)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("augment", "returned"),
    [
        (lambda images: None, "NoneType"),
        (lambda images: images[:2], r"\(2, 3, 16, 20\) of torch.float32 for \(12, 3, 16, 20\)"),
        (lambda images: images.double(), r"\(12, 3, 16, 20\) of torch.float64"),
    ],
)
def test_result_of_augment_is_checked(
    augment, returned, tiny_backbone, colour_images, colour_labels
):
    clf = CLCEClassifier(tiny_backbone, augment=augment)
    with pytest.raises(ValueError, match=f"augment gets .*; it returned {returned}"):
        clf.fit(colour_images, colour_labels)
