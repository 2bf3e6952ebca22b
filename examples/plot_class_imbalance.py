"""
===============
Class imbalance
===============

Three of ten classes have five pictures each, the others sixty. What do ``class_weight``
and ``sampler`` do about it?
"""

# %%
# A few classes are rare
# ----------------------
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score, recall_score

from sklearn_clce import BackboneFeatures, CLCEClassifier

digits = load_digits()
rare = [2, 5, 8]
rows = [np.flatnonzero(digits.target == label) for label in range(10)]
train = np.concatenate([rows[label][: 5 if label in rare else 60] for label in range(10)])
test = np.concatenate([rows[label][60:160] for label in range(10)])
X = BackboneFeatures(image_size=64).transform(digits.images / 16)
y = digits.target

# %%
# Three ways
# ----------
# Nothing; rare rows that weigh more in both terms of the criterion; and batches with as many
# rows of each class, in which rare rows come more often. The mean over five seeds, on
# as many test images of each class.
ways = {
    "as it is": {"sampler": "shuffle"},
    "class_weight='balanced'": {"sampler": "shuffle", "class_weight": "balanced"},
    "sampler='balanced'": {"sampler": "balanced"},
}
recall = {}
for name, settings in ways.items():
    predictions = [
        CLCEClassifier("precomputed", **settings, max_epochs=10, random_state=seed)
        .fit(X[train], y[train])
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
    places = np.arange(10) + 0.27 * (number - 1)
    ax.bar(places, values, 0.25, label=name, color=colours[number], hatch=hatches[number])
labels = [f"{label}\nrare" if label in rare else str(label) for label in range(10)]
ax.set_xticks(range(10), labels)
ax.set(ylabel="recall", ylim=(0, 1))
ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
plt.show()
