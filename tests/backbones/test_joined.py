"""Several backbones in one head: each reads images in its own way, their features are joined."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_clce import AttributionDisplay, BackboneFeatures, CLCEClassifier, model_card
from sklearn_clce._head.layers import BLOCKS, LENGTH, Standardize
from sklearn_clce._system import seeded_torch
from sklearn_clce.backbones import fingerprint, frozen_backbone
from sklearn_clce.data import EvaluationTransform, as_images, evaluation_transform
from sklearn_clce.evaluation._comparison import usual_classifiers
from small_backbones import TinyBackbone, counting_images, log_images

NAMES = ("test_resnet", "test_vit")
SMALL = {"pretrained": False, "image_size": 32, "max_epochs": 2, "random_state": 0}


class Pooled(nn.Module):
    """Means of a grid of pixels, of images in a size and normalisation of its own."""

    def __init__(self, side, mean, n_features=3):
        super().__init__()
        self.pretrained_cfg = {
            "input_size": (3, side, side),
            "mean": (mean,) * 3,
            "std": (0.3,) * 3,
        }
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.scale = nn.Parameter(torch.linspace(1, 2, n_features))

    def forward(self, images):
        return self.pool(images).mean(dim=(2, 3))[:, :1] * self.scale + images[:, :1, 0, 0]


class Logged(Pooled):
    """Reports the images that pass any copy of it."""

    def forward(self, images):
        log_images(images)
        return super().forward(images)


@pytest.fixture
def modules():
    return Pooled(24, 0.5), Pooled(16, 0.2, n_features=5)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, size=(12, 20, 28, 3), dtype=np.uint8)
    images[::2, :, :14] += 120
    return images


LABELS = np.array(["left", "none"])[np.arange(12) % 2]


@pytest.fixture(scope="module")
def fitted(images):
    """A head on two backbones by name, which must not be changed."""
    return CLCEClassifier(NAMES, **SMALL).fit(images, LABELS)


def kinds(images, folder):
    paths = [folder / f"{place}.png" for place in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return {
        "array": images,
        "floats": images / 255,
        "grey": images[..., 0],
        "paths": paths,
        "sizes": [image[: 20 - place] for place, image in enumerate(images)],
    }


@pytest.mark.parametrize("num_workers", [0, 2])
def test_features_are_those_of_each_backbone_alone(images, modules, tmp_path, num_workers):
    for name, X in kinds(images, tmp_path).items():
        alone = [BackboneFeatures(one, num_workers=num_workers).transform(X) for one in modules]
        joined = BackboneFeatures(list(modules), num_workers=num_workers).transform(X)
        np.testing.assert_array_equal(joined, np.hstack(alone), err_msg=name)


def test_features_of_a_name_and_a_module(images, modules):
    joined = BackboneFeatures(("efficientnet_lite0", modules[0]), image_size=32)
    alone = [BackboneFeatures(one, image_size=32).transform(images) for one in joined.backbone]
    np.testing.assert_array_equal(joined.fit_transform(images), np.hstack(alone))
    assert len(joined.get_feature_names_out()) == 1283


def test_joined_backbone_of_a_classifier_gives_the_features_of_its_head(images, fitted):
    own = BackboneFeatures(fitted.module_.backbone, image_size=32).transform(images)
    with seeded_torch(fitted.net_.resume.seed):
        loaded = frozen_backbone(NAMES, pretrained=False, image_size=32)
    expected = BackboneFeatures(tuple(loaded.module.parts), image_size=32).transform(images)
    np.testing.assert_array_equal(own, expected)


def test_comparison_has_no_fine_tuned_classifier(fitted):
    assert list(usual_classifiers(fitted)) == ["LogisticRegression", "head"]
    assert len(usual_classifiers(CLCEClassifier())) == 3


def test_bands_and_one_image_size_for_all():
    X = np.random.default_rng(0).random((3, 5, 16, 16), dtype=np.float32)
    joined = BackboneFeatures(NAMES, pretrained=False, image_size=64, n_channels=5)
    assert [part.image_size for part in joined._load(5).config.parts] == [64, 64]
    assert joined.transform(X).shape == (3, len(joined.fit(X).get_feature_names_out()))


class Reading:
    """A dataset that counts how often it is read."""

    def __init__(self, images):
        self.images, self.n_reads = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.n_reads += 1
        return self.images[index]


def test_image_is_read_once_for_all_backbones(images, modules):
    one, several = Reading(images), Reading(images)
    BackboneFeatures(modules[0], num_workers=0).transform(one)
    BackboneFeatures(modules, num_workers=0).transform(several)
    assert several.n_reads == one.n_reads


def test_each_backbone_runs_once_per_image(images, tmp_path):
    modules = Logged(24, 0.5), Logged(16, 0.2)
    clf = CLCEClassifier(modules, memory=tmp_path, max_epochs=2, random_state=0)
    with counting_images() as passed:
        expected = clf.fit(images, LABELS).predict_proba(images)
        n_probes = 2  # that find the width of each
        assert passed.since_last_call() == 2 * len(images) + n_probes
        clf.save(tmp_path / "model")
        again = CLCEClassifier.load(tmp_path / "model", backbone=modules)
        passed.since_last_call()
        again.set_params(memory=tmp_path)
        np.testing.assert_array_equal(again.predict_proba(images), expected)
        assert passed.since_last_call() == 0


def test_last_features_of_each_backbone_have_one_length():
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1.0] * 6 + [10.0] * 3 + [100.0] * 2 + [0.1] * 8)
    features = torch.rand(40, 19, generator=generator) * scales
    features[:, 11:] -= 0.05  # the second backbone has negative ones
    standardize = Standardize([6, 3, 2], [8])
    assert standardize.adapt(features, torch.ones(40))
    assert [floor is None for floor in standardize.floors] == [False, True, True, True]
    parts = standardize(features).split(standardize.widths, dim=1)
    lengths = [float(part.square().sum(dim=1).mean().sqrt()) for part in parts]
    assert lengths[0] == pytest.approx(lengths[3], rel=1e-4)
    assert np.hypot(*lengths[1:3]) == pytest.approx(BLOCKS * lengths[0], rel=1e-4)
    assert np.linalg.norm(lengths) == pytest.approx(LENGTH, rel=1e-4)
    torch.testing.assert_close(standardize.inverse(standardize(features)).float(), features)


def test_auto_trains_a_head_on_lower_blocks_of_names(images, modules):
    clf = CLCEClassifier(
        ("efficientnet_lite0", modules[0]), image_size=32, max_epochs=1, random_state=0
    ).fit(images, LABELS)
    assert clf.trainable_ == clf.plan_.trainable == "head"
    assert "a head on features of efficientnet_lite0 + Pooled" in str(clf.plan_)
    assert clf.module_.head.standardize.widths == (1280, 24, 40, 112, 320, 3)
    assert clf.module_.frozen
    explicit = clone(clf).set_params(trainable="head").fit(images, LABELS)
    np.testing.assert_array_equal(explicit.predict_proba(images), clf.predict_proba(images))


def test_head_learns_from_both(images, fitted):
    assert fitted.score(images, LABELS) == 1
    sizes = [(part.name, part.image_size) for part in fitted.backbone_config_.parts]
    assert sizes == [("test_resnet", 32), ("test_vit", 32)]


def test_network_takes_what_the_backbones_read(images, fitted):
    X = images / 255
    transform = evaluation_transform(fitted.backbone_config_)
    batch = torch.stack([transform(image) for image in as_images(X)])
    assert batch.shape == (12, 1, 1, 2 * 3 * 32 * 32)
    with torch.no_grad():
        logits, _ = fitted.module_(batch)
    expected = torch.from_numpy(fitted.predict_proba(X))
    torch.testing.assert_close(logits.softmax(dim=1), expected, rtol=1e-4, atol=1e-5)


def test_model_file_holds_all_named_backbones(images, fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    loaded = CLCEClassifier.load(tmp_path / "model.safetensors")
    assert loaded.backbone == NAMES
    assert loaded.module_.head.standardize.floors == fitted.module_.head.standardize.floors
    prints = {fingerprint(one.module_.backbone) for one in (fitted, loaded)}
    assert len(prints) == 1
    for method in ("predict_proba", "score_samples"):
        expected = getattr(fitted, method)(images)
        np.testing.assert_array_equal(getattr(loaded, method)(images), expected)
    loaded.partial_fit(images, LABELS)
    assert loaded.module_.frozen
    with pytest.raises(ValueError, match="the file holds its whole backbone"):
        CLCEClassifier.load(tmp_path / "model.safetensors", backbone=NAMES)


def test_model_file_with_a_module_among_the_backbones(images, modules, tmp_path):
    backbones = ["test_resnet", modules[0]]
    clf = CLCEClassifier(backbones, **SMALL).fit(images, LABELS)
    clf.save(tmp_path / "model.safetensors")
    loaded = CLCEClassifier.load(tmp_path / "model.safetensors", backbone=backbones)
    assert loaded.backbone == backbones
    np.testing.assert_array_equal(loaded.predict_proba(images), clf.predict_proba(images))
    required = r"load\(path, backbone=\('its name', Pooled\(...\)\)\)"
    for wrong in (None, modules[0], backbones[::-1], [modules[0]] * 2):
        with pytest.raises(ValueError, match=required):
            CLCEClassifier.load(tmp_path / "model.safetensors", backbone=wrong)


def test_pickled_head_continues_with_the_same_backbones_only(images, modules):
    clf = CLCEClassifier(modules, max_epochs=1, random_state=0, warm_start=True)
    again = pickle.loads(pickle.dumps(clf.fit(images, LABELS)))
    np.testing.assert_array_equal(again.predict_proba(images), clf.predict_proba(images))
    again.fit(images, LABELS)
    tiny = TinyBackbone()
    for others in ((modules[0], tiny), (*modules, tiny), modules[0], modules[::-1]):
        again.set_params(backbone=others)
        with pytest.raises(ValueError, match="cannot change backbone when continuing"):
            again.fit(images, LABELS)


def test_search_compares_one_backbone_with_two(images):
    search = GridSearchCV(
        CLCEClassifier(trainable="head", **SMALL), {"backbone": ["test_vit", NAMES]}, cv=2
    )
    search.fit(images, LABELS)
    assert list(search.cv_results_["param_backbone"]) == ["test_vit", NAMES]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_named_backbones_are_loaded_once():
    pair = ("efficientnet_lite0", "tf_efficientnet_lite0.in1k")  # which an estimator rejects
    first, second = (frozen_backbone(pair, image_size=32) for _ in range(2))
    assert first is second
    with seeded_torch(0):
        assert frozen_backbone(NAMES, pretrained=False) is not frozen_backbone(
            NAMES, pretrained=False
        )


def test_new_classes_and_novelty(images, fitted):
    clf = pickle.loads(pickle.dumps(fitted))
    clf.add_classes(255 - images[:4], ["dark", "pale"] * 2)
    assert list(clf.classes_) == ["dark", "left", "none", "pale"]
    scores = clf.score_samples([*images, np.full((20, 28, 3), 255, np.uint8)])
    assert scores.shape == (13,)
    assert clf.calibrate_offset(images, contamination=0.5).offset_ > scores.min()


def test_onnx_has_an_input_for_each_backbone(images, modules, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    X = images / 255
    clf = CLCEClassifier(modules, max_epochs=1, random_state=0).fit(X, LABELS)
    clf.export_onnx(tmp_path / "model.onnx", input_dtype="float32")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    shapes = {each.name: each.shape[1:] for each in session.get_inputs()}
    assert shapes == {"images": [24, 24, 3], "images_2": [16, 16, 3]}
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["image_size"], metadata["resize_to"]) == ("[24, 16]", "[27, 18]")
    inputs = {
        name: np.stack([EvaluationTransform(config)(one).permute(1, 2, 0) for one in as_images(X)])
        for name, config in zip(shapes, clf.backbone_config_.parts, strict=True)
    }
    labels, probabilities = session.run(["labels", "probabilities"], inputs)
    np.testing.assert_array_equal(labels, clf.predict(X))
    np.testing.assert_allclose(probabilities, clf.predict_proba(X), atol=1e-4)


def test_card_and_attribution(images, fitted):
    assert "- backbone: test_resnet + test_vit" in model_card(fitted)
    with pytest.raises(ValueError, match="reads several backbones"):
        AttributionDisplay.from_estimator(fitted, images[:1])


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (("test_vit",), "two backbones or more are required"),
        ([], "two backbones or more are required"),
        (("test_vit", None), "names and modules are required, which None is not"),
        (("test_vit", ("resnet10t",)), "names and modules are required, which 'tuple' is not"),
        (("test_vit", "precomputed"), "which 'precomputed' is not"),
        (("test_vit", pd.DataFrame()), "which 'DataFrame' is not"),
        (("test_vit", "test_vit"), "one is there twice"),
        (("vit_tiny", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"), "one is there twice"),
        (None, "must be an instance of 'str'.* or an instance of 'list'. Got None"),
        (pd.DataFrame(), "must be an instance of 'str'"),
    ],
)
@pytest.mark.parametrize("kind", [CLCEClassifier, BackboneFeatures])
def test_backbones_that_can_not_be_joined(kind, backbone, message, images):
    with pytest.raises(ValueError, match=message):
        kind(backbone).fit(images, LABELS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainable": "all"}, "trainable='all': several backbones are not fine-tuned"),
        ({"trainable": 2}, "trainable=2: several backbones are not fine-tuned"),
        ({"pretrained": "w.pth"}, "pretrained='w.pth' holds the weights of one of them"),
        ({"augment": lambda batch: batch}, "augment: a head on several backbones"),
        ({"n_views": 2}, "n_views=2: without augmentation"),
        ({"backbone": ("test_vit", "test_vitt")}, "Did you mean 'test_vit'"),
        (
            {"backbone": ("test_vit", TinyBackbone()), "image_size": None},
            "TinyBackbone has no input",
        ),
    ],
)
def test_settings_that_several_backbones_reject(settings, message, images):
    with pytest.raises(ValueError, match=message):
        CLCEClassifier(**{"backbone": NAMES} | SMALL | settings).fit(images, LABELS)


def test_random_weights_are_those_of_each_backbone_alone(images):
    alone = [BackboneFeatures(name, pretrained=False).transform(images) for name in NAMES]
    together = BackboneFeatures(NAMES, pretrained=False).transform(images)
    np.testing.assert_array_equal(together, np.concatenate(alone, axis=1))


def test_load_names_the_backbone_that_differs(images, modules, tmp_path):
    path = tmp_path / "model.safetensors"
    CLCEClassifier(("test_vit", modules[1]), **SMALL).fit(images, np.arange(12) % 2).save(path)
    with pytest.raises(ValueError, match="backbone='test_resnet': the file holds 'test_vit'"):
        CLCEClassifier.load(path, backbone=("test_resnet", modules[1]))
    with pytest.raises(ValueError, match=r"backbone=\(Pooled, Pooled\): it was fitted with"):
        CLCEClassifier.load(path, backbone=modules)
