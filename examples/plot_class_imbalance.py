"""
===============
Class imbalance
===============

Three of nine classes have four pictures each, the others forty. What do ``class_weight`` and
``sampler`` do about it?
"""

# %%
# A few classes are rare
# ----------------------
# Small pictures, cut from nine photographs. The right half of each is for the test.
import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import balanced_accuracy_score, recall_score

from sklearn_clce import BackboneFeatures, CLCEClassifier

photographs = {
    "brick": data.brick(),
    "cat": data.cat(),
    "coffee": data.coffee(),
    "flower": load_sample_image("flower.jpg"),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "rocket": data.rocket(),
    "temple": load_sample_image("china.jpg"),
    "tissue": data.immunohistochemistry(),
}
rare = ["cat", "grass", "temple"]
X, y, test = [], [], []
for label, photograph in photographs.items():
    for part, half in enumerate(np.array_split(photograph, 2, axis=1)):
        n_pictures = 25 if part else 4 if label in rare else 40
        X.extend(extract_patches_2d(half, (32, 32), max_patches=n_pictures, random_state=0))
        y += [label] * n_pictures
        test += [part == 1] * n_pictures
X, y, test = BackboneFeatures(image_size=96).transform(X), np.array(y), np.array(test)

# %%
# Three ways
# ----------
# Nothing; rare pictures that weigh more in both terms of the criterion; and batches with as many
# pictures of each class, in which rare ones come more often. The mean over five seeds, on as many
# test pictures of each class.
ways = {
    "as it is": {"sampler": "shuffle"},
    "class_weight='balanced'": {"sampler": "shuffle", "class_weight": "balanced"},
    "sampler='balanced'": {"sampler": "balanced"},
}
recall = {}
for name, settings in ways.items():
    predictions = [
        CLCEClassifier("precomputed", **settings, max_epochs=10, random_state=seed)
        .fit(X[~test], y[~test])
        .predict(X[test])
        for seed in range(5)
    ]
    recall[name] = np.mean([recall_score(y[test], p, average=None) for p in predictions], axis=0)
    balanced = np.mean([balanced_accuracy_score(y[test], p) for p in predictions])
    print(f"{name:>24}: balanced accuracy {balanced:.1%}")

# %%
# Recall of each class
# --------------------
figure, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
colours, hatches = ["#666666", "#0072B2", "#E69F00"], ["", "//", ".."]
for number, (name, values) in enumerate(recall.items()):
    places = np.arange(len(photographs)) + 0.27 * (number - 1)
    ax.bar(places, values, 0.25, label=name, color=colours[number], hatch=hatches[number])
labels = [f"{label}\nrare" if label in rare else label for label in photographs]
ax.set_xticks(range(len(photographs)), labels)
ax.set(ylabel="recall", ylim=(0, 1))
ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
plt.show()
