"""Preprocessing is that of timm's own evaluation, for tensors of any size."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from sklearn_clce.backbones import BackboneConfig, load_backbone
from sklearn_clce.data import EvaluationTransform, as_images


@pytest.mark.parametrize("name", ["efficientnet_lite0", "vit_tiny"])
def test_evaluation_transform_agrees_with_timm(name, photos):
    backbone, config = load_backbone(name, pretrained=name == "efficientnet_lite0")
    options = resolve_data_config({}, model=backbone)
    timms = create_transform(**options | {"mean": (0, 0, 0), "std": (1, 1, 1)})
    for photo in photos:
        expected = timms(Image.fromarray(photo))
        ours = EvaluationTransform(config)(as_images([photo])[0])
        assert ours.shape == expected.shape
        # timm rounds and clips to 8 bits after each of its two passes, ours once at the end
        assert (ours - expected).abs().max() < 8 / 255
        assert (ours - expected).abs().mean() < 0.5 / 255


@pytest.mark.parametrize("size", [(8, 8), (5, 40), (300, 20)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_images_of_any_size_get_the_size_of_the_backbone(size, channels, crop_mode):
    config = BackboneConfig(name="any", image_size=32, crop_pct=0.9, crop_mode=crop_mode)
    image = EvaluationTransform(config)(torch.rand(channels, *size))
    assert image.shape == (3, 32, 32)
    assert 0 <= image.min() <= image.max() <= 1


def test_images_stay_as_they_are_without_a_size():
    image = torch.rand(3, 7, 9)
    assert torch.equal(EvaluationTransform(BackboneConfig(name="any"))(image), image)


def test_squash_keeps_the_edges_that_center_crops():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :10] = 255
    by_mode = {
        mode: EvaluationTransform(BackboneConfig(name="any", image_size=20, crop_mode=mode))(
            as_images([wide])[0]
        )
        for mode in ("center", "squash")
    }
    assert by_mode["center"].max() == 0
    assert by_mode["squash"].max() > 0.9


def test_grey_backbone_gets_grey():
    config = BackboneConfig(name="any", image_size=8, n_channels=1, mean=(0.0,), std=(1.0,))
    red = torch.zeros(3, 8, 8)
    red[0] = 1
    assert torch.allclose(EvaluationTransform(config)(red), torch.full((1, 8, 8), 0.2989))
