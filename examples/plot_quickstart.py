"""
=====================================
Quick start: CE against CLCE, offline
=====================================

Fine-tune an ImageNet backbone on five images of each handwritten digit, once with plain
cross-entropy (``weight=0``) and once with the CLCE criterion, and look at what each has
learned. Everything here came with ``pip``: no download is needed.
"""

# %%
# Real images, few labels
# -----------------------
# scikit-learn's digits are 8 x 8 pixels; the classifier enlarges them as the backbone wants
# them. Labels may be of any kind: here they are words.
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE
from sklearn.model_selection import train_test_split

from sklearn_clce import CLCEClassifier

words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
digits = load_digits()
X, y = digits.images / 16, np.array(words)[digits.target]
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=50, test_size=500, stratify=y, random_state=0
)
print(f"{len(X_train)} images to learn from, {len(X_test)} to be tested on")

# %%
# Two classifiers, one difference
# -------------------------------
# ``image_size=64`` is enough for digits and fast on a CPU.
settings = {"image_size": 64, "max_epochs": 30, "batch_size": 25, "random_state": 0}
classifiers = {
    "CE": CLCEClassifier(weight=0, **settings),
    "CLCE": CLCEClassifier(weight=0.5, temperature=0.1, hardness=1, **settings),
}
accuracy = {}
for name, clf in classifiers.items():
    start = time.perf_counter()
    accuracy[name] = clf.fit(X_train, y_train).score(X_test, y_test)
    seconds = time.perf_counter() - start
    print(f"{name:>4}: accuracy {accuracy[name]:.1%} on unseen digits ({seconds:.0f} s)")

# %%
# Predictions, probabilities, embeddings
# --------------------------------------
clf = classifiers["CLCE"]
probabilities = clf.predict_proba(X_test)
for truth, label, row in list(zip(y_test, clf.predict(X_test), probabilities, strict=True))[:5]:
    print(f"  a {truth} is taken for a {label}, with probability {row.max():.2f}")
print("embeddings of the test images:", clf.transform(X_test).shape)

# %%
# What the criterion does to the embeddings
# -----------------------------------------
figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
for axis, (name, clf) in zip(axes, classifiers.items(), strict=True):
    plane = TSNE(metric="cosine", random_state=0).fit_transform(clf.transform(X_test))
    for number, word in enumerate(words):
        rows = y_test == word
        colour = plt.colormaps["tab10"](number)
        axis.scatter(*plane[rows].T, color=colour, s=8, alpha=0.35)
        for point in plane[rows][:12]:
            axis.annotate(str(number), point, color=colour, ha="center", va="center", size=9)
    axis.set(title=f"{name}: {accuracy[name]:.1%}", xticks=[], yticks=[])
figure.suptitle("Embeddings of 500 unseen digits, learned from 5 images of each (t-SNE)")
figure.savefig("quickstart.png", dpi=120)
print("figure: quickstart.png")
