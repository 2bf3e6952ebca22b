"""
============================================
Prediction sets that contain the right class
============================================

A probability of 0.9 is not always right in nine cases of ten. Conformal prediction returns a set of
classes for each image: one class if the classifier is sure, several if it is not. The right class
is in the set as often as you ask, for any classifier. `MAPIE <https://mapie.readthedocs.io>`_ does
this for classifiers with the interface of scikit-learn.
"""

# %%
# Small images of five kinds
# --------------------------
# Images of 24 x 24 pixels from five photographs, with noise, are hard to distinguish. One third is
# for training, one third calibrates the sets, and one third is for the test.
import matplotlib.pyplot as plt
import numpy as np
from mapie.classification import SplitConformalClassifier
from photographs import cut
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_clce import BackboneFeatures, CLCEClassifier

rng = np.random.default_rng(0)
images, y = cut(["brick", "coins", "grass", "gravel", "tissue"], size=24, n=90)
X = images.mean(axis=-1) / 255  # grey
X = np.clip(X + rng.normal(scale=0.15, size=X.shape), 0, 1)
X_train, X_rest, y_train, y_rest = train_test_split(
    X, y, train_size=1 / 3, stratify=y, random_state=0
)
X_calibration, X_test, y_calibration, y_test = train_test_split(
    X_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=0
)

# %%
# Fit, then conformalize
# ----------------------
# With ``prefit=True``, MAPIE uses the fitted classifier as it is. X must be one array: images of
# one size, or an array of paths.
classifier = make_pipeline(
    BackboneFeatures(image_size=64), CLCEClassifier("precomputed", random_state=0)
)
classifier.fit(X_train, y_train)
sets = SplitConformalClassifier(classifier, confidence_level=[0.8, 0.9, 0.95], prefit=True)
sets.conformalize(X_calibration, y_calibration)
predicted, in_set = sets.predict_set(X_test)  # (n,), (n, n_classes, n_levels)

# %%
# Coverage and size of the sets
# -----------------------------
print(f"the classifier alone is right in {np.mean(predicted == y_test):.0%}")
own = np.searchsorted(classifier.classes_, y_test)
for place, level in enumerate([0.8, 0.9, 0.95]):
    members = in_set[:, :, place]
    covered = members[np.arange(len(own)), own].mean()
    size = members.sum(axis=1).mean()
    print(f"asked for {level:.0%}: the set holds it in {covered:.0%}, mean size {size:.2f}")

# %%
# Which images are hard
# -----------------------
sizes = in_set[:, :, 1].sum(axis=1)
figure, axes = plt.subplots(2, 5, figsize=(9, 4), layout="constrained")
order = np.argsort(sizes, kind="stable")
for ax, index in zip(axes.flat, np.concatenate([order[:5], order[-5:]]), strict=True):
    ax.imshow(X_test[index], cmap="gray")
    ax.set_title("\n".join(classifier.classes_[in_set[index, :, 1]]) or "nothing", size=9)
    ax.set(xticks=[], yticks=[])
figure.suptitle("at 90 %: the smallest sets, and the largest")
plt.show()
