"""
======================================
Reject unknown images, and add classes
======================================

A classifier predicts one of its classes for every image, even for one of something that it has
never seen. ``score_samples`` detects such images, a threshold rejects them, and ``add_classes``
learns them as new classes, without the old images.
"""

# %%
# Nine classes that are known, three that are not
# -----------------------------------------------
# Pictures cut from twelve photographs: the left halves are for training, the right ones for all
# else. The classifier never sees a cat, a rocket or stars.
import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import roc_auc_score

from sklearn_clce import CLCEClassifier

photographs = {
    "brick": data.brick(),
    "coffee": data.coffee(),
    "coins": data.coins(),
    "flower": load_sample_image("flower.jpg"),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "retina": data.retina(),
    "temple": load_sample_image("china.jpg"),
    "tissue": data.immunohistochemistry(),
    "cat": data.cat(),
    "rocket": data.rocket(),
    "stars": data.hubble_deep_field(),
}
later = ["cat", "rocket", "stars"]


def cut(part, n_pictures):
    """Cut pictures from the left or the right half of each photograph."""
    pictures, labels = [], []
    for label, photograph in photographs.items():
        middle = photograph.shape[1] // 2
        half = photograph[:, :middle] if part == "left" else photograph[:, middle:]
        pictures.extend(extract_patches_2d(half, (96, 96), max_patches=n_pictures, random_state=0))
        labels.extend([label] * n_pictures)
    return pictures, np.array(labels)


def select(pictures, mask):
    """Take some pictures."""
    return [pictures[index] for index in np.flatnonzero(mask)]


X_left, y_left = cut("left", 10)
X_right, y_right = cut("right", 12)
train = ~np.isin(y_left, later)
clf = CLCEClassifier(trainable="head", image_size=96, random_state=0)
clf.fit(select(X_left, train), y_left[train])

# %%
# A score and a threshold
# -----------------------
# A third of the right halves of the known classes sets the threshold: one in ten of such pictures
# may be refused. They must not be pictures that the classifier was trained on, of which it is
# too sure.
known = ~np.isin(y_right, later)
calibration = known & (np.arange(len(y_right)) % 3 == 0)
test = ~calibration
clf.calibrate_offset(select(X_right, calibration), contamination=0.1)

X_test, y_test, known = select(X_right, test), y_right[test], known[test]
scores = clf.score_samples(X_test)
print(f"area under the ROC curve: {roc_auc_score(known, scores):.2f}")

figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
bins = np.linspace(scores.min(), scores.max(), 25)
ax.hist([scores[known], scores[~known]], bins, stacked=True, label=["known", "cat, rocket, stars"])
ax.axvline(clf.offset_, color="black", linestyle="--", label="offset_")
ax.set(xlabel="score_samples", ylabel="images")
ax.legend()
plt.show()

# %%
# A classifier that abstains
# --------------------------
answer = np.where(scores < clf.offset_, "none of these", clf.predict(X_test))
print(f"known pictures that are refused: {(answer == 'none of these')[known].mean():.0%}")
print(f"unknown pictures that are refused: {(answer == 'none of these')[~known].mean():.0%}")
answered = known & (answer != "none of these")
print(f"right, of known pictures with an answer: {(answer == y_test)[answered].mean():.0%}")

# %%
# What it abstained from becomes a class
# --------------------------------------
# Somebody names five pictures of each. The old pictures are not needed again, and what the
# classifier computes for the old classes stays as it is.
few = np.isin(y_left, later) & (np.arange(len(y_left)) % 2 == 0)
clf.add_classes(select(X_left, few), y_left[few])
predicted = clf.predict(X_test)
print(f"{len(clf.classes_)} classes: {', '.join(clf.classes_)}")
for what, of in (("old", known), ("new", ~known)):
    print(f"right, of the {what} classes: {(predicted == y_test)[of].mean():.0%}")
