"""
=========================================
Tutorial: from a folder to a model in use
=========================================

One data set, step by step: look at it, train, find out how good the classifier is, see where and
why it errs, let it reject what it does not know, and use it elsewhere. Each step shows what it
prints. The photographs came with ``pip``; nothing is downloaded. With pictures of your own begin at
step 1.
"""

# %%
# The pictures
# ------------
# Eight photographs that scikit-image and scikit-learn bring, cut into pictures of 96 x 96 pixels.
# Pictures without contrast, such as a piece of sky, show nothing to learn from and are left out.
# The left half of each photograph is for training, the right half is new: no pixel is in both.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d

photographs = {
    "brick": data.brick(),
    "cat": data.cat(),
    "coffee": data.coffee(),
    "coins": data.coins(),
    "flower": load_sample_image("flower.jpg")[60:400, 100:520],
    "grass": data.grass(),
    "gravel": data.gravel(),
    "tissue": data.immunohistochemistry(),
}
temporary = tempfile.TemporaryDirectory()
root = Path(temporary.name)


def save_pictures(photograph, folder, n=12):
    folder.mkdir(parents=True)
    pictures = extract_patches_2d(photograph, (96, 96), max_patches=200, random_state=0)
    contrast = pictures.reshape(len(pictures), -1).std(axis=1)
    for number, picture in enumerate(pictures[contrast > 25][:n]):
        Image.fromarray(picture).save(folder / f"{number:02}.png")


for label, photograph in photographs.items():
    middle = photograph.shape[1] // 2
    save_pictures(photograph[:, :middle], root / "images" / label)
    save_pictures(photograph[:, middle:], root / "test" / label)

# %%
# Step 1: look at the folder
# --------------------------
# A folder for each class, named like the class. ``load_image_folder`` lists the files and their
# labels; it opens none of them.
from sklearn_clce import load_image_folder

paths, labels = load_image_folder(root / "images")
test_paths, test_labels = load_image_folder(root / "test")
print(f"{len(paths)} pictures of {len(set(labels))} classes, {len(test_paths)} to test")

figure, axes = plt.subplots(2, 8, figsize=(10, 2.9), layout="constrained")
for ax, index in zip(axes.T.flat, range(0, len(paths), 6), strict=True):
    ax.imshow(Image.open(paths[index]), cmap="gray")
    ax.set(xticks=[], yticks=[])
    ax.set_title(labels[index] if index % 12 == 0 else "", size=9)
plt.show()

# %%
# Step 2: train
# -------------
# ``trainable="head"`` runs a pretrained backbone once for each picture and trains a head on its
# features. ``verbose=1`` prints what was decided; in a terminal or a notebook a line below it shows
# how far it is.
from time import monotonic

from sklearn_clce import CLCEClassifier

start = monotonic()
clf = CLCEClassifier(trainable="head", image_size=128, random_state=0, verbose=1)
clf.fit(paths, labels)
print(f"{monotonic() - start:.0f} s")

# %%
# Parameters that differ from their defaults come first where a notebook shows the classifier.
clf

# %%
# Step 3: how good is it?
# -----------------------
# Cross-validation needs no other pictures: each is predicted by a classifier that has not seen it.
# The backbone does not run again. The test folder is from other halves of the photographs, as
# pictures of tomorrow are from other days, and harder.
from sklearn.model_selection import cross_val_score

clf.set_params(verbose=0)
scores = cross_val_score(clf, paths, labels, cv=3)
print(f"cross-validation: {scores.mean():.1%} of the pictures are right")
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
# ``compare`` sets a logistic regression, the head and the fine-tuned backbone against each other
# on the same folds, on as many pictures as fit into ``max_time``. Without ``verbose=0`` it first
# says on how many, and how long that takes. The ± covers the choice of the pictures: where it is
# larger than the difference, take the faster one.
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
# Step 5: where is it wrong?
# --------------------------
# The pictures whose label it finds least likely: a wrong label, a hard picture, or a picture
# that two classes share.
from sklearn_clce import TopLossesDisplay

TopLossesDisplay.from_estimator(clf, test_paths, test_labels, n_images=6)
plt.show()

# %%
# Step 6: what does it look at?
# -----------------------------
# Red is what speaks for the class above the picture.
from sklearn_clce import AttributionDisplay

AttributionDisplay.from_estimator(clf, test_paths[::12])
plt.show()

# %%
# Step 7: what if a picture shows none of these?
# ----------------------------------------------
# A classifier names one of its classes whatever it is shown. ``calibrate_offset`` sets the score
# below which a picture is like none of the training pictures, here so that five of a hundred good
# ones are rejected. A folder of new pictures: one of each class, a starry sky and a printed page.
strangers = root / "new"
save_pictures(data.hubble_deep_field(), strangers / "stars", n=6)
save_pictures(data.page(), strangers / "page", n=6)
for path in test_paths[::12]:
    (strangers / f"{Path(path).parent.name}.png").write_bytes(Path(path).read_bytes())

clf.calibrate_offset(test_paths, contamination=0.05)

# %%
# Step 8: predict a folder
# ------------------------
# ``list_images`` finds the pictures of any folder, and ``predict_frame`` puts what the classifier
# says of each into a table: label, probabilities, score, and whether it is none of the classes.
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
# Step 9: a class that was forgotten
# ----------------------------------
# ``add_classes`` learns it from a few pictures, without the old ones.
new_paths = list_images(strangers / "stars")
clf.add_classes(new_paths[:4], ["stars"] * 4)
print("two other pictures of stars:", clf.predict(new_paths[4:]))

# %%
# Step 10: use it elsewhere
# -------------------------
# One file holds everything: backbone, head, classes, how pictures are resized, and the offset. It
# runs no code when it is loaded. :doc:`Deployment </deployment>` shows the same as an ONNX file,
# for programs without PyTorch.
clf.save(root / "model.safetensors")
print(f"{(root / 'model.safetensors').stat().st_size / 1e6:.0f} MB")

loaded = CLCEClassifier.load(root / "model.safetensors")
start = monotonic()
predicted = loaded.predict(test_paths)
print(f"{1000 * (monotonic() - start) / len(test_paths):.0f} ms a picture")
print(f"same predictions: {np.array_equal(predicted, clf.predict(test_paths))}")
temporary.cleanup()
