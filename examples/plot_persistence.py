"""
==========================
Save and load a classifier
==========================

``save`` writes one file that holds everything and cannot run code. ``load`` restores the classifier
on another machine, without network, pretrained weights or GPU.
"""

# %%
# Fit, save, load
# ---------------
# Images of brick, grass and gravel are cut from three photographs. The file holds weights,
# parameters, labels, preprocessing and history.
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from photographs import cut

from sklearn_clce import CLCEClassifier, TrainingCurveDisplay

X, y = cut(["brick", "grass", "gravel"], size=64, n=120)
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
# The history is in the file
# --------------------------
TrainingCurveDisplay.from_estimator(loaded)
plt.show()

# %%
# Continue training
# -----------------
# ``partial_fit`` trains the loaded classifier on more images. With a low learning rate it keeps
# what it has learned.
loaded.set_params(learning_rate=2e-4)
for _ in range(3):
    loaded.partial_fit(X[later], y[later])
print(f"accuracy after more images: {loaded.score(X[test], y[test]):.1%}")

# %%
# What is not in the file
# -----------------------
# A function cannot be stored without running code when the file is loaded. ``save`` warns about
# what it leaves out.
clf.set_params(augment=lambda images: images)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    clf.save(path)
print(caught[0].message)
folder.cleanup()
