"""What lower blocks of a backbone tell a head, beside its last features."""

import numpy as np
import pytest
import timm
import torch

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce.backbones import (
    describe,
    frozen_backbone,
    lower_blocks_of,
    part_widths,
    run_backbone,
)
from sklearn_clce.backbones._lower_blocks import (
    MOST_BLOCKS,
    chosen,
    give_lower_blocks,
)
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
    assert chosen(n_blocks) == expected


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
def test_means_of_blocks_stand_beside_the_last_features(name, settings):
    model = timm_model(name, **settings)
    with torch.no_grad():
        last, (_, maps) = model(IMAGES), model.forward_intermediates(IMAGES)
        give_lower_blocks(model, 3, SIZE)
        features = run_backbone(model, IMAGES)
    blocks = lower_blocks_of(model)
    assert len(blocks) == min(len(maps), MOST_BLOCKS)
    assert blocks[-1] == len(maps) - 1
    widths = part_widths(model, features.shape[1])
    parts = features.split(widths, dim=1)
    torch.testing.assert_close(parts[0], last)
    for part, block in zip(parts[1:], blocks, strict=True):
        torch.testing.assert_close(part, maps[block].mean(dim=(2, 3)))


@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002"])
def test_a_last_block_whose_mean_is_what_a_backbone_ends_with_is_left_out(name):
    model = timm_model(name)
    with torch.no_grad():
        last, maps = model.forward_intermediates(IMAGES)
        torch.testing.assert_close(maps[-1].mean(dim=(2, 3)), model.forward_head(last))
        give_lower_blocks(model, 3, SIZE)
        features = run_backbone(model, IMAGES)
    assert lower_blocks_of(model) == (0, 1, 2, 3)
    assert len(maps) == 5
    assert features.shape[1] == model.num_features + sum(one.shape[1] for one in maps[:-1])


def test_what_timm_can_not_look_into_gives_its_last_features():
    plain = TinyBackbone().eval()
    give_lower_blocks(plain, 3, SIZE)
    other = timm_model("resnet10t")
    other.feature_info = other.feature_info[:2]  # it tells of fewer blocks than it shows
    other.forward_intermediates = lambda *args, **named: None
    give_lower_blocks(other, 3, SIZE)
    for model in (plain, other):
        assert lower_blocks_of(model) == ()
        assert run_backbone(model, IMAGES).shape == model(IMAGES).shape


def test_backbones_with_and_without_lower_blocks_are_not_taken_for_the_same():
    last, both = (
        frozen_backbone("efficientnet_lite0", image_size=32, lower_blocks=wanted)
        for wanted in (False, True)
    )
    assert lower_blocks_of(last.module) == ()
    assert lower_blocks_of(both.module) == (1, 2, 3, 4)
    assert last.fingerprint != both.fingerprint
    assert both is frozen_backbone("efficientnet_lite0", image_size=32, lower_blocks=True)


def test_a_head_on_a_backbone_by_name_reads_them(colour_images, colour_labels):
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


def test_a_module_of_ones_own_gives_what_it_gives(colour_images, colour_labels):
    model = timm_model("resnet10t", pretrained=False)
    clf = CLCEClassifier(model, **HEAD).fit(colour_images, colour_labels)
    assert clf.module_.head.standardize.widths == (512,)


def test_a_head_goes_on_with_them_whatever_trains_then(colour_images, colour_labels):
    clf = CLCEClassifier(**HEAD, warm_start=True).fit(colour_images, colour_labels)
    clf.set_params(trainable="all").fit(colour_images, colour_labels)
    assert not clf.module_.frozen
    assert clf.module_.head.standardize.widths == (1280, 24, 40, 112, 320)
    clf.partial_fit(colour_images, colour_labels)
    assert clf.module_.head.standardize.widths == (1280, 24, 40, 112, 320)


@pytest.mark.parametrize("trainable", ["head", 1])
def test_a_backbone_from_a_file_is_known_as_the_same(
    trainable, colour_images, colour_labels, tmp_path
):
    clf = CLCEClassifier(**HEAD | {"trainable": trainable}).fit(colour_images, colour_labels)
    clf.save(tmp_path / "model")
    loaded = CLCEClassifier.load(tmp_path / "model")
    fingerprints = (describe(one.module_.backbone) for one in (clf, loaded))
    assert len(set(fingerprints)) == 1


def test_a_model_file_keeps_them(colour_images, colour_labels, tmp_path):
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
