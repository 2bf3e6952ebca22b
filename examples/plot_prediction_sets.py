"""
==========================================
Prediction sets that hold the right class
==========================================

A probability of 0.9 need not be right in nine cases of ten. Conformal prediction gives a set of
classes for each picture instead: one where the classifier is sure, several where it is not; and
the right class is in the set as often as you ask, whatever the classifier. `MAPIE
<https://mapie.readthedocs.io>`_ does it for any classifier of scikit-learn's kind.
"""

# %%
# Small pictures of five kinds
# ----------------------------
# 24 x 24 pixels of five photographs, with noise, are hard to tell apart. A third trains, a third is
# for the sets to learn how sure the classifier may be, a third is for the test.
import matplotlib.pyplot as plt
import numpy as np
from mapie.classification import SplitConformalClassifier
from skimage import color, data
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_clce import BackboneFeatures, CLCEClassifier

photographs = {
    "brick": data.brick(),
    "coins": data.coins(),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "tissue": color.rgb2gray(data.immunohistochemistry()) * 255,
}
rng = np.random.default_rng(0)
X = np.concatenate(
    [
        extract_patches_2d(photograph / 255, (24, 24), max_patches=90, random_state=0)
        for photograph in photographs.values()
    ]
)
X = np.clip(X + rng.normal(scale=0.15, size=X.shape), 0, 1)
y = np.repeat(list(photographs), 90)
X_train, X_rest, y_train, y_rest = train_test_split(
    X, y, train_size=1 / 3, stratify=y, random_state=0
)
X_calibration, X_test, y_calibration, y_test = train_test_split(
    X_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=0
)

# %%
# Fit, then conformalize
# ----------------------
# ``prefit=True``: MAPIE takes the fitted classifier as it is. What it wants is one array for X:
# images of one size, or an array of paths.
classifier = make_pipeline(
    BackboneFeatures(image_size=64), CLCEClassifier("precomputed", random_state=0)
)
classifier.fit(X_train, y_train)
sets = SplitConformalClassifier(classifier, confidence_level=[0.8, 0.9, 0.95], prefit=True)
sets.conformalize(X_calibration, y_calibration)
predicted, in_set = sets.predict_set(X_test)  # (n,), (n, n_classes, n_levels)

# %%
# How often the right class is in the set, and how large sets are
# ---------------------------------------------------------------
print(f"the classifier alone is right in {np.mean(predicted == y_test):.0%}")
own = np.searchsorted(classifier.classes_, y_test)
for place, level in enumerate([0.8, 0.9, 0.95]):
    members = in_set[:, :, place]
    covered = members[np.arange(len(own)), own].mean()
    size = members.sum(axis=1).mean()
    print(f"asked for {level:.0%}: the set holds it in {covered:.0%}, mean size {size:.2f}")

# %%
# Which pictures are hard
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
