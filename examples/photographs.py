"""Images for the examples, cut from photographs that scikit-image and scikit-learn bring."""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import color, data
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d

PHOTOGRAPHS = {
    "brick": data.brick,
    "cat": data.cat,
    "coffee": data.coffee,
    "coins": data.coins,
    "flower": lambda: load_sample_image("flower.jpg")[60:400, 100:520],
    "grass": data.grass,
    "gravel": data.gravel,
    "page": data.page,
    "retina": data.retina,
    "rocket": lambda: data.rocket()[180:],
    "stars": data.hubble_deep_field,
    "temple": lambda: load_sample_image("china.jpg")[70:400, 80:330],
    "tissue": data.immunohistochemistry,
}
NAMES = [name for name in PHOTOGRAPHS if name != "page"]
HALVES = {"left": slice(0, 1), "right": slice(1, 2), "all": slice(0, 2)}


def cut(names, size, n, half="all"):
    """Cut n images from each photograph, or from its left or right half, those with contrast.

    Returns images of shape (n * len(names), size, size, 3), uint8, and their labels.
    """
    images = [_cut(photograph(name, half), size, n) for name in names]
    return np.concatenate(images), np.repeat(list(names), n)


def save(folder, names, size, n, half="all"):
    """Write such images as files, in a folder for each class."""
    for index, (image, label) in enumerate(zip(*cut(names, size, n, half), strict=True)):
        path = Path(folder, label, f"{index % n:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def photograph(name, half="all"):
    """Return a photograph in colour, (height, width, 3), or one half of it."""
    pixels = PHOTOGRAPHS[name]()
    pixels = pixels if pixels.ndim == 3 else color.gray2rgb(pixels)
    return np.concatenate(np.array_split(pixels, 2, axis=1)[HALVES[half]], axis=1)


def _cut(pixels, size, n):
    found = extract_patches_2d(pixels, (size, size), max_patches=4 * n, random_state=0)
    contrast = found.std(axis=(1, 2, 3))
    return found[contrast >= np.median(contrast)][:n]
