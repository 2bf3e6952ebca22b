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
# Pictures of 20 x 20 pixels, cut from nine photographs, fifteen of each.
import tempfile
import time

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sklearn_clce import CLCEClassifier

photographs = {
    "brick": data.brick(),
    "cat": data.cat(),
    "coffee": data.coffee(),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "retina": data.retina(),
    "rocket": data.rocket(),
    "stars": data.hubble_deep_field(),
    "tissue": data.immunohistochemistry(),
}
X, y = [], np.repeat(list(photographs), 15)
for photograph in photographs.values():
    X.extend(extract_patches_2d(photograph, (20, 20), max_patches=15, random_state=0))

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
# Cells that differ by less than the folds do should look alike, so the colours span at least ten
# points of accuracy. The standard deviation over the folds stands in each cell: where all cells
# look alike, the defaults will do.
shape = len(grid["temperature"]), len(grid["weight"])
accuracy = search.cv_results_["mean_test_score"].reshape(shape)
spread = search.cv_results_["std_test_score"].reshape(shape)

figure, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
lowest = min(accuracy.min(), accuracy.max() - 0.1)
picture = ax.imshow(accuracy, cmap="cividis", aspect="auto", vmin=lowest, vmax=accuracy.max())
for row, column in np.ndindex(shape):
    dark = accuracy[row, column] < (lowest + accuracy.max()) / 2
    text = f"{accuracy[row, column]:.1%}\n± {spread[row, column]:.1%}"
    ax.text(column, row, text, ha="center", va="center", color="white" if dark else "black", size=9)
ax.set_xticks(range(shape[1]), grid["weight"])
ax.set_yticks(range(shape[0]), grid["temperature"])
ax.set(xlabel="weight of the contrastive term", ylabel="temperature")
ax.set_title(f"Accuracy, 3 folds ({n_fits} fits in {seconds:.0f} s)")
figure.colorbar(picture, label="accuracy")
plt.show()
