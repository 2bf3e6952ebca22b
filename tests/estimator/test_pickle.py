"""Pickles of fitted classifiers, and untrusted weight files that must run no code."""

import io
import os
import pickle
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import cross_validate

from model_files import (
    Malicious,
    assert_same_model,
    on_features,
    saved_and_loaded,
    tiny,
    vectors,
    vit,
)
from sklearn_clce import CLCEClassifier

FOLDER = Path(__file__).parents[1]


def test_pickle_is_hardly_larger_than_parameters(colour_images, colour_labels):
    clf = CLCEClassifier(
        image_size=32, max_epochs=1, early_stopping=True, validation_fraction=0.2, random_state=0
    )
    clf.fit(colour_images, colour_labels)
    size = sum(p.numel() * p.element_size() for p in clf.module_.parameters())
    assert len(pickle.dumps(clf)) <= 1.05 * size
    file = io.BytesIO()
    joblib.dump(clf, file)
    assert file.tell() <= 1.05 * size
    file.seek(0)
    assert_same_model(joblib.load(file), clf, colour_images)
    assert clf.net_.optimizer_.state  # pickling has not removed it here


def score_of_copy(clf, X, y):
    return pickle.loads(pickle.dumps(deepcopy(clf))).score(X, y)


def test_scorer_may_copy_and_pickle_the_estimator(colour_images, colour_labels):
    def fitted(scoring, **params):
        params |= {"max_epochs": 3, "early_stopping": True, "validation_fraction": 0.5}
        return on_features(scoring=scoring, **params).fit(vectors(), np.arange(12) % 2)

    def score(clf, X, y):
        return clf.score(X, y)

    assert_same_model(fitted(score_of_copy), fitted(score), vectors())
    clf = CLCEClassifier(
        image_size=32, trainable=1, max_epochs=2, early_stopping=True, scoring=score_of_copy
    )
    assert clf.fit(colour_images, colour_labels).n_iter_ == 2


def test_pickle_holds_no_training_data():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4000, 50)).astype(np.float32), rng.integers(0, 2, size=4000)
    clf = on_features(max_epochs=1, early_stopping=True, validation_fraction=0.5, projection_dim=4)
    assert len(pickle.dumps(clf.fit(X, y))) < 60_000


def test_cross_validated_estimators_survive_pickle():
    X, y = vectors(), np.arange(12) % 2
    result = cross_validate(on_features(), X, y, cv=2, return_estimator=True)
    for clf in result["estimator"]:
        assert_same_model(pickle.loads(pickle.dumps(clf)), clf, X)


def test_gpu_pickle_loads_without_gpu(colour_images, colour_labels, monkeypatch):
    """Every tensor is pickled as if on a GPU; writing such a pickle needs none."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    clf = tiny().fit(colour_images, colour_labels)
    expected = clf.predict_proba(colour_images)
    clf.backbone = None  # the module of the user is not on the GPU
    passes = replace(clf.plan_.passes, device=torch.device("cuda"), precision="bfloat16")
    clf.net_.device, clf.net_.plan = torch.device("cuda"), replace(clf.plan_, passes=passes)
    generator_size = torch.Generator().get_state().nbytes

    def on_gpu(storage):  # except the states of generators
        return "cpu" if storage.nbytes() == generator_size else "cuda:0"

    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", on_gpu)
        pickled = pickle.dumps(clf)
    assert pickled.count(b"cuda:0") > 5
    with pytest.warns(match="no CUDA devices|is not available"):
        loaded = pickle.loads(pickled)
    assert torch.device(loaded.net_.device).type == "cpu"
    assert {parameter.device.type for parameter in loaded.module_.parameters()} == {"cpu"}
    assert_array_equal(loaded.predict_proba(colour_images), expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_model_moves_between_gpu_and_cpu(colour_images, colour_labels, tmp_path):
    clf = tiny(device="cuda", precision="float32").fit(colour_images, colour_labels)
    loaded = saved_and_loaded(clf, tmp_path, device="cpu")
    assert {parameter.device.type for parameter in loaded.module_.parameters()} == {"cpu"}
    expected = clf.predict_proba(colour_images)
    assert_allclose(loaded.predict_proba(colour_images), expected, rtol=1e-3, atol=1e-4)
    back = saved_and_loaded(loaded, tmp_path, device="cuda")
    assert_allclose(back.predict_proba(colour_images), expected, rtol=1e-3, atol=1e-4)
    script = (
        "import pickle, sys, warnings; warnings.simplefilter('ignore');"
        "clf = pickle.load(open(sys.argv[1], 'rb'));"
        "print({p.device.type for p in clf.module_.parameters()})"
    )
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(clf))
    without = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model.pkl"],
        capture_output=True,
        text=True,
        cwd=FOLDER / "helpers",
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert without.stdout.strip() == "{'cpu'}", without.stderr


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.pt", "w.bin", "w.npz"])
@pytest.mark.parametrize("writer", [torch.save, pickle.dump])
@pytest.mark.parametrize("trainable", ["all", "head"])
def test_pretrained_file_executes_no_code(
    trainable, writer, name, colour_images, colour_labels, tmp_path
):
    with open(tmp_path / name, "wb") as file:
        writer({"state_dict": {"weight": Malicious(tmp_path / "touched")}}, file)
    clf = vit().fit(colour_images, colour_labels)
    expected = clf.predict_proba(colour_images)
    clf.set_params(pretrained=tmp_path / name, trainable=trainable)
    with pytest.raises(ValueError, match=r"pretrained='.*' can't be read as weights"):
        clf.fit(colour_images, colour_labels)
    assert not (tmp_path / "touched").exists()
    assert_array_equal(clf.predict_proba(colour_images), expected)
