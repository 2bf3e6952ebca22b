"""
==========================================
Quick start: from a folder to a prediction
==========================================

A folder for each class, six lines, and a classifier that names pictures it has not seen.
Everything here came with ``pip``: the backbone, its ImageNet weights and the photographs. Nothing
is downloaded.
"""

# %%
# A folder of pictures
# --------------------
# Twelve photographs that scikit-image and scikit-learn bring, cut into pictures of 96 x 96
# pixels. The left half of each photograph goes to the folder ``train``, the right half to
# ``test``, so that no pixel is in both. With pictures of your own begin at the next step.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d

photographs = {
    "brick": data.brick(),
    "cat": data.cat(),
    "coffee": data.coffee(),
    "coins": data.coins(),
    "flower": load_sample_image("flower.jpg"),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "retina": data.retina(),
    "rocket": data.rocket()[180:],  # without most of the sky
    "stars": data.hubble_deep_field(),
    "temple": load_sample_image("china.jpg")[180:],
    "tissue": data.immunohistochemistry(),
}
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
for label, photograph in photographs.items():
    middle = photograph.shape[1] // 2
    halves = {"train": photograph[:, :middle], "test": photograph[:, middle:]}
    for part, half in halves.items():
        (folder / part / label).mkdir(parents=True)
        for number, picture in enumerate(
            extract_patches_2d(half, (96, 96), max_patches=8, random_state=0)
        ):
            Image.fromarray(picture).save(folder / part / label / f"{number}.png")

# %%
# Six lines
# ---------
# ``trainable="head"`` runs the backbone once for each picture and trains a head on its features:
# seconds on a CPU. Without it the backbone learns as well, which takes a minute or two and is more
# accurate on most pictures.
from sklearn_clce import CLCEClassifier, load_image_folder

paths, labels = load_image_folder(folder / "train")
test_paths, test_labels = load_image_folder(folder / "test")
clf = CLCEClassifier(trainable="head", random_state=0).fit(paths, labels)
accuracy = clf.score(test_paths, test_labels)
print(f"{accuracy:.1%} of {len(test_paths)} new images are classified correctly")
print("the first of them is", clf.predict(test_paths[:1])[0])

# %%
# Some of the new pictures
# ------------------------
# ``predict_proba`` says how sure the classifier is; its columns are in the order of ``classes_``.
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
# Where it is most wrong
# ----------------------
# Each picture with its place in ``test_paths``, its file, its label and what it was taken for.
from sklearn_clce import TopLossesDisplay

TopLossesDisplay.from_estimator(clf, test_paths, test_labels, n_images=8)
plt.show()
temporary.cleanup()
