"""Lower blocks of a backbone: what a head reads in addition to the last features."""

import numpy as np
import pytest
import timm
import torch

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce.backbones import (
    fingerprint,
    frozen_backbone,
    lower_blocks_of,
    part_widths,
    run_backbone,
)
from sklearn_clce.backbones._running import MAX_BLOCKS, choose_blocks, give_lower_blocks
from small_backbones import TinyBackbone

SIZE = 64
IMAGES = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
HEAD = {"trainable": "head", "image_size": 32, "max_epochs": 1, "random_state": 0}


def timm_model(name, **settings):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **settings).eval()


@pytest.mark.parametrize(
    ("n_blocks", "expected"),
    [
        (0, []),
        (1, [0]),
        (3, [0, 1, 2]),
        (4, [0, 1, 2, 3]),
        (5, [1, 2, 3, 4]),
        (12, [2, 5, 8, 11]),
        (24, [5, 11, 17, 23]),
    ],
)
def test_blocks_lie_at_equal_distances_up_to_the_last(n_blocks, expected):
    assert choose_blocks(n_blocks) == expected


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("efficientnet_lite0", {}),
        ("vit_tiny_patch16_224", {"img_size": SIZE}),
        ("beit_base_patch16_224", {"img_size": SIZE, "embed_dim": 48, "depth": 6, "num_heads": 2}),
        ("convnext_atto", {}),
        ("swin_tiny_patch4_window7_224", {"img_size": SIZE, "embed_dim": 24, "window_size": 2}),
        ("mobilenetv4_conv_small", {}),
        ("mixer_s32_224", {"img_size": SIZE}),
    ],
)
def test_means_of_blocks_follow_the_last_features(name, settings):
    model = timm_model(name, **settings)
    with torch.no_grad():
        last, (_, maps) = model(IMAGES), model.forward_intermediates(IMAGES)
        give_lower_blocks(model, 3, SIZE)
        features = run_backbone(model, IMAGES)
    blocks = lower_blocks_of(model)
    assert len(blocks) == min(len(maps), MAX_BLOCKS)
    assert blocks[-1] == len(maps) - 1
    (widths,) = part_widths(model, features.shape[1])
    parts = features.split(widths, dim=1)
    torch.testing.assert_close(parts[0], last)
    for part, block in zip(parts[1:], blocks, strict=True):
        torch.testing.assert_close(part, maps[block].mean(dim=(2, 3)))


@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002"])
def test_last_block_whose_mean_is_the_last_features_is_left_out(name):
    model = timm_model(name)
    with torch.no_grad():
        last, maps = model.forward_intermediates(IMAGES)
        torch.testing.assert_close(maps[-1].mean(dim=(2, 3)), model.forward_head(last))
        give_lower_blocks(model, 3, SIZE)
        features = run_backbone(model, IMAGES)
    assert lower_blocks_of(model) == (0, 1, 2, 3)
    assert len(maps) == 5
    assert features.shape[1] == model.num_features + sum(one.shape[1] for one in maps[:-1])


def test_model_that_timm_can_not_look_into_gives_its_last_features():
    plain = TinyBackbone().eval()
    give_lower_blocks(plain, 3, SIZE)
    other = timm_model("resnet10t")
    other.feature_info = other.feature_info[:2]  # it reports fewer blocks than it gives
    other.forward_intermediates = lambda *args, **named: None
    give_lower_blocks(other, 3, SIZE)
    for model in (plain, other):
        assert lower_blocks_of(model) == ()
        assert run_backbone(model, IMAGES).shape == model(IMAGES).shape


def test_fingerprint_depends_on_lower_blocks():
    last, both = (
        frozen_backbone("efficientnet_lite0", image_size=32, lower_blocks=wanted)
        for wanted in (False, True)
    )
    assert lower_blocks_of(last.module) == ()
    assert lower_blocks_of(both.module) == (1, 2, 3, 4)
    assert last.fingerprint != both.fingerprint
    assert both is frozen_backbone("efficientnet_lite0", image_size=32, lower_blocks=True)


def test_head_on_a_backbone_by_name_reads_lower_blocks(colour_images, colour_labels):
    clf = CLCEClassifier(**HEAD).fit(colour_images, colour_labels)
    assert clf.module_.head.standardize.widths == (1280, 24, 40, 112, 320)
    last = BackboneFeatures(image_size=32).fit_transform(colour_images)
    both = BackboneFeatures(clf.module_.backbone, image_size=32).fit(colour_images)
    assert len(both.get_feature_names_out()) == sum(clf.module_.head.standardize.widths)
    features = both.transform(colour_images)
    np.testing.assert_allclose(features[:, :1280], last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{"trainable": "auto"}, {"trainable": 1}, {"pretrained": False}],
    ids=["auto", "some blocks", "random weights"],
)
def test_other_networks_read_the_last_features_alone(settings, colour_images, colour_labels):
    clf = CLCEClassifier(**HEAD | settings).fit(colour_images, colour_labels)
    assert clf.module_.head.standardize.widths == (1280,)


def test_module_of_the_user_gives_its_last_features(colour_images, colour_labels):
    model = timm_model("resnet10t", pretrained=False)
    clf = CLCEClassifier(model, **HEAD).fit(colour_images, colour_labels)
    assert clf.module_.head.standardize.widths == (512,)


def test_head_keeps_lower_blocks_when_more_is_trained(colour_images, colour_labels):
    clf = CLCEClassifier(**HEAD, warm_start=True).fit(colour_images, colour_labels)
    clf.set_params(trainable="all").fit(colour_images, colour_labels)
    assert not clf.module_.frozen
    assert clf.module_.head.standardize.widths == (1280, 24, 40, 112, 320)
    clf.partial_fit(colour_images, colour_labels)
    assert clf.module_.head.standardize.widths == (1280, 24, 40, 112, 320)


@pytest.mark.parametrize("trainable", ["head", 1])
def test_backbone_from_a_model_file_has_the_same_fingerprint(
    trainable, colour_images, colour_labels, tmp_path
):
    clf = CLCEClassifier(**HEAD | {"trainable": trainable}).fit(colour_images, colour_labels)
    clf.save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model")
    fingerprints = (fingerprint(one.module_.backbone) for one in (clf, loaded))
    assert len(set(fingerprints)) == 1


def test_model_file_keeps_lower_blocks(colour_images, colour_labels, tmp_path):
    clf = CLCEClassifier(**HEAD).fit(colour_images, colour_labels)
    clf.save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model")
    expected = clf.predict_proba(colour_images)
    np.testing.assert_array_equal(loaded.predict_proba(colour_images), expected)
    taken = CLCEClassifier(clf.module_.backbone, **HEAD).fit(colour_images, colour_labels)
    assert taken.module_.head.standardize.widths == (1280, 24, 40, 112, 320)
    taken.save(tmp_path / "taken")
    without = timm_model("tf_efficientnet_lite0", pretrained=False)
    again = CLCEClassifier.load(tmp_path / "taken", backbone=without)
    expected = taken.predict_proba(colour_images)
    np.testing.assert_array_equal(again.predict_proba(colour_images), expected)
    assert lower_blocks_of(without) == ()
    with pytest.raises(ValueError, match="TinyBackbone does not show such lower blocks"):
        CLCEClassifier.load(tmp_path / "taken", backbone=TinyBackbone())
