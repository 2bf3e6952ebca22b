"""
==========================================
Quick start: from a folder to a prediction
==========================================

A folder for each class, six lines, and a classifier that names new images. Everything here came
with ``pip``: the backbone, its ImageNet weights and the photographs. Nothing is downloaded.
"""

# %%
# A folder of images
# ------------------
# Twelve photographs, cut into images of 96 x 96 pixels. The left half of each photograph goes to
# the folder ``train``, and the right half to ``test``, so that no pixel is in both. With images of
# your own begin at the next step.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from photographs import NAMES, save
from PIL import Image

# sphinx_gallery_thumbnail_number = 1
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
for part, half in {"train": "left", "test": "right"}.items():
    save(folder / part, NAMES, size=96, n=8, half=half)

# %%
# Six lines
# ---------
# ``trainable="head"`` runs the backbone once per image and trains a head on its features. That
# takes seconds on a CPU. Without it the backbone is trained as well, which takes a minute or two
# and is usually more accurate.
from sklearn_clce import CLCEClassifier, load_image_folder

paths, labels = load_image_folder(folder / "train")
test_paths, test_labels = load_image_folder(folder / "test")
clf = CLCEClassifier(trainable="head", random_state=0).fit(paths, labels)
accuracy = clf.score(test_paths, test_labels)
print(f"{accuracy:.1%} of {len(test_paths)} new images are classified correctly")
print("the first of them is", clf.predict(test_paths[:1])[0])

# %%
# Some of the new images
# ----------------------
# ``predict_proba`` returns the probabilities. Its columns are in the order of ``classes_``.
predicted = clf.predict(test_paths)
probability = clf.predict_proba(test_paths).max(axis=1)
figure, axes = plt.subplots(2, 6, figsize=(10, 4), layout="constrained")
for ax, index in zip(axes.flat, range(1, len(test_paths), 8), strict=True):
    ax.imshow(Image.open(test_paths[index]), cmap="gray")
    right = predicted[index] == test_labels[index]
    verdict = "" if right else f"\n(is {test_labels[index]})"
    ax.set_title(f"{predicted[index]} {probability[index]:.0%}{verdict}", size=11)
    ax.spines[:].set(color="#009E73" if right else "#D55E00", linewidth=3)
    ax.set(xticks=[], yticks=[])
figure.savefig("quickstart.png", dpi=100)
print("figure: quickstart.png")
plt.show()

# %%
# The worst errors
# ----------------
# Each image is shown with its index in ``test_paths``, its file, its label and the prediction.
from sklearn_clce import TopLossesDisplay

TopLossesDisplay.from_estimator(clf, test_paths, test_labels, n_images=8)
plt.show()
temporary.cleanup()
