"""Where the code of the pages runs: in an empty folder that holds ``pictures``."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

SIDE = 160


@pytest.fixture(autouse=True)
def folder_with_pictures(tmp_path, monkeypatch):
    """Cut twelve pictures each out of scikit-learn's two, into a folder for each class."""
    rng = np.random.default_rng(0)
    for label, photo in {"flower": "flower.jpg", "temple": "china.jpg"}.items():
        (tmp_path / "pictures" / label).mkdir(parents=True)
        pixels = load_sample_image(photo)  # (427, 640, 3)
        for number in range(12):
            top, left = rng.integers(0, pixels.shape[0] - SIDE), rng.integers(0, 640 - SIDE)
            crop = pixels[top : top + SIDE, left : left + SIDE]
            Image.fromarray(crop).save(tmp_path / "pictures" / label / f"{number:02}.jpg")
    monkeypatch.chdir(tmp_path)
