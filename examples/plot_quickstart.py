"""
=====================================
Quick start: CE against CLCE, offline
=====================================

Fine-tune an ImageNet backbone on five images of each handwritten digit, with plain
cross-entropy (``weight=0``) and with the CLCE criterion, and look at what each has
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
# ``image_size=64`` is enough for digits and fast on a CPU. So few images make few steps, for
# which a higher learning rate than the default does well, for both. Three seeds each, because
# one fit on fifty images is a matter of luck.
settings = {"image_size": 64, "max_epochs": 20, "batch_size": 25, "learning_rate": 3e-3}
criteria = {"CE": {"weight": 0}, "CLCE": {"weight": 0.5, "temperature": 0.5, "hardness": 1}}
classifiers, accuracy = {}, {}
for name, criterion in criteria.items():
    start = time.perf_counter()
    fits = [
        CLCEClassifier(**criterion, **settings, random_state=seed).fit(X_train, y_train)
        for seed in range(3)
    ]
    scores = [clf.score(X_test, y_test) for clf in fits]
    classifiers[name], accuracy[name] = fits[0], np.mean(scores)
    print(
        f"{name:>4}: accuracy {accuracy[name]:.1%} on unseen digits (seeds: "
        f"{', '.join(f'{score:.1%}' for score in scores)}; {time.perf_counter() - start:.0f} s)"
    )

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
figure, axes = plt.subplots(1, 2, figsize=(11, 5.4), layout="constrained")
for axis, (name, clf) in zip(axes, classifiers.items(), strict=True):
    plane = TSNE(metric="cosine", random_state=0).fit_transform(clf.transform(X_test))
    for number, word in enumerate(words):
        rows = y_test == word
        colour = plt.colormaps["tab10"](number)
        axis.scatter(*plane[rows].T, color=colour, s=90, alpha=0.25, linewidth=0)
        for point in plane[rows]:
            axis.annotate(str(number), point, color=colour, ha="center", va="center", size=8)
    score = clf.score(X_test, y_test)
    axis.set(title=f"{name}, seed 0: {score:.1%} right", xticks=[], yticks=[])
figure.suptitle("Embeddings of 500 unseen digits, learned from 5 images of each (t-SNE)")
figure.savefig("quickstart.png", dpi=120)
print("figure: quickstart.png")
