"""
===============================
Saving and loading a classifier
===============================

``save`` writes one file that holds everything and runs nothing. ``load`` gives the classifier
back, on another machine, without network, pretrained weights or GPU.
"""

# %%
# Fit, save, load
# ---------------
# Pictures of brick, grass and gravel, cut from three photographs. Weights, parameters, labels,
# preprocessing and history are in the file.
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from sklearn.feature_extraction.image import extract_patches_2d

from sklearn_clce import CLCEClassifier, TrainingCurveDisplay

photographs = {"brick": data.brick(), "grass": data.grass(), "gravel": data.gravel()}
X = [
    extract_patches_2d(photograph, (64, 64), max_patches=120, random_state=0)
    for photograph in photographs.values()
]
X, y = np.concatenate(X), np.repeat(list(photographs), 120)
order = np.random.default_rng(0).permutation(len(X))
train, later, test = np.split(order, [60, 180])
clf = CLCEClassifier(image_size=64, max_epochs=8, random_state=0).fit(X[train], y[train])

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "stones.safetensors"
clf.save(path)
print(f"{path.name} takes {path.stat().st_size / 1e6:.1f} MB")

loaded = CLCEClassifier.load(path, device="cpu")
same = np.array_equal(loaded.predict_proba(X[test]), clf.predict_proba(X[test]))
print(f"same probabilities: {same}")
print(f"accuracy: {loaded.score(X[test], y[test]):.1%}")

# %%
# Its history came along
# ----------------------
TrainingCurveDisplay.from_estimator(loaded)
plt.show()

# %%
# It goes on learning
# -------------------
# ``partial_fit`` trains the loaded classifier on pictures that came later. A lower rate keeps
# what it knows.
loaded.set_params(learning_rate=2e-4)
for _ in range(3):
    loaded.partial_fit(X[later], y[later])
print(f"accuracy after more pictures: {loaded.score(X[test], y[test]):.1%}")

# %%
# What has no place in a file
# ---------------------------
# A function can't be stored without running code when it is loaded. ``save`` says what it
# leaves out.
clf.set_params(augment=lambda images: images)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    clf.save(path)
print(caught[0].message)
folder.cleanup()
