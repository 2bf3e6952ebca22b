"""Precision, gradient checkpointing and compilation of a fit."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_clce import CLCEClassifier
from small_fits import Recorder


def test_bfloat16_network_keeps_float32_weights(tiny_backbone, colour_images, colour_labels):
    dtypes = []
    clf = CLCEClassifier(tiny_backbone, precision="bfloat16", max_epochs=2, random_state=0)
    recorder = Recorder(lambda net, batch: dtypes.append(net.infer(batch[0])[0].dtype))
    clf.set_params(callbacks=[recorder]).fit(colour_images, colour_labels)
    assert set(dtypes) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in clf.module_.parameters())
    proba = clf.predict_proba(colour_images)
    assert proba.dtype == np.float32
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)


def test_gradient_checkpointing_does_not_change_result(colour_images, colour_labels):
    def fit(gradient_checkpointing):
        clf = CLCEClassifier(
            "test_vit",
            pretrained=False,
            image_size=32,
            max_epochs=1,
            random_state=0,
            gradient_checkpointing=gradient_checkpointing,
        )
        return clf.fit(colour_images, colour_labels).predict_proba(colour_images)

    assert_allclose(fit(True), fit(False), rtol=1e-3)


def test_gradient_checkpointing_without_support_is_rejected(
    tiny_backbone, colour_images, colour_labels
):
    with pytest.raises(ValueError, match="gradient_checkpointing=True: TinyBackbone does not"):
        CLCEClassifier(tiny_backbone, gradient_checkpointing=True).fit(colour_images, colour_labels)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_fit_matches_eager_fit(tiny_backbone, colour_images, colour_labels):
    def fit(compile):
        clf = CLCEClassifier(tiny_backbone, compile=compile, max_epochs=2, random_state=0)
        return clf.fit(colour_images, colour_labels)

    compiled = fit(True)
    expected = fit(False).predict_proba(colour_images)
    assert_allclose(compiled.predict_proba(colour_images), expected, rtol=1e-2)
    copied = pickle.loads(pickle.dumps(compiled))
    assert_allclose(copied.predict_proba(colour_images), expected, rtol=1e-2)
