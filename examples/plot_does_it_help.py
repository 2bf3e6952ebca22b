"""
========================
Does it help on my data?
========================

Is CLCE better than cross-entropy, or than a logistic regression on features of the same backbone,
on *your* images? Score them on the same folds and compare the differences. Differences vary much
less than the scores.
"""

# %%
# Images
# ------
# Use your own paths and labels as ``X`` and ``y``. Here, small images are cut from twelve
# photographs.
import matplotlib.pyplot as plt
import numpy as np
from photographs import NAMES, cut

X, y = cut(NAMES, size=40, n=15)

# %%
# Ten lines
# ---------
# Five folds are repeated five times. Folds share training images, so the usual interval would be
# too narrow. The variance is corrected by the ratio of test to training images (Nadeau and Bengio,
# 2003). ``memory`` caches the features, so the frozen backbone runs once per image. Without
# ``trainable="head"`` the backbone is trained too, which takes a minute or more per fit.
import tempfile

from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_clce import BackboneFeatures, CLCEClassifier

folder = tempfile.TemporaryDirectory()
kept = {"image_size": 128, "memory": folder.name}
folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=5, random_state=0)
candidates = {
    "CLCE": CLCEClassifier(trainable="head", random_state=0, **kept),
    "cross-entropy": CLCEClassifier(trainable="head", weight=0, random_state=0, **kept),
    "logistic regression": make_pipeline(
        BackboneFeatures(**kept), LogisticRegression(max_iter=1000)
    ),
}
scores = {name: cross_val_score(clf, X, y, cv=folds) for name, clf in candidates.items()}
folder.cleanup()
results = {}
for other in ["cross-entropy", "logistic regression"]:
    difference = scores["CLCE"] - scores[other]
    error = difference.std(ddof=1) * np.sqrt(
        1 / len(difference) + 1 / 4
    )  # a test fold to four others
    results[other] = difference.mean(), stats.t.ppf(0.975, len(difference) - 1) * error
    print(f"CLCE minus {other}: {results[other][0]:+.1%} ± {results[other][1]:.1%}")

# %%
# Read the result
# ---------------
# If the interval contains 0, these images do not show which is better. Choose the simpler one, or
# label more images.
figure, ax = plt.subplots(figsize=(6.4, 2), layout="constrained")
for row, (mean, half) in enumerate(results.values()):
    ax.errorbar(100 * mean, row, xerr=100 * half, fmt="o", capsize=4, color="#0072B2")
ax.axvline(0, color="0.4", linewidth=1)
ax.set_yticks(range(2), [f"CLCE minus\n{name}" for name in results])
ax.set(ylim=(1.6, -0.6), xlabel="accuracy, points, with a 95 % interval")
plt.show()
