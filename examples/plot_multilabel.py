"""
========================
Several labels a picture
========================

A picture may show grass and bricks. Where labels do not exclude each other, the target is a table:
a row for each picture, a column of 0 and 1 for each label, and a gap where nobody has looked.
"""

# %%
# Pictures that show several things
# ---------------------------------
# Each picture is put together from four tiles, cut from five photographs. A label says whether the
# photograph is in it. Test pictures come from other halves of the photographs.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from skimage import data
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from sklearn.model_selection import KFold, cross_val_predict

from sklearn_clce import CLCEClassifier, TopLossesDisplay

photographs = {
    "brick": data.brick(),
    "coffee": data.coffee(),
    "coins": data.coins(),
    "grass": data.grass(),
    "gravel": data.gravel(),
}
names, SIDE = list(photographs), 64
rng = np.random.default_rng(0)


def tile(name, half):
    photograph = photographs[name]
    photograph = photograph if photograph.ndim == 3 else np.stack([photograph] * 3, axis=-1)
    height, width = photograph.shape[0], photograph.shape[1] // 2
    top, left = rng.integers(height - SIDE), rng.integers(width - SIDE) + half * width
    return photograph[top : top + SIDE, left : left + SIDE]


def pictures(n, half):
    X, Y = [], []
    for _ in range(n):
        shown = rng.choice(names, rng.integers(1, 4), replace=False)
        a, b, c, d = (tile(name, half) for name in rng.permutation(np.resize(shown, 4)))
        X.append(np.vstack([np.hstack([a, b]), np.hstack([c, d])]))
        Y.append(np.isin(names, shown).astype(int))
    return np.array(X), pd.DataFrame(Y, columns=names)


X_train, Y_train = pictures(80, half=0)
X_test, Y_test = pictures(40, half=1)
figure, axes = plt.subplots(1, 5, figsize=(10, 2.4), layout="constrained")
for ax, picture, row in zip(axes, X_train, Y_train.to_numpy(), strict=False):
    ax.imshow(picture)
    ax.set_title(", ".join(np.array(names)[row == 1]), fontsize=9)
    ax.axis("off")
plt.show()

# %%
# Fit and predict
# ---------------
# Everything is as for one label: the columns of the data frame name the labels.
clf = CLCEClassifier(trainable="head", random_state=0).fit(X_train, Y_train)
probability = clf.predict_proba(X_test)
pd.DataFrame(probability[:3], columns=clf.classes_).round(2)

# %%
# ``score`` asks for rows in which every label is right. The average precision, by label, does not
# depend on a threshold.
precision = average_precision_score(Y_test, probability, average=None)
print(f"all labels right: {clf.score(X_test, Y_test):.0%} of the pictures")
print(pd.Series(precision, index=names).round(3).to_string())

# %%
# Labels that nobody has set
# --------------------------
# Half of the entries become NaN: not annotated. They count nowhere, and the rest is enough.
gaps = Y_train.mask(rng.random(Y_train.shape) < 0.5)
with_gaps = CLCEClassifier(trainable="head", random_state=0).fit(X_train, gaps)
precision = average_precision_score(Y_test, with_gaps.predict_proba(X_test))
print(f"{int(gaps.isna().sum().sum())} of {gaps.size} labels hidden: {precision:.3f}")

# %%
# A threshold for each label
# --------------------------
# ``predict`` says yes above 0.5. Which threshold gives the best F1 is a question to pictures that
# the classifier was not trained on, which cross-validation has. Of eighty pictures such thresholds
# are noisy, so both are compared on test pictures before one is chosen.
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
# Eight entries of the table are turned around. ``TopLossesDisplay`` shows for each picture the
# label that the classifier is most wrong about, or, with ``label="grass"``, those of one label.
wrong = Y_train.to_numpy(copy=True)
turned = rng.choice(len(wrong), 8, replace=False), rng.integers(len(names), size=8)
wrong[turned] = 1 - wrong[turned]
held_out = cross_val_predict(clf, X_train, wrong, cv=folds, method="predict_proba")
TopLossesDisplay.from_predictions(wrong, held_out, X=X_train, classes=names, n_images=6)
plt.show()

# %%
# `cleanlab <https://docs.cleanlab.ai>`_ decides how many pictures to look at. It takes lists of
# labels.
from cleanlab.multilabel_classification.filter import find_label_issues

lists = [np.flatnonzero(row).tolist() for row in wrong]
suspects = find_label_issues(lists, held_out, return_indices_ranked_by="self_confidence", n_jobs=1)
found = np.isin(turned[0], suspects).sum()
print(f"cleanlab names {len(suspects)} pictures, {found} of the 8 with a wrong label among them")
