"""
===============
Class imbalance
===============

Three of nine classes have four images each, and the others have forty. This example shows what
``class_weight`` and ``sampler`` change.
"""

# %%
# Three classes are rare
# ----------------------
# Small images are cut from nine photographs. The right half of each photograph is for the test.
import matplotlib.pyplot as plt
import numpy as np
from photographs import cut
from sklearn.metrics import balanced_accuracy_score, recall_score

from sklearn_clce import BackboneFeatures, CLCEClassifier

rare = ["cat", "grass", "temple"]
frequent = ["brick", "coffee", "flower", "gravel", "rocket", "tissue"]
parts = [
    cut(frequent, size=32, n=40, half="left"),
    cut(rare, size=32, n=4, half="left"),
    cut([*frequent, *rare], size=32, n=25, half="right"),
]
images, y = (np.concatenate(part) for part in zip(*parts, strict=True))
names = np.unique(y)
X, test = BackboneFeatures(image_size=96).transform(images), np.arange(len(y)) >= 6 * 40 + 3 * 4

# %%
# Three ways to handle rare classes
# ---------------------------------
# Do nothing; give rare images a larger weight in the loss; or fill batches with the same number of
# images per class. The figure shows the mean over five seeds.
ways = {
    "as it is": {"sampler": "shuffle"},
    "class_weight='balanced'": {"sampler": "shuffle", "class_weight": "balanced"},
    "sampler='balanced'": {"sampler": "balanced"},
}
recall = {}
for name, settings in ways.items():
    predictions = [
        CLCEClassifier("precomputed", **settings, max_epochs=10, random_state=seed)
        .fit(X[~test], y[~test])
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
    places = np.arange(len(names)) + 0.27 * (number - 1)
    ax.bar(places, values, 0.25, label=name, color=colours[number], hatch=hatches[number])
labels = [f"{label}\nrare" if label in rare else label for label in names]
ax.set_xticks(range(len(names)), labels)
ax.set(ylabel="recall", ylim=(0, 1))
ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
plt.show()
