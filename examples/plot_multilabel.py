"""
=======================
Several labels an image
=======================

An image may show grass and bricks. If labels do not exclude each other, the target is a table: a
row per image, a column of 0 and 1 per label, and NaN where the label is unknown.
"""

# %%
# Images that show several things
# -------------------------------
# Each image consists of four tiles, cut from five photographs. A label says whether the photograph
# is in the image. Test images come from other halves of the photographs.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from photographs import cut
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from sklearn.model_selection import KFold, cross_val_predict

from sklearn_clce import CLCEClassifier, TopLossesDisplay

names = ["brick", "coffee", "coins", "grass", "gravel"]
rng = np.random.default_rng(0)


def images(n, half):
    tiles, _ = cut(names, size=64, n=40, half=half)
    tiles = dict(zip(names, np.split(tiles, len(names)), strict=True))
    X, Y = [], []
    for _ in range(n):
        shown = rng.choice(names, rng.integers(1, 4), replace=False)
        a, b, c, d = (rng.choice(tiles[name]) for name in rng.permutation(np.resize(shown, 4)))
        X.append(np.vstack([np.hstack([a, b]), np.hstack([c, d])]))
        Y.append(np.isin(names, shown).astype(int))
    return np.array(X), pd.DataFrame(Y, columns=names)


X_train, Y_train = images(80, half="left")
X_test, Y_test = images(40, half="right")
figure, axes = plt.subplots(1, 5, figsize=(10, 2.4), layout="constrained")
for ax, image, row in zip(axes, X_train, Y_train.to_numpy(), strict=False):
    ax.imshow(image)
    ax.set_title(", ".join(np.array(names)[row == 1]), fontsize=9)
    ax.axis("off")
plt.show()

# %%
# Fit and predict
# ---------------
# The columns of the data frame name the labels. Everything else is as for one label.
clf = CLCEClassifier(trainable="head", random_state=0).fit(X_train, Y_train)
probability = clf.predict_proba(X_test)
pd.DataFrame(probability[:3], columns=clf.classes_).round(2)

# %%
# ``score`` asks for rows in which every label is right. The average precision, by label, does not
# depend on a threshold.
precision = average_precision_score(Y_test, probability, average=None)
print(f"all labels right: {clf.score(X_test, Y_test):.0%} of the images")
print(pd.Series(precision, index=names).round(3).to_string())

# %%
# Unknown labels
# --------------
# Half of the entries become NaN: not annotated. They are ignored.
gaps = Y_train.mask(rng.random(Y_train.shape) < 0.5)
with_gaps = CLCEClassifier(trainable="head", random_state=0).fit(X_train, gaps)
precision = average_precision_score(Y_test, with_gaps.predict_proba(X_test))
print(f"{int(gaps.isna().sum().sum())} of {gaps.size} labels hidden: {precision:.3f}")

# %%
# A threshold for each label
# --------------------------
# ``predict`` says yes above 0.5. To find the threshold with the best F1, use images that the
# classifier was not trained on: cross-validation has them. With eighty images such thresholds are
# noisy. Compare both on test images before you choose.
folds = KFold(5, shuffle=True, random_state=0)
held_out = cross_val_predict(clf, X_train, Y_train, cv=folds, method="predict_proba")


def best_threshold(truth, score):
    precision, recall, thresholds = precision_recall_curve(truth, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    return thresholds[f1[:-1].argmax()]


thresholds = np.array(
    [best_threshold(Y_train[name], held_out[:, i]) for i, name in enumerate(names)]
)
for title, limits in {"0.5": 0.5, "of each label": thresholds}.items():
    print(f"threshold {title}: F1 {f1_score(Y_test, probability >= limits, average='macro'):.3f}")

# %%
# Wrong labels
# ------------
# Eight entries of the table are flipped. ``TopLossesDisplay`` shows for each image the label with
# the largest error. ``label="grass"`` shows the errors of one label.
wrong = Y_train.to_numpy(copy=True)
turned = rng.choice(len(wrong), 8, replace=False), rng.integers(len(names), size=8)
wrong[turned] = 1 - wrong[turned]
held_out = cross_val_predict(clf, X_train, wrong, cv=folds, method="predict_proba")
TopLossesDisplay.from_predictions(wrong, held_out, X=X_train, classes=names, n_images=6)
plt.show()

# %%
# `cleanlab <https://docs.cleanlab.ai>`_ decides how many images to look at. It takes lists of
# labels.
from cleanlab.multilabel_classification.filter import find_label_issues

lists = [np.flatnonzero(row).tolist() for row in wrong]
suspects = find_label_issues(lists, held_out, return_indices_ranked_by="self_confidence", n_jobs=1)
found = np.isin(turned[0], suspects).sum()
print(f"cleanlab names {len(suspects)} images, {found} of the 8 with a wrong label among them")
