"""BackboneFeatures: features are right, and each image passes the backbone once."""

import hashlib
import os
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from torch import nn

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce._head import HeadConfig
from sklearn_clce._network import Network
from sklearn_clce._system import resolve_precision
from sklearn_clce.backbones import BackboneConfig, FrozenBackbone, _frozen
from sklearn_clce.data import EvaluationTransform, as_images
from sklearn_clce.features import FeatureStore, _computing, features_of
from small_backbones import counting_images, log_images


class CountingBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 6, 3)
        self.power = 1.0

    def forward(self, images):
        log_images(images)
        return self.layer(images).relu().pow(self.power).mean(dim=(2, 3))


@pytest.fixture
def backbone():
    with torch.random.fork_rng():
        return CountingBackbone().eval()


@pytest.fixture
def passed():
    """Number of images that passed a counting backbone since the last call."""
    with counting_images() as counter:
        yield counter.since_last_call


@pytest.fixture
def paths(tmp_path, colour_images):
    """Image files that are older than a clock's tick."""
    files = []
    for number, image in enumerate(colour_images):
        files.append(str(tmp_path / f"{number}.png"))
        save(files[-1], image)
    return files


def save(path, image, *, age=60):
    Image.fromarray(image).save(path)
    then = time.time() - age
    os.utime(path, (then, then))


def with_weights(backbone, change):
    with torch.no_grad():
        change(backbone)
    return backbone


def test_features_are_those_of_the_classifiers_module(photos):
    loaded = _frozen.frozen_backbone("efficientnet_lite0", image_size=64)
    module = Network(
        loaded.module, loaded.config, n_features=1280, n_classes=2, head=HeadConfig(None)
    ).eval()
    transform = EvaluationTransform(loaded.config)
    images = as_images(photos)
    batch = torch.stack([transform(images.decode(i)) for i in range(2)]).float() / 255
    features = BackboneFeatures(image_size=64, device="cpu").transform(photos)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, module.features(batch).numpy())


@pytest.mark.parametrize("memory", [False, True])
def test_every_kind_of_image_gives_the_same_features(
    backbone, memory, tmp_path, paths, colour_images
):
    features = BackboneFeatures(backbone, memory=tmp_path / "store" if memory else None)
    expected = features.transform(colour_images)
    pil = [Image.fromarray(image) for image in colour_images]
    for X in (
        torch.from_numpy(colour_images),
        colour_images.transpose(0, 3, 1, 2),
        list(colour_images),
        pil,
        paths,
        pd.Series(paths),
        pd.DataFrame({"path": paths}),
        [(image, 0) for image in pil],
        [*paths[:6], *pil[6:]],
    ):
        np.testing.assert_array_equal(features.transform(X), expected)
    flattened = (
        clone(features).set_params(image_shape=(16, 20, 3)).fit(colour_images.reshape(12, -1))
    )
    np.testing.assert_array_equal(flattened.transform(colour_images.reshape(12, -1)), expected)
    assert flattened.n_features_in_ == 960


def test_any_subset_and_order_is_found(backbone, passed, tmp_path, colour_images):
    features = BackboneFeatures(backbone, memory=tmp_path, batch_size=5)
    expected = features.transform(colour_images)
    assert passed() == 12
    rows = np.random.default_rng(0).permutation(12)[:7]
    for X in (colour_images, colour_images[rows], list(colour_images[rows][::-1])):
        features.transform(X)
    # a list of arrays is keyed by its pixels as they are read, an array by its bytes
    assert passed() == 7
    np.testing.assert_array_equal(features.transform(colour_images[rows]), expected[rows])
    assert passed() == 0


def test_only_missing_images_run_and_equal_ones_once(backbone, passed, tmp_path, colour_images):
    features = BackboneFeatures(backbone, memory=tmp_path)
    features.transform(colour_images[:5])
    assert passed() == 5
    rows = [7, 3, 7, 7, 0, 9, 9]
    out = features.transform(colour_images[rows])
    assert passed() == 2
    np.testing.assert_array_equal(out[0], out[2])
    np.testing.assert_allclose(out, BackboneFeatures(backbone).transform(colour_images[rows]), 1e-5)


def test_kept_features_are_those_that_were_computed(backbone, tmp_path, colour_images):
    plain = BackboneFeatures(backbone, batch_size=5).transform(colour_images)
    features = BackboneFeatures(backbone, batch_size=5, memory=tmp_path)
    assert features.transform(colour_images).tobytes() == plain.tobytes()
    assert features.transform(colour_images).tobytes() == plain.tobytes()


def test_another_process_finds_features_of_the_bundled_backbone(tmp_path, paths):
    features = BackboneFeatures(image_size=32, memory=tmp_path / "store", device="cpu")
    expected = features.transform(paths)
    code = (
        "from sklearn_clce import BackboneFeatures; import hashlib;"
        f"out = BackboneFeatures(image_size=32, memory={features.memory.as_posix()!r}, verbose=1,"
        f"device='cpu').transform({paths!r}); print(hashlib.sha256(out).hexdigest())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines() == [
        "all 12 images were in memory",
        hashlib.sha256(expected).hexdigest(),
    ], result.stderr


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda b: with_weights(b, lambda b: b.layer.bias.add_(1)), id="weights"),
        pytest.param(lambda b: setattr(b, "power", 2.0) or b, id="attribute"),
        pytest.param(lambda b: setattr(b, "pretrained_cfg", CFG) or b, id="preprocessing"),
        pytest.param(lambda b: with_code(b), id="code"),
    ],
)
def test_another_backbone_finds_nothing(backbone, other, passed, tmp_path, colour_images):
    BackboneFeatures(backbone, memory=tmp_path).transform(colour_images)
    backbone = other(backbone)
    expected = BackboneFeatures(backbone).transform(colour_images)
    passed()
    kept = BackboneFeatures(backbone, memory=tmp_path).transform(colour_images)
    assert passed() == 12
    np.testing.assert_array_equal(kept, expected)


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


def test_backbones_that_differ_in_a_function_alone_get_their_own_features(tmp_path, digits):
    X, y = digits
    pooling = nn.Sequential(nn.Identity(), Lambda(lambda x: x[:, :, ::3, ::3].flatten(1)))
    corner = nn.Sequential(nn.Identity(), Lambda(lambda x: x[:, :, 0, 0]))
    scores = []
    for backbone in (corner, pooling):
        features = BackboneFeatures(backbone, memory=tmp_path)
        scores.append(make_pipeline(features, LogisticRegression()).fit(X, y).score(X, y))
    assert scores[0] < 0.4 < 0.9 < scores[1]


def test_undescribable_backbone_is_not_kept(tmp_path, passed, colour_images):
    def forward(images):
        log_images(images)
        return eval("images.mean(dim=(2, 3))")

    features = BackboneFeatures(Lambda(forward), memory=tmp_path)
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=r"backbone=Lambda can't be .* not kept: it calls eval"
        ):
            features.transform(colour_images)
        assert passed() == 12


CFG = {"input_size": (3, 16, 16), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def with_code(backbone):
    """Edit a class as one does in a notebook: same name, same weights, another forward."""

    def forward(self, images):
        log_images(images)
        return self.layer(images).relu().pow(self.power).amax(dim=(2, 3))

    edited = type("CountingBackbone", (nn.Module,), {**vars(CountingBackbone), "forward": forward})
    backbone.__class__ = edited
    return backbone


@pytest.mark.parametrize("change", [{"image_size": 8}, {"precision": "bfloat16"}])
def test_another_setting_finds_nothing(backbone, change, passed, tmp_path, colour_images):
    features = BackboneFeatures(backbone, memory=tmp_path, precision="float32")
    features.transform(colour_images)
    passed()
    features.set_params(**change).transform(colour_images)
    assert passed() == 12


def test_buffers_that_a_state_dict_leaves_out_are_part_of_the_fingerprint():
    def digest(value):
        module = nn.Module()
        module.register_buffer("shift", torch.tensor(value), persistent=False)
        return FrozenBackbone(module, BackboneConfig("module")).fingerprint

    assert digest(1.0) == digest(1.0) != digest(2.0)


def test_same_path_with_other_content_is_computed_again(backbone, passed, tmp_path, paths):
    features = BackboneFeatures(backbone, memory=tmp_path / "store")
    before = features.transform(paths)
    save(paths[3], np.zeros((16, 20, 3), dtype=np.uint8), age=30)
    passed()
    after = features.transform(paths)
    assert passed() == 1
    changed = np.flatnonzero((before != after).any(axis=1))
    assert changed.tolist() == [3]


def test_unchanged_files_are_not_read_again(backbone, tmp_path, paths, monkeypatch):
    features = BackboneFeatures(backbone, memory=tmp_path / "store")
    expected = features.transform(paths)
    monkeypatch.setattr(_computing, "digest_file", None)
    monkeypatch.setattr(Image, "open", None)
    np.testing.assert_array_equal(features.transform(paths), expected)


def test_image_that_changes_while_it_is_read_is_not_kept(passed, backbone, tmp_path):
    class Random:
        def __init__(self):
            self.rng = np.random.default_rng(0)

        def __len__(self):
            return 4

        def __getitem__(self, row):
            return self.rng.random((8, 8, 3))

    features = BackboneFeatures(backbone, memory=tmp_path)
    features.transform(Random())
    fixed = [Random()[0] for _ in range(2)]
    passed()
    kept = features.transform(fixed)
    assert passed() == 1
    np.testing.assert_allclose(kept, BackboneFeatures(backbone).transform(fixed), rtol=1e-5)


@pytest.mark.parametrize("as_memory", [Path, str])
def test_folder_that_can_not_be_created_warns(backbone, tmp_path, colour_images, as_memory):
    (tmp_path / "file").touch()
    features = BackboneFeatures(backbone, memory=as_memory(tmp_path / "file" / "store"))
    with pytest.warns(UserWarning, match=r"memory=.*; features are computed without it"):
        computed = features.transform(colour_images)
    np.testing.assert_array_equal(computed, BackboneFeatures(backbone).transform(colour_images))


def test_folder_holds_the_store_alone(backbone, tmp_path, colour_images):
    BackboneFeatures(backbone, memory=tmp_path).transform(colour_images)
    assert [path.name for path in tmp_path.iterdir()] == ["sklearn_clce_features.sqlite"]


def test_path_that_can_not_be_read_names_its_row(backbone, tmp_path, paths):
    images = as_images(paths)
    os.remove(paths[2])
    loaded = FrozenBackbone(backbone, BackboneConfig("module"))
    with pytest.raises(FileNotFoundError, match=r"X\[2\]: there is no file"):
        features_of(images, loaded, store=FeatureStore(tmp_path / "store"))


def test_broken_store_changes_no_feature(backbone, passed, tmp_path, colour_images):
    features = BackboneFeatures(backbone, memory=tmp_path)
    expected = features.transform(colour_images)
    FeatureStore(tmp_path).path.write_bytes(b"not a database" * 1000)
    passed()
    with pytest.warns(UserWarning, match="file is not a database") as warned:
        np.testing.assert_array_equal(features.transform(colour_images), expected)
    assert len(warned) == 1
    assert passed() == 12


@pytest.mark.parametrize("as_memory", [str, joblib.Memory, FeatureStore])
def test_search_over_a_pipeline_runs_each_image_once(backbone, passed, tmp_path, digits, as_memory):
    memory = (
        joblib.Memory(tmp_path, verbose=0) if as_memory is joblib.Memory else as_memory(tmp_path)
    )
    X, y = digits
    pipeline = make_pipeline(BackboneFeatures(backbone, memory=memory), LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1.0, 10.0]}
    search = GridSearchCV(pipeline, grid, cv=5).fit(X, y)
    assert passed() == len(X) == 90
    again = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    assert passed() == 0
    pipeline.set_params(backbonefeatures__memory=joblib.Memory(None))
    plain = GridSearchCV(pipeline, grid, cv=5).fit(X, y)
    assert passed() > 1000
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )
    assert again.best_score_ > 0.5


def test_search_in_several_processes_gives_the_same_scores(tmp_path, digits):
    X, y = digits[0][:30], digits[1][:30]
    pipeline = make_pipeline(BackboneFeatures(image_size=32), LogisticRegression())
    grid = {"logisticregression__C": [0.001, 1.0]}
    plain = GridSearchCV(pipeline, grid, cv=2, refit=False).fit(X, y)
    pipeline.set_params(backbonefeatures__memory=str(tmp_path))
    search = GridSearchCV(pipeline, grid, cv=2, refit=False, n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )


def test_pipeline_before_a_classifier_of_features(digits):
    X, y = digits
    head = CLCEClassifier("precomputed", max_epochs=10, random_state=0)
    clf = make_pipeline(BackboneFeatures(image_size=32), head).fit(X[:60], y[:60])
    assert clf.score(X[60:], y[60:]) > 0.8


def test_transform_needs_no_fit_and_changes_nothing(backbone, colour_images):
    features = BackboneFeatures(backbone)
    before = dict(vars(features))
    transformed = features.transform(colour_images)
    assert vars(features) == before
    np.testing.assert_array_equal(clone(features).fit_transform(colour_images), transformed)


def test_names_of_features_need_no_fit(backbone, colour_images):
    assert BackboneFeatures(image_size=32).get_feature_names_out()[-1] == "backbonefeatures1279"
    features = BackboneFeatures(backbone).set_output(transform="pandas")
    frame = features.transform(colour_images)
    assert frame.columns.tolist() == [f"backbonefeatures{i}" for i in range(6)]


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_mixin_order",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
    ],
)
def test_scikit_learns_checks_pass(check):
    getattr(estimator_checks, check)("BackboneFeatures", BackboneFeatures(image_size=32))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"precision": "float8"}, "'precision' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"memory": 3}, "'memory' parameter"),
        ({"device": "nowhere"}, "device='nowhere' can't be used"),
        ({"backbone": "efficientnet_lite_0"}, "Did you mean 'efficientnet_lite0'"),
        ({"backbone": "precomputed"}, "backbone='precomputed': X would hold features"),
        ({"backbone": nn.Identity()}, r"gave \(12, 3, 16, 20\).*pool over height and width"),
    ],
)
def test_wrong_parameter_raises(params, message, colour_images):
    with pytest.raises(ValueError, match=message):
        BackboneFeatures(**params).transform(colour_images)


def test_random_weights_are_the_same_at_each_call(colour_images):
    state = torch.get_rng_state()
    features = BackboneFeatures("resnet18", pretrained=False, image_size=32)
    first = features.transform(colour_images)
    np.testing.assert_array_equal(features.transform(colour_images), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_module_is_not_changed(backbone, colour_images):
    backbone.train()
    BackboneFeatures(backbone).transform(colour_images)
    assert backbone.training
    assert all(weight.requires_grad for weight in backbone.parameters())


def test_precision_follows_the_device():
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == "float32"
    assert resolve_precision("bfloat16", cpu) == "bfloat16"


def test_half_precision_is_near_and_comes_back_as_float32(photos):
    full = BackboneFeatures(image_size=64, precision="float32", device="cpu")
    half = clone(full).set_params(precision="bfloat16").transform(photos)
    full = full.transform(photos)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.15 * np.abs(full).max()
    assert np.abs(half - full).mean() < 0.02 * np.abs(full).max()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_features_of_a_gpu_are_near_and_kept_apart(tmp_path, photos):
    cpu = BackboneFeatures(image_size=64, device="cpu", memory=tmp_path, precision="float32")
    expected = cpu.transform(photos)
    gpu = clone(cpu).set_params(device="cuda", precision="auto")
    features = gpu.transform(photos)
    assert 0 < np.abs(features - expected).max() < 0.15 * np.abs(expected).max()
    assert np.abs(features - expected).mean() < 0.02 * np.abs(expected).max()
    np.testing.assert_array_equal(gpu.transform(photos), features)
    loaded = _frozen.frozen_backbone("efficientnet_lite0", image_size=64)
    assert next(loaded.module.parameters()).device.type == "cpu"


@pytest.fixture
def loads(monkeypatch):
    """What was loaded, by a process that had loaded nothing before."""
    calls = []
    monkeypatch.setattr(_frozen, "_loaded", OrderedDict())
    load = _frozen.load_backbone
    monkeypatch.setattr(
        _frozen,
        "load_backbone",
        lambda name, *, n_channels=None, **kwargs: (
            calls.append((name, *kwargs.values())) or load(name, n_channels=n_channels, **kwargs)
        ),
    )
    return calls


def test_clones_share_one_loaded_backbone(loads, colour_images):
    features = BackboneFeatures(image_size=32)
    for _ in range(3):
        clone(features).transform(colour_images[:2])
    assert loads == [("efficientnet_lite0", True, 32)]


def test_two_backbones_stay_loaded(loads):
    load = _frozen.frozen_backbone
    for size in (32, 64, 32, 96, 32, 64):
        load("efficientnet_lite0", image_size=size)
    assert [size for *_, size in loads] == [32, 64, 96, 64]


def test_random_weights_and_modules_are_not_shared(backbone):
    load = _frozen.frozen_backbone
    assert load(backbone).module is not load(backbone).module
    first, second = (load("resnet18", pretrained=False) for _ in range(2))
    assert first.module is not second.module
    assert first.fingerprint != second.fingerprint


def test_changed_file_of_weights_is_loaded_again(loads, tmp_path, colour_images):
    path = tmp_path / "weights.safetensors"
    weights = _frozen.load_backbone("efficientnet_lite0")[0].state_dict()
    loads.clear()
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(weights, path)
    features = BackboneFeatures(pretrained=path, image_size=32, memory=tmp_path)
    first = features.transform(colour_images)
    features.transform(colour_images)
    assert len(loads) == 1
    save_file({name: tensor * 2 for name, tensor in weights.items()}, path)
    os.utime(path, (1, 1))
    assert not np.allclose(features.transform(colour_images), first)
    assert len(loads) == 2


def test_training_leaves_the_shared_backbone_alone(colour_images, colour_labels):
    loaded = _frozen.frozen_backbone("efficientnet_lite0", image_size=32)
    before = {name: tensor.clone() for name, tensor in loaded.module.state_dict().items()}
    fingerprint = loaded.fingerprint
    CLCEClassifier(image_size=32, max_epochs=1).fit(colour_images, colour_labels)
    after = loaded.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not loaded.module.training
    assert not any(weight.requires_grad for weight in loaded.module.parameters())
    assert FrozenBackbone(loaded.module, loaded.config).fingerprint == fingerprint
