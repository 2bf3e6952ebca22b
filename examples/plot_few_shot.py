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
# All three read a frozen backbone. The logistic regression reads the last features; the two heads
# also read lower blocks. The episodes depend on ``random_state`` alone, so all three get the same
# ones. ``memory`` caches the features, so the backbone does not run again in each episode. Small
# images are cut from twelve photographs.
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from photographs import NAMES, cut
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_clce import BackboneFeatures, CLCEClassifier, few_shot_score

X, y = cut(NAMES, size=32, n=25)
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
# Each episode has five classes, with 15 query images of each. The bars are 95 % intervals of the
# mean over 20 episodes. There are few episodes, so that this page builds quickly. Where bars
# overlap widely, the figure does not show which is better.
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
# The difference within an episode varies less than either accuracy.
for k, ce, clce in zip(shots, scores["cross-entropy"], scores["CLCE"], strict=True):
    difference = clce.scores - ce.scores
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    print(f"{k:>2} shots: CLCE minus cross-entropy {difference.mean():+.1%} ± {2 * error:.1%}")
folder.cleanup()
