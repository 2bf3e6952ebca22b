"""Sphinx extension: the files that the code of the pages reads, for their figures.

The tests of the pages run in such a folder, too.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

DOCS = Path(__file__).parents[1]
SIDE, SKY = 160, 150  # pixels; above, the photographs show little


def write_files(folder):
    """Write twelve images of each class, a new one, and the tables of the pages."""
    rng = np.random.default_rng(0)
    photos = {"flower": load_sample_image("flower.jpg"), "temple": load_sample_image("china.jpg")}
    for label, pixels in photos.items():
        (folder / "images" / label).mkdir(parents=True, exist_ok=True)
        for number in range(12):
            top = rng.integers(SKY, len(pixels) - SIDE)
            left = rng.integers(0, pixels.shape[1] - SIDE)
            crop = pixels[top : top + SIDE, left : left + SIDE]
            Image.fromarray(crop).save(folder / "images" / label / f"{number:02}.jpg")
    Image.fromarray(photos["flower"][80:400, 150:470]).save(folder / "new.jpg")
    for name in ("tables", "results"):
        shutil.copytree(DOCS / name, folder / name, dirs_exist_ok=True)


def setup(app):
    app.connect("builder-inited", lambda app: write_files(Path(app.config.plot_working_directory)))
    return {"parallel_read_safe": True}
