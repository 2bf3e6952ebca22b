"""
===================================================
Grid search over the criterion, at one feature pass
===================================================

Which temperature and which weight? With a frozen backbone the question is cheap: its
features are the same for every candidate and every fold. ``memory`` keeps them, so the
backbone runs once for each image, and what is left are fits of a small head.
"""

# %%
# The search
# ----------
import tempfile
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sklearn_clce import CLCEClassifier

digits = load_digits()
X, y = digits.images[:300] / 16, digits.target[:300]

grid = {"temperature": [0.05, 0.1, 0.2, 0.5, 1.0], "weight": [0.25, 0.5, 0.75, 0.9]}
with tempfile.TemporaryDirectory() as folder:
    clf = CLCEClassifier(
        trainable="head", memory=folder, image_size=64, max_epochs=10, random_state=0
    )
    search = GridSearchCV(clf, grid, cv=StratifiedKFold(3, shuffle=True, random_state=0))
    start = time.perf_counter()
    search.fit(X, y)
    seconds = time.perf_counter() - start
n_fits = len(search.cv_results_["params"]) * search.n_splits_ + 1
print(f"{n_fits} fits in {seconds:.0f} s; best: {search.best_params_}, {search.best_score_:.1%}")

# %%
# The result as a heat map
# ------------------------
# Neighbouring cells differ by less than folds do: the standard deviation over the three
# folds tells how far a difference can be trusted.
shape = len(grid["temperature"]), len(grid["weight"])
accuracy = search.cv_results_["mean_test_score"].reshape(shape)
spread = search.cv_results_["std_test_score"].reshape(shape)

figure, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
picture = ax.imshow(accuracy, cmap="cividis", aspect="auto")
for row, column in np.ndindex(shape):
    dark = accuracy[row, column] < (accuracy.min() + accuracy.max()) / 2
    text = f"{accuracy[row, column]:.1%}\n± {spread[row, column]:.1%}"
    ax.text(column, row, text, ha="center", va="center", color="white" if dark else "black", size=9)
ax.set_xticks(range(shape[1]), grid["weight"])
ax.set_yticks(range(shape[0]), grid["temperature"])
ax.set(xlabel="weight of the contrastive term", ylabel="temperature")
ax.set_title(f"Accuracy on digits, 3 folds ({n_fits} fits in {seconds:.0f} s)")
figure.colorbar(picture, label="accuracy")
plt.show()
