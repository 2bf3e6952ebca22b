"""
===========================================
Active learning: which images to label next
===========================================

Images are cheap, and labels cost time. Train a classifier on a few labels, then label the images of
which it is least sure. They teach it more than images that are chosen at random.
"""

# %%
# A pool of images without labels
# -------------------------------
# Images of 32 x 32 pixels are cut from eight photographs: 400 for the pool, and 400 for the test.
# The backbone runs once over all of them. Each round then trains a head on the features in a
# second.
import matplotlib.pyplot as plt
import numpy as np
from photographs import cut
from sklearn.model_selection import train_test_split

from sklearn_clce import BackboneFeatures, CLCEClassifier

names = ["brick", "cat", "coffee", "coins", "flower", "grass", "gravel", "tissue"]
images, y = cut(names, size=32, n=100)
X = BackboneFeatures(image_size=64).fit_transform(images)
pool, test = train_test_split(np.arange(len(y)), train_size=400, stratify=y, random_state=0)

# %%
# Two ways to choose
# ------------------
# The margin is the highest probability minus the second highest. If it is small, the classifier is
# undecided between two classes. Each round labels 16 images: those with the smallest margin, or 16
# at random.


def by_margin(clf, candidates, rng):
    """Choose the images between whose two likeliest classes the classifier is torn."""
    two = np.partition(clf.predict_proba(X[candidates]), -2, axis=1)[:, -2:]
    return candidates[np.argsort(two[:, 1] - two[:, 0])[:16]]


def at_random(clf, candidates, rng):
    """Draw images."""
    return rng.choice(candidates, 16, replace=False)


def learn(choose, seed):
    """Return the accuracy on the test images after each round."""
    rng = np.random.default_rng(seed)
    labelled = np.concatenate([rng.choice(pool[y[pool] == label], 2) for label in names])
    accuracies = []
    for _ in range(6):
        clf = CLCEClassifier("precomputed", random_state=seed).fit(X[labelled], y[labelled])
        accuracies.append(clf.score(X[test], y[test]))
        chosen = choose(clf, np.setdiff1d(pool, labelled), rng)
        labelled = np.concatenate([labelled, chosen])
    return accuracies


# %%
# Accuracy by number of labels
# ----------------------------
# In the first rounds the classifier knows too little to judge what it is unsure of, so choosing at
# random is as good. Later the margin pays.
n_labels = 16 * np.arange(1, 7)
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, choose, marker in (("margin", by_margin, "o"), ("at random", at_random, "s")):
    accuracies = np.array([learn(choose, seed) for seed in range(3)])
    ax.plot(n_labels, accuracies.mean(axis=0), marker=marker, label=name)
    ax.fill_between(n_labels, accuracies.min(axis=0), accuracies.max(axis=0), alpha=0.2)
    print(f"{name:>9}: " + ", ".join(f"{a:.1%}" for a in accuracies.mean(axis=0)))
ax.set(xlabel="labels", ylabel="accuracy on test images", xticks=n_labels)
ax.legend(loc="lower right")
plt.show()
