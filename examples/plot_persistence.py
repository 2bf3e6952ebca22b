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
# Weights, parameters, labels, preprocessing and history are in the file.
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklearn_clce import CLCEClassifier, TrainingCurveDisplay

digits = load_digits()
X = digits.images / 16
y = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
y = y[digits.target]
clf = CLCEClassifier(image_size=64, max_epochs=10, random_state=0).fit(X[:300], y[:300])

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "digits.safetensors"
clf.save(path)
print(f"{path.name} takes {path.stat().st_size / 1e6:.1f} MB")

loaded = CLCEClassifier.load(path, device="cpu")
same = np.array_equal(loaded.predict_proba(X[300:500]), clf.predict_proba(X[300:500]))
print(f"same probabilities: {same}")
print(f"accuracy: {loaded.score(X[300:500], y[300:500]):.1%}")

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
    loaded.partial_fit(X[500:800], y[500:800])
print(f"accuracy after more pictures: {loaded.score(X[300:500], y[300:500]):.1%}")

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
