"""Files that are passed on hold nothing of the machine that wrote them."""

import getpass
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from model_files import assert_same_model, saved_and_loaded
from sklearn_clce import CLCEClassifier
from small_backbones import TinyBackbone

FOLDERS = (Path.home(), Path.cwd(), Path(__file__).parents[2], Path(torch.__file__).parent)


def traces_in(content, *more):
    """Return what the bytes of a file say of this machine: folders, user, source files."""
    words = [str(folder).encode() for folder in (*FOLDERS, *more)]
    patterns = [re.escape(word) for word in words if len(word) > 1]
    patterns += [rb"\b%b\b" % re.escape(getpass.getuser().encode())]
    patterns += [rb"/[\w.-]{2,}/[\w.-]{2,}", rb"\w\.py\b", rb"stack_trace", rb"site-packages"]
    return [found for pattern in patterns for found in re.findall(pattern, content)]


@pytest.fixture
def fitted(colour_images, colour_labels, tmp_path):
    """Fit a classifier whose backbone comes from a file of weights."""
    path = tmp_path / "weights" / "mine.safetensors"
    path.parent.mkdir()
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), path.with_suffix(".pth"))
    clf = CLCEClassifier(
        "test_vit", pretrained=path.with_suffix(".pth"), max_epochs=1, random_state=0, image_size=32
    )
    clf.set_params(memory=tmp_path / "features", trainable="head")
    return clf.fit(colour_images, colour_labels)


@pytest.mark.parametrize("kind", [str, Path])
def test_model_file_holds_no_path(kind, fitted, colour_images, tmp_path):
    fitted.set_params(pretrained=kind(fitted.pretrained))
    loaded = saved_and_loaded(fitted, tmp_path)  # warnings are errors
    content = (tmp_path / "model.safetensors").read_bytes()
    assert traces_in(content, tmp_path, "mine") == []
    assert loaded.pretrained == "path not stored"
    assert_same_model(loaded, fitted, colour_images)


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_training_continues_without_the_path(
    trainable, fitted, colour_images, colour_labels, tmp_path
):
    """As with a pickle, without the state of the optimizer."""
    loaded, pickled = saved_and_loaded(fitted, tmp_path), pickle.loads(pickle.dumps(fitted))
    Path(fitted.pretrained).unlink()
    for clf in (pickled, loaded):
        clf.set_params(trainable=trainable, memory=None).partial_fit(colour_images, colour_labels)
        clf.set_params(warm_start=True).fit(colour_images, colour_labels)
    assert_same_model(loaded, pickled, colour_images)
    assert_same_model(saved_and_loaded(loaded, tmp_path), pickled, colour_images)


def test_fit_from_scratch_asks_for_the_path(fitted, colour_images, colour_labels, tmp_path):
    loaded = saved_and_loaded(fitted, tmp_path)
    with pytest.raises(ValueError, match="does not store the path of weights; set_params"):
        loaded.fit(colour_images, colour_labels)
    loaded.set_params(pretrained=fitted.pretrained).fit(colour_images, colour_labels)
    assert_same_model(loaded, fitted, colour_images)


@pytest.mark.parametrize("backbone", [TinyBackbone(), "precomputed", "test_vit"], ids=str)
def test_onnx_file_holds_no_trace_of_the_exporter(backbone, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    X = np.random.default_rng(0).random((8, 32, 32, 3), dtype=np.float32)
    X = X[:, 0, 0] if backbone == "precomputed" else X
    clf = CLCEClassifier(backbone, pretrained=False, image_size=32, max_epochs=1, random_state=0)
    clf.fit(X, np.array(["ant", "bee"] * 4)).export_onnx(tmp_path / "model.onnx")
    assert traces_in((tmp_path / "model.onnx").read_bytes(), tmp_path) == []
    model = onnx.load(tmp_path / "model.onnx")
    assert {"sklearn_clce", "classes"} <= {entry.key for entry in model.metadata_props}
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    assert nodes
    assert not any(node.metadata_props or node.doc_string for node in nodes)
