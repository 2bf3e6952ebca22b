"""Fixtures for all test files."""

import os
import random
from functools import partial

# scikit-learn runs its array API check only when SciPy was imported with this set.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from sklearn_clce import CLCEClassifier
from sklearn_clce.features import process_store
from small_backbones import TinyBackbone, counting_images


@pytest.fixture(autouse=True)
def _seed_global_generators():
    """Seed the global generators, so that a test gives the same in any run and order."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what random_state=None draws from
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_features_of_other_tests():
    """Forget the features that the process keeps, so that a test runs its backbone."""
    process_store.clear()


@pytest.fixture
def tiny_backbone():
    return TinyBackbone()


@pytest.fixture
def on_images(tiny_backbone):
    """A function that makes a classifier of small images; it takes parameters by name."""
    return partial(
        CLCEClassifier, tiny_backbone, max_epochs=2, batch_size=6, image_size=16, random_state=0
    )


@pytest.fixture
def count():
    """A function that returns how many images Counting backbones have seen in this test."""
    with counting_images() as passed:
        yield lambda: passed.n_images


@pytest.fixture(scope="session")
def digits():
    """Three digits, 30 images each, as floats in 0..1, with labels 0, 1, 2."""
    data = load_digits(n_class=3)
    rows = np.concatenate([np.flatnonzero(data.target == label)[:30] for label in range(3)])
    rows = np.random.default_rng(0).permutation(rows)
    return data.images[rows] / 16, data.target[rows]


@pytest.fixture(scope="session")
def photos():
    """scikit-learn's two sample images, china.jpg and flower.jpg, uint8 (427, 640, 3)."""
    return load_sample_images().images


@pytest.fixture(scope="session")
def colour_images():
    """Twelve small colour images of two kinds, uint8 (12, 16, 20, 3)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, size=(12, 16, 20, 3), dtype=np.uint8)
    images[::2, :, :10] += 120
    return images


@pytest.fixture(scope="session")
def colour_labels():
    return np.array(["left", "none"] * 6)


@pytest.fixture(scope="session")
def clouds():
    """Three overlapping clouds of 20 samples each, and their labels."""
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 3
    return rng.normal(size=(60, 6)) + 2 * np.eye(3, 6)[codes], codes
