"""
=============================================
Few-shot learning: accuracy by support images
=============================================

How well does a classifier learn new classes from two, five or ten images of each?
:func:`~sklearn_clce.few_shot_score` fits on the support images of each episode and scores on other
images of the same classes. :class:`~sklearn_clce.EpisodeSplit` gives the same episodes to
scikit-learn's own tools.
"""

# %%
# Three classifiers, the same episodes
# ------------------------------------
# All read a frozen backbone: a logistic regression its features, a head trained with
# cross-entropy and one trained with CLCE lower blocks of it, too. The episodes depend on
# ``random_state`` alone, so all three meet the same ones. ``memory`` keeps what they read: the
# backbone does not run again for each episode. The images are small pictures cut from twelve
# photographs.
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_clce import BackboneFeatures, CLCEClassifier, few_shot_score

photographs = {
    "brick": data.brick(),
    "cat": data.cat(),
    "coffee": data.coffee(),
    "coins": data.coins(),
    "flower": load_sample_image("flower.jpg"),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "retina": data.retina(),
    "rocket": data.rocket(),
    "stars": data.hubble_deep_field(),
    "temple": load_sample_image("china.jpg"),
    "tissue": data.immunohistochemistry(),
}
X, y = [], np.repeat(list(photographs), 25)
for photograph in photographs.values():
    X.extend(extract_patches_2d(photograph, (32, 32), max_patches=25, random_state=0))
folder = tempfile.TemporaryDirectory()
head = {"trainable": "head", "image_size": 96, "random_state": 0, "memory": folder.name}
classifiers = {
    "logistic regression": make_pipeline(
        BackboneFeatures(image_size=96, memory=folder.name),
        StandardScaler(),
        LogisticRegression(C=0.01),
    ),
    "cross-entropy": CLCEClassifier(weight=0.0, **head),
    "CLCE": CLCEClassifier(**head),
}

# %%
# Learning curves
# ---------------
# Five classes in an episode, 15 query images of each. The bars are 95 % intervals of the mean
# over 20 episodes; few episodes, so that this page is built quickly. Where bars overlap widely
# the figure does not show which is better.
shots = [2, 5, 10]
scores = {
    name: [few_shot_score(clf, X, y, k_shot=k, n_episodes=20, random_state=0) for k in shots]
    for name, clf in classifiers.items()
}
for name, row in scores.items():
    print(f"{name:>19}: " + ", ".join(f"{score.mean:.1%} at {score.k_shot}" for score in row))

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for offset, marker, (name, row) in zip((-0.15, 0, 0.15), "osD", scores.items(), strict=True):
    means = np.array([score.mean for score in row])
    lows, highs = np.array([score.interval for score in row]).T
    places = np.arange(len(shots)) + offset
    ax.errorbar(places, means, [means - lows, highs - means], fmt=marker, capsize=3, label=name)
ax.set_xticks(range(len(shots)), shots)
ax.set(xlabel="support images of each class", ylabel="accuracy on query images")
ax.legend(loc="lower right")
plt.show()

# %%
# Are they different?
# -------------------
# Paired by episode, the difference has a smaller spread than either accuracy.
for k, ce, clce in zip(shots, scores["cross-entropy"], scores["CLCE"], strict=True):
    difference = clce.scores - ce.scores
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    print(f"{k:>2} shots: CLCE minus cross-entropy {difference.mean():+.1%} ± {2 * error:.1%}")
folder.cleanup()
