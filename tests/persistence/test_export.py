"""A fitted classifier as an ONNX file gives what the classifier gives, without PyTorch."""

import copy
import json
import sys
import textwrap
import threading
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import nn

from sklearn_clce import CLCEClassifier
from sklearn_clce.backbones import BackboneConfig
from sklearn_clce.data import EvaluationTransform, as_images
from small_backbones import TinyBackbone

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

N_ROWS = (1, 7, 500)
OUTPUTS = ["labels", "probabilities", "embeddings"]
LABELS = np.array(["cat", "dog", "été"])


def small_vit(name="vit_tiny_patch16_224", side=32, **shape):
    """Build a transformer of one block that takes images of 32 pixels."""
    shape = {"depth": 1, "embed_dim": 16, "num_heads": 2} | shape
    return timm.create_model(name, num_classes=0, img_size=side, patch_size=16, **shape)


def fitted(backbone, X, labels=LABELS, **params):
    defaults = {"image_size": X.shape[1], "max_epochs": 1, "random_state": 0}
    clf = CLCEClassifier(backbone, **defaults | params)
    return clf.fit(X[:12], labels[np.arange(12) % len(labels)])


def images(n=500, side=32, n_channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, side, side, n_channels), dtype=np.uint8)


def prepared(clf, X):
    """Resize as the classifier does, and as the reader of a file must: (n, H, W, C)."""
    transform = EvaluationTransform(clf.backbone_config_)
    pictures = torch.from_numpy(X).permute(0, 3, 1, 2)
    return torch.stack([transform(picture) for picture in pictures]).permute(0, 2, 3, 1).numpy()


def run(path, batch, outputs=OUTPUTS):
    session = onnxruntime.InferenceSession(path)
    (only,) = session.get_inputs()
    return session.run(outputs, {only.name: batch})


def metadata(path):
    about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    return {name: json.loads(value) for name, value in about.items()}


def assert_same(clf, path, X, batch=None, atol=1e-5):
    batch = prepared(clf, X) if batch is None else batch
    for n in N_ROWS:
        labels, probabilities, embeddings = run(path, batch[:n])
        (scores,) = run(path, batch[:n], ["scores"])
        np.testing.assert_allclose(scores, clf.score_samples(X[:n]), rtol=0, atol=20 * atol)
        np.testing.assert_allclose(probabilities, clf.predict_proba(X[:n]), rtol=0, atol=atol)
        np.testing.assert_allclose(embeddings, clf.transform(X[:n]), rtol=0, atol=atol)
        assert labels.tolist() == clf.classes_[probabilities.argmax(axis=1)].tolist()
        assert probabilities.dtype == embeddings.dtype == np.float32


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A classifier that trained as a whole, and its file; torch's random stream is not touched."""
    clf = fitted(TinyBackbone(), images())
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    before, drawn = clf.decision_function(images(7)), torch.get_rng_state()
    clf.export_onnx(path)
    assert torch.equal(torch.get_rng_state(), drawn)
    np.testing.assert_array_equal(clf.decision_function(images(7)), before)
    return clf, path


def test_file_agrees_with_the_classifier(exported):
    clf, path = exported
    assert_same(clf, path, images())


@pytest.mark.parametrize(
    ("backbone", "params"),
    [
        ("beit_base_patch16_224", {"gradient_checkpointing": True}),
        pytest.param("beit_base_patch16_224", {"trainable": "head"}, marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", {}, marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", {"trainable": "head"}, marks=pytest.mark.slow),
    ],
)
def test_file_of_a_small_transformer_agrees(backbone, params, tmp_path):
    clf = fitted(small_vit(backbone), images(), **params)
    clf.export_onnx(tmp_path / "model.onnx")
    assert_same(clf, tmp_path / "model.onnx", images())
    assert getattr(clf.module_.backbone, "grad_checkpointing", False) == (
        "gradient_checkpointing" in params
    )


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["head", "all"])
@pytest.mark.parametrize(
    ("backbone", "pretrained"),
    [("efficientnet_lite0", True), ("vit_tiny_patch16_224", False), ("beit", False)],
)
def test_file_of_a_whole_backbone_agrees(backbone, pretrained, trainable, tmp_path):
    clf = fitted(backbone, images(), pretrained=pretrained, trainable=trainable)
    clf.export_onnx(tmp_path / "model.onnx")
    assert_same(clf, tmp_path / "model.onnx", images(), atol=2e-4)


def test_features_are_classified_and_the_file_is_replaced(clouds, tmp_path):
    X, y = clouds
    clf = CLCEClassifier("precomputed", max_epochs=2, random_state=0).fit(X, y)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    clf.export_onnx(path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert_same(clf, path, np.resize(X, (500, 6)), np.resize(X, (500, 6)).astype(np.float32))
    (features,) = onnxruntime.InferenceSession(path).get_inputs()
    assert (features.name, features.type) == ("features", "tensor(float)")
    labels, _, _ = run(path, X[:7].astype(np.float32))
    assert (labels.dtype, labels.tolist()) == (np.int64, clf.predict(X[:7]).tolist())


def test_float_inputs_keep_the_depth_and_bands_are_the_last_axis(tmp_path):
    X = np.random.default_rng(0).random((20, 8, 8, 5), dtype=np.float32)
    clf = fitted(
        nn.Sequential(nn.Conv2d(5, 4, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten()), X, n_channels=5
    )
    path = tmp_path / "model.onnx"
    clf.export_onnx(path, input_dtype="float32")
    _, probabilities, _ = run(path, X)
    np.testing.assert_allclose(probabilities, clf.predict_proba(X), rtol=0, atol=1e-6)
    (pixels,) = onnxruntime.InferenceSession(path).get_inputs()
    assert (pixels.name, pixels.shape, pixels.type) == (
        "images",
        ["n", 8, 8, 5],
        "tensor(float)",
    )


def test_max_pixel_value_is_that_of_the_classifier(tmp_path):
    """Of 4 bits, white is 15, in the file as well."""
    clf = fitted(TinyBackbone(), images() // 17, max_pixel_value=15)
    path = tmp_path / "model.onnx"
    clf.export_onnx(path)
    _, probabilities, _ = run(path, images(7) // 17)
    expected = clf.predict_proba(images(7) // 17)
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
    assert metadata(path)["max_pixel_value"] == 15


def test_deep_pixels_are_exported_as_floats_only(tmp_path):
    X = images().astype(np.uint16) * 16
    clf = fitted(TinyBackbone(), X, max_pixel_value=4095)
    path = tmp_path / "model.onnx"
    with pytest.raises(
        ValueError, match="and max_pixel_value=4095: input_dtype='float32' is required"
    ):
        clf.export_onnx(path)
    clf.export_onnx(path, input_dtype="float32")
    _, probabilities, _ = run(path, X[:7].astype(np.float32) / 4095)
    np.testing.assert_allclose(probabilities, clf.predict_proba(X[:7]), rtol=0, atol=1e-6)
    assert metadata(path)["max_pixel_value"] == 1


def test_backbone_without_image_size_takes_any_size(tmp_path):
    clf = fitted(TinyBackbone(), images(), image_size=None, labels=np.array([True, False]))
    path = tmp_path / "model.onnx"
    clf.export_onnx(path)
    for X in (images(3, side=16), images(3, side=40)[:, :24]):
        labels, probabilities, _ = run(path, X)
        np.testing.assert_allclose(probabilities, clf.predict_proba(X), rtol=0, atol=1e-6)
        assert (labels.dtype, labels.tolist()) == (bool, clf.predict(X).tolist())


def test_metadata_hold_classes_and_resizing(exported):
    clf, path = exported
    about = metadata(path)
    assert about["classes"] == clf.classes_.tolist() == LABELS.tolist()
    assert about["image_size"] == about["resize_to"] == 32
    assert (about["interpolation"], about["n_channels"]) == ("bicubic", 3)
    assert (about["crop_pct"], about["crop_mode"]) == (1.0, "center")
    assert about["max_pixel_value"] == 255
    session = onnxruntime.InferenceSession(path)
    outputs = [(output.name, output.shape[0]) for output in session.get_outputs()]
    assert outputs == [(name, "n") for name in [*OUTPUTS, "scores"]]
    assert about["sklearn_clce"] == version("sklearn-clce")


def test_calibrated_file_decides_none_of_these(exported, tmp_path):
    clf = copy.deepcopy(exported[0])
    clf.offset_ = float(np.median(clf.score_samples(images(7))))
    clf.export_onnx(tmp_path / "model.onnx")
    scores, decided = run(tmp_path / "model.onnx", images(7), ["scores", "none_of_these"])
    assert decided.dtype == bool
    assert decided.tolist() == (scores < clf.offset_).tolist()
    assert 0 < decided.sum() < 7
    assert metadata(tmp_path / "model.onnx")["offset"] == clf.offset_
    assert "offset" not in metadata(exported[1])


@pytest.fixture(scope="module")
def kinds():
    """Images of three kinds that a network tells apart, uint8 (60, 32, 32, 3), and a classifier."""
    X = images(60)
    for kind in range(3):
        X[kind::3, ..., kind] //= 4
    return X, fitted(Wide(), X, max_epochs=4, trainable="head")


class Wide(nn.Module):
    """Convolutions that hold most of the weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.Conv2d(64, 64, 3, stride=2), nn.ReLU()
        )

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3))


def test_int8_file_is_small_and_agrees(kinds, tmp_path, capsys):
    X, clf = kinds
    clf.export_onnx(tmp_path / "float.onnx")
    agreement = clf.export_onnx(tmp_path / "int8.onnx", quantize="int8", calibration=X)
    printed = capsys.readouterr().out
    assert printed.startswith(f"int8: {agreement:.1%} of 30 held-out images keep their label; ")
    labels, probabilities, _ = run(tmp_path / "int8.onnx", X[1::2])
    assert agreement == np.mean(labels == clf.predict(X[1::2])) >= 0.9
    exact = clf.predict_proba(X[1::2])
    assert 0 < np.abs(probabilities - exact).max() < 0.2
    before, after = ((tmp_path / name).stat().st_size for name in ("float.onnx", "int8.onnx"))
    assert after < 0.5 * before  # of a real backbone .3: names and nodes count here
    assert metadata(tmp_path / "int8.onnx") == metadata(tmp_path / "float.onnx")
    model = onnx.load(tmp_path / "int8.onnx")
    assert str(tmp_path.parent) not in str(model)
    large = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) > 1000]
    assert {tensor.data_type for tensor in large} == {onnx.TensorProto.INT8}


def test_int8_file_that_agrees_too_little_is_not_written(kinds, tmp_path, monkeypatch):
    X, clf = kinds
    monkeypatch.setattr(
        "sklearn_clce.deployment._onnx.labels_of", lambda content, batches: LABELS[[0] * 30]
    )
    path = tmp_path / "model.onnx"
    message = r"\d+\.\d% of the held-out images keep their label, and min_agreement=0.9; pass"
    with pytest.raises(ValueError, match=message):
        clf.export_onnx(path, quantize="int8", calibration=X)
    assert not path.exists()
    agreement = clf.export_onnx(path, quantize="int8", calibration=X, min_agreement=0)
    assert agreement < 0.9
    assert path.exists()


def test_int8_images_show_ranges_or_are_held_out(kinds, tmp_path, monkeypatch):
    """What is compared has not been seen by the quantisation."""
    X, clf = kinds
    seen = {}
    for name in ("quantized", "labels_of"):

        def spy(given, batches, *, name=name):
            seen[name] = {batch["images"].tobytes() for batch in batches}
            raise RuntimeError if name == "labels_of" else StopIteration

        monkeypatch.setattr(f"sklearn_clce.deployment._onnx.{name}", spy)
    with pytest.raises(StopIteration):
        clf.export_onnx(tmp_path / "m.onnx", quantize="int8", calibration=X)
    monkeypatch.setattr("sklearn_clce.deployment._onnx.quantized", lambda model, batches: model)
    with pytest.raises(RuntimeError):
        clf.export_onnx(tmp_path / "m.onnx", quantize="int8", calibration=X)
    assert not seen["quantized"] & seen["labels_of"]
    assert seen["labels_of"] == {image.tobytes() for image in X[1::2]}


def test_int8_errors(kinds, clouds, tmp_path):
    X, clf = kinds
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match="quantize='int4': 'int8' or None is required"):
        clf.export_onnx(path, quantize="int4", calibration=X)
    with pytest.raises(ValueError, match="quantize='int8' and calibration of NoneType: both"):
        clf.export_onnx(path, quantize="int8")
    with pytest.raises(ValueError, match="quantize=None and calibration of ndarray: both"):
        clf.export_onnx(path, calibration=X)
    with pytest.raises(ValueError, match=r"min_agreement=2: a share in \[0, 1\] is required"):
        clf.export_onnx(path, quantize="int8", calibration=X, min_agreement=2)
    with pytest.raises(ValueError, match="calibration holds one image, and at least two"):
        clf.export_onnx(path, quantize="int8", calibration=X[:1])
    features = CLCEClassifier("precomputed", max_epochs=1, random_state=0).fit(*clouds)
    with pytest.raises(ValueError, match="'precomputed' has no backbone to compute in 8 bits"):
        features.export_onnx(path, quantize="int8", calibration=clouds[0])
    assert not path.exists()


def test_labels_that_are_not_utf8_become_escapes(clouds, tmp_path):
    """A file name in another encoding comes as a string that UTF-8 can't encode."""
    X, y = clouds
    names = np.array(["t\udce9l", "t\u00e9l", "\ud800"])
    for classes in (names, names.astype(object)):
        clf = CLCEClassifier("precomputed", max_epochs=2, random_state=0).fit(X, classes[y])
        path = tmp_path / "t\udce9l.onnx"
        clf.export_onnx(path)
        content = path.read_bytes()
        (labels,) = onnxruntime.InferenceSession(content).run(
            ["labels"], {"features": np.float32(X)}
        )
        escaped = [name.encode(errors="backslashreplace").decode() for name in clf.predict(X)]
        assert labels.tolist() == escaped
        assert set(labels) == {r"t\udce9l", "t\u00e9l", r"\ud800"}
        about = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
        assert json.loads(about["classes"]) == ["t\u00e9l", r"t\udce9l", r"\ud800"]


def test_file_needs_no_double_precision(exported):
    _, path = exported
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    kinds = {value.type.tensor_type.elem_type for value in model.graph.value_info}
    kinds |= {tensor.data_type for tensor in model.graph.initializer}
    assert kinds
    assert onnx.TensorProto.DOUBLE not in kinds


@pytest.mark.parametrize("backbone", [TinyBackbone, small_vit])
def test_module_is_exported_with_a_free_batch_size(backbone):
    clf = fitted(backbone(), images())
    module = clf.module_.eval()
    batch = torch.rand(500, 3, 32, 32)
    exported = torch.export.export(
        module, (batch[:2],), dynamic_shapes={"batch": {0: torch.export.Dim("n")}}
    ).module()
    with torch.no_grad():
        for n in N_ROWS:
            torch.testing.assert_close(exported(batch[:n]), module(batch[:n]))


class Forked(nn.Module):
    """A backbone whose way depends on the pixels."""

    def forward(self, images):
        means = images.mean(dim=(2, 3))
        return means if means.sum() > 0 else -means


class OfOneSize(nn.Module):
    """A backbone that takes images of 32 pixels alone."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, 4)

    def forward(self, images):
        return self.linear(images.flatten(1))


@pytest.mark.parametrize(
    ("backbone", "image_size", "message"),
    [
        (Forked(), 32, r"backbone=Forked can't be exported \("),
        (OfOneSize(), None, r"backbone=OfOneSize can't be .*any size, so image_size=\.\.\. is re"),
    ],
)
def test_unexportable_backbones_are_rejected(backbone, image_size, message, tmp_path):
    clf = fitted(backbone, images(), image_size=image_size)
    with pytest.raises(ValueError, match=message):
        clf.export_onnx(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_wrong_calls_are_rejected(tmp_path, clouds, monkeypatch):
    clf = CLCEClassifier("precomputed", max_epochs=1, random_state=0)
    with pytest.raises(NotFittedError):
        clf.export_onnx(tmp_path / "model.onnx")
    clf.fit(*clouds)
    with pytest.raises(ValueError, match="input_dtype='float16': 'uint8' or 'float32' is"):
        clf.export_onnx(tmp_path / "model.onnx", input_dtype="float16")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        clf.export_onnx(tmp_path / "nowhere" / "model.onnx")
    monkeypatch.setattr("sklearn_clce.deployment._onnx.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="a smaller backbone is required"):
        clf.export_onnx(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript, which is not .*\.\[onnx\]"):
        clf.export_onnx(tmp_path / "model.onnx")


PAGE = Path(__file__).parents[2] / "docs" / "deployment.rst"


def check_service_of_the_page(names):
    """The lines of the web service answer an image as the file does."""
    code = textwrap.dedent(PAGE.read_text().split(".. code-block:: python\n")[4].split("``curl")[0])
    lines = code.replace("8000), Service).serve_forever()", "0), Service)").strip().splitlines()
    exec("\n".join([*lines[:-1], f"server = {lines[-1]}"]), names)
    with names["server"] as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(address, Path("image.jpg").read_bytes()) as response:
            answer = json.load(response)
    assert answer["label"] == "temple"
    np.testing.assert_allclose(answer["probabilities"], names["probabilities"][0], rtol=1e-5)
    assert answer.keys() == {"label", "probabilities", "embeddings", "scores"}


def test_lines_of_the_page_run_on_an_image(photos, tmp_path, monkeypatch):
    """What is left outside of the file needs no PyTorch, and comes out nearly the same."""
    monkeypatch.chdir(tmp_path)
    backbone = small_vit()
    backbone.pretrained_cfg |= {"input_size": (3, 32, 32), "crop_pct": 0.9}
    Image.fromarray(photos[0]).save("image.jpg")
    clf = CLCEClassifier(backbone, image_size=32, weight=0, max_epochs=30, random_state=0)
    clf.fit([Image.fromarray(photo) for photo in photos], ["temple", "flower"])
    clf.export_onnx("model.onnx")
    code = PAGE.read_text().split(".. code-block:: python\n")[2]  # after how to export
    names: dict[str, Any] = {}
    exec(textwrap.dedent(code.split("\n\nThe outputs")[0]), names)
    assert names["labels"].tolist() == ["temple"]
    np.testing.assert_allclose(
        names["probabilities"], clf.predict_proba(["image.jpg"]), rtol=0, atol=0.02
    )
    assert names["prepare"]("image.jpg").shape == (32, 32, 3)
    check_service_of_the_page(names)
    names["about"] |= {"image_size": 224, "resize_to": 256}
    transform = EvaluationTransform(BackboneConfig("any", image_size=224, crop_pct=0.875))
    for size in [(428, 600), (599, 428), (401, 601)]:  # 256 / 428 * 428 is 255.99999999999997
        Image.fromarray(photos[0]).resize(size).save("picture.png")
        expected = transform(as_images(["picture.png"]).decode(0)).permute(1, 2, 0)
        np.testing.assert_allclose(names["prepare"]("picture.png"), expected, rtol=0, atol=1)
