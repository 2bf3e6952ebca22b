"""
=========================================
Tutorial: from a folder to a model in use
=========================================

One data set, step by step: look at it, train, measure how good the classifier is, see its errors,
reject unknown images, and use it elsewhere. Each step shows what it prints. The photographs came
with ``pip``; nothing is downloaded. To use your own images, begin at step 1.
"""

# %%
# The images
# ----------
# Eight photographs, cut into images of 48 x 48 pixels. The left half of each photograph is for
# training, and the right half is new: no pixel is in both.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from photographs import save
from PIL import Image

# sphinx_gallery_thumbnail_number = 6
names = ["brick", "cat", "coffee", "coins", "flower", "grass", "gravel", "tissue"]
temporary = tempfile.TemporaryDirectory()
root = Path(temporary.name)
save(root / "images", names, size=48, n=12, half="left")
save(root / "test", names, size=48, n=12, half="right")

# %%
# Step 1: look at the folder
# --------------------------
# There is one folder per class, named like the class. ``load_image_folder`` lists the files and
# their labels. It does not open the files.
from sklearn_clce import load_image_folder

paths, labels = load_image_folder(root / "images")
test_paths, test_labels = load_image_folder(root / "test")
print(f"{len(paths)} images of {len(set(labels))} classes, {len(test_paths)} to test")

figure, axes = plt.subplots(2, 8, figsize=(10, 2.9), layout="constrained")
for ax, index in zip(axes.T.flat, range(0, len(paths), 6), strict=True):
    ax.imshow(Image.open(paths[index]), cmap="gray")
    ax.set(xticks=[], yticks=[])
    ax.set_title(labels[index] if index % 12 == 0 else "", size=9)
plt.show()

# %%
# Step 2: train
# -------------
# ``trainable="head"`` runs a pretrained backbone once per image and trains a head on its features.
# ``verbose=1`` prints what was decided. In a terminal or a notebook, a line below shows the
# progress.
from time import monotonic

from sklearn_clce import CLCEClassifier

start = monotonic()
clf = CLCEClassifier(trainable="head", image_size=96, random_state=0, verbose=1)
clf.fit(paths, labels)
print(f"{monotonic() - start:.0f} s")

# %%
# Parameters that differ from their defaults come first where a notebook shows the classifier.
clf

# %%
# Step 3: measure the accuracy
# ----------------------------
# Cross-validation needs no other images: each image is predicted by a classifier that has not seen
# it. The backbone does not run again. The test folder is harder: its images come from other halves
# of the photographs.
from sklearn.model_selection import cross_val_score

clf.set_params(verbose=0)
scores = cross_val_score(clf, paths, labels, cv=3)
print(f"cross-validation: {scores.mean():.1%} of the images are right")
print(f"test folder:      {clf.score(test_paths, test_labels):.1%}")

# %%
from sklearn.metrics import ConfusionMatrixDisplay

figure, ax = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
ConfusionMatrixDisplay.from_estimator(
    clf, test_paths, test_labels, xticks_rotation=45, colorbar=False, cmap="Blues", ax=ax
)
plt.show()

# %%
# Step 4: is more training worth it?
# ----------------------------------
# ``compare`` scores a logistic regression, the head and the fine-tuned backbone on the same folds.
# It uses as many images as fit into ``max_time``. Without ``verbose=0`` it first prints that
# number, and how long it takes. The ± is the uncertainty from the choice of images: if it is larger
# than the difference, choose the faster one.
from sklearn_clce import compare

small = CLCEClassifier(image_size=96, max_epochs=8, random_state=0)
comparison = compare(paths, labels, small, max_time=60, verbose=0)
print(comparison)

# %%
frame = comparison.to_frame()
figure, ax = plt.subplots(figsize=(6.4, 2), layout="constrained")
ax.errorbar(frame["lead"], frame.index, xerr=frame["interval"], fmt="o", capsize=4)
ax.axvline(0, color="0.4", linewidth=1)
ax.set(xlabel="accuracy minus that of the logistic regression, in points")
ax.invert_yaxis()
plt.show()

# %%
# Step 5: look at the errors
# --------------------------
# These images have the least likely labels. The label may be wrong, the image may be hard, or it
# may show two classes.
from sklearn_clce import TopLossesDisplay

TopLossesDisplay.from_estimator(clf, test_paths, test_labels, n_images=6)
plt.show()

# %%
# Step 6: see where it looks
# --------------------------
# Red regions speak for the class that is named above the image.
from sklearn_clce import AttributionDisplay

AttributionDisplay.from_estimator(clf, test_paths[::12])
plt.show()

# %%
# Step 7: reject unknown images
# -----------------------------
# A classifier predicts one of its classes for every image. ``calibrate_offset`` sets a threshold on
# the score, so that about five of a hundred images of known classes are rejected. The folder of new
# images has one image per class, six of a starry sky and six of a printed page.
strangers = root / "new"
save(strangers, ["stars", "page"], size=48, n=6)
for path in test_paths[::12]:
    (strangers / f"{Path(path).parent.name}.png").write_bytes(Path(path).read_bytes())

clf.calibrate_offset(test_paths, contamination=0.05)

# %%
# Step 8: predict a folder
# ------------------------
# ``list_images`` finds the images in any folder. ``predict_frame`` returns a table with label,
# probabilities, score, and whether the image is of none of the classes.
from sklearn_clce import list_images

table = clf.predict_frame(list_images(strangers))
table.to_csv(root / "table.csv", index=False)
table["file"] = [str(Path(path).relative_to(strangers)) for path in table["path"]]
print(table[["file", "label", "score", "none_of_these"]].round(2).to_string(index=False))

# %%
figure, axes = plt.subplots(2, 10, figsize=(10, 2.7), layout="constrained")
for ax, row in zip(axes.flat, table.itertuples(), strict=True):
    ax.imshow(Image.open(row.path), cmap="gray")
    ax.set(xticks=[], yticks=[])
    ax.set_title("none" if row.none_of_these else row.label, size=9)
plt.show()

# %%
# Step 9: add a class
# -------------------
# ``add_classes`` learns a class from a few images, without the old ones.
new_paths = list_images(strangers / "stars")
clf.add_classes(new_paths[:4], ["stars"] * 4)
print("two other images of stars:", clf.predict(new_paths[4:]))

# %%
# Step 10: use it elsewhere
# -------------------------
# One file holds everything: backbone, head, classes, how images are resized, and the threshold. It
# cannot run code. :doc:`Deployment </deployment>` shows an ONNX file, for programs without PyTorch.
clf.save(root / "model.safetensors")
print(f"{(root / 'model.safetensors').stat().st_size / 1e6:.0f} MB")

loaded = CLCEClassifier.load(root / "model.safetensors")
start = monotonic()
predicted = loaded.predict(test_paths)
print(f"{1000 * (monotonic() - start) / len(test_paths):.0f} ms an image")
print(f"same predictions: {np.array_equal(predicted, clf.predict(test_paths))}")
temporary.cleanup()
