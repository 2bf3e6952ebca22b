"""
=====================================
Images from a folder, string labels
=====================================

A folder for each class is how most people keep their pictures. This example draws such
folders first; with your own, begin at the second step.
"""

# %%
# Pictures for the example
# ------------------------
# Triangles, squares, pentagons and hexagons of any size, place, turn and colour.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split

from sklearn_clce import CLCEClassifier, TopLossesDisplay, load_image_folder

N_SIDES = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}


def draw(n_sides, rng):
    """Draw a polygon on a noisy background, as a PIL image."""
    image = Image.fromarray(rng.integers(0, 128, (64, 64, 3), dtype=np.uint8))
    radius = int(rng.integers(12, 26))
    x, y = rng.integers(radius, 64 - radius, 2).tolist()
    ImageDraw.Draw(image).regular_polygon(
        (x, y, radius),
        n_sides,
        rotation=rng.uniform(0, 360),
        fill=tuple(rng.integers(100, 256, 3).tolist()),
    )
    return image


folder = tempfile.TemporaryDirectory()
rng = np.random.default_rng(0)
for shape, n_sides in N_SIDES.items():
    class_folder = Path(folder.name, shape)
    class_folder.mkdir()
    for number in range(60):
        draw(n_sides, rng).save(class_folder / f"{number:02}.png")

# %%
# From the folder to a trained classifier
# ---------------------------------------
# :func:`~sklearn_clce.load_image_folder` lists paths and labels; the images are read when
# they are needed, and never all at once. Split paths as you would split any ``X``.
paths, labels = load_image_folder(folder.name)
paths_train, paths_test, y_train, y_test = train_test_split(
    paths, labels, train_size=0.5, stratify=labels, random_state=0
)
clf = CLCEClassifier(image_size=64, max_epochs=8, random_state=0).fit(paths_train, y_train)
print(f"accuracy on pictures that it has not seen: {clf.score(paths_test, y_test):.1%}")

# %%
# Labels come back as they went in
# --------------------------------
for path, label in zip(paths_test[:5], clf.predict(paths_test[:5]), strict=True):
    print(f"{Path(path).parent.name}/{Path(path).name} -> {label}")

figure, ax = plt.subplots(figsize=(4.6, 4), layout="constrained")
ConfusionMatrixDisplay.from_estimator(clf, paths_test, y_test, cmap="Blues", ax=ax)
plt.show()

# %%
# The pictures that the classifier finds hardest
# ----------------------------------------------
TopLossesDisplay.from_estimator(clf, paths_test, y_test, n_images=6)
plt.show()
folder.cleanup()
