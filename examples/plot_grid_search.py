"""
=============================================================
Grid search over the criterion, with one pass over the images
=============================================================

Which temperature and which weight are best? With a frozen backbone this is cheap: the features are
the same for every candidate and every fold. ``memory`` caches them, so the backbone runs once per
image. Only small heads are fitted.
"""

# %%
# The search
# ----------
# Images of 20 x 20 pixels are cut from nine photographs, fifteen of each.
import tempfile
import time

import matplotlib.pyplot as plt
import numpy as np
from photographs import cut
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sklearn_clce import CLCEClassifier

names = ["brick", "cat", "coffee", "grass", "gravel", "retina", "rocket", "stars", "tissue"]
X, y = cut(names, size=20, n=15)

grid = {"temperature": [0.05, 0.2, 0.5, 1.0], "weight": [0.0, 0.5, 0.9]}
with tempfile.TemporaryDirectory() as folder:
    clf = CLCEClassifier(
        trainable="head", memory=folder, image_size=64, max_epochs=30, random_state=0
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
# Each cell shows the accuracy and its standard deviation over the folds. The colours span at least
# ten percentage points, so that cells that differ by less than the folds look alike. If all cells
# look alike, keep the defaults.
shape = len(grid["temperature"]), len(grid["weight"])
accuracy = search.cv_results_["mean_test_score"].reshape(shape)
spread = search.cv_results_["std_test_score"].reshape(shape)

figure, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
lowest = min(accuracy.min(), accuracy.max() - 0.1)
image = ax.imshow(accuracy, cmap="cividis", aspect="auto", vmin=lowest, vmax=accuracy.max())
for row, column in np.ndindex(shape):
    dark = accuracy[row, column] < (lowest + accuracy.max()) / 2
    text = f"{accuracy[row, column]:.1%}\n± {spread[row, column]:.1%}"
    ax.text(column, row, text, ha="center", va="center", color="white" if dark else "black", size=9)
ax.set_xticks(range(shape[1]), grid["weight"])
ax.set_yticks(range(shape[0]), grid["temperature"])
ax.set(xlabel="weight of the contrastive term", ylabel="temperature")
ax.set_title(f"Accuracy, 3 folds ({n_fits} fits in {seconds:.0f} s)")
figure.colorbar(image, label="accuracy")
plt.show()
