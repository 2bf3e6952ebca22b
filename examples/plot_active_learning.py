"""
================================================
Active learning: which pictures to label next
================================================

Pictures are there, labels cost time. A classifier that was trained on a few can say of which
others it is least sure; their labels teach it more than those of pictures drawn at random.
"""

# %%
# A pool of pictures without labels
# ---------------------------------
# 32 x 32 pixels cut from eight photographs; 400 in the pool, 400 for the test. The backbone runs
# once over all of them; each round then trains a head on its features in a second.
import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.model_selection import train_test_split

from sklearn_clce import BackboneFeatures, CLCEClassifier

photographs = {
    "brick": data.brick(),
    "cat": data.cat(),
    "coffee": data.coffee(),
    "coins": data.coins(),
    "flower": load_sample_image("flower.jpg"),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "tissue": data.immunohistochemistry(),
}
pictures = []
for photograph in photographs.values():
    pictures.extend(extract_patches_2d(photograph, (32, 32), max_patches=100, random_state=0))
y = np.repeat(list(photographs), 100)
X = BackboneFeatures(image_size=64).fit_transform(pictures)
pool, test = train_test_split(np.arange(len(y)), train_size=400, stratify=y, random_state=0)

# %%
# Two ways to choose
# ------------------
# The margin is the probability of the likeliest class minus that of the next. Where it is small,
# the classifier is torn between two classes. Each round labels the 16 pictures with the smallest
# margin; the other way draws 16 at random.


def by_margin(clf, candidates, rng):
    """Choose the pictures between whose two likeliest classes the classifier is torn."""
    two = np.partition(clf.predict_proba(X[candidates]), -2, axis=1)[:, -2:]
    return candidates[np.argsort(two[:, 1] - two[:, 0])[:16]]


def at_random(clf, candidates, rng):
    """Draw pictures."""
    return rng.choice(candidates, 16, replace=False)


def learn(choose, seed):
    """Return the accuracy on the test pictures after each round."""
    rng = np.random.default_rng(seed)
    labelled = np.concatenate([rng.choice(pool[y[pool] == label], 2) for label in photographs])
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
# After the first rounds the classifier knows too little to know what it is unsure of; drawing at
# random is as good there. Later the margin pays.
n_labels = 16 * np.arange(1, 7)
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, choose, marker in (("margin", by_margin, "o"), ("at random", at_random, "s")):
    accuracies = np.array([learn(choose, seed) for seed in range(3)])
    ax.plot(n_labels, accuracies.mean(axis=0), marker=marker, label=name)
    ax.fill_between(n_labels, accuracies.min(axis=0), accuracies.max(axis=0), alpha=0.2)
    print(f"{name:>9}: " + ", ".join(f"{a:.1%}" for a in accuracies.mean(axis=0)))
ax.set(xlabel="labels", ylabel="accuracy on test pictures", xticks=n_labels)
ax.legend(loc="lower right")
plt.show()
