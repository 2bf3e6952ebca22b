"""
=================
Find wrong labels
=================

Labels that people set are sometimes wrong. Cross-validation gives every image a probability from a
classifier that was not trained on it. Look at the images whose probability disagrees most with the
label.
"""

# %%
# Images, and six wrong labels
# ----------------------------
# Images are cut from seven photographs, twelve of each, and saved in a folder for each class. Then
# six files are moved into a wrong folder.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from photographs import save
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from sklearn_clce import CLCEClassifier, TopLossesDisplay, load_image_folder

# sphinx_gallery_thumbnail_number = 1
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name, "images")
save(folder, ["brick", "coffee", "coins", "grass", "gravel", "retina", "tissue"], size=96, n=12)
for old, new in [("brick", "grass"), ("coins", "coffee"), ("tissue", "retina")]:
    for number in ("03", "07"):
        (folder / old / f"{number}.png").rename(folder / new / f"{old}-{number}.png")

# %%
# A probability for every image
# -----------------------------
# :func:`~sklearn.model_selection.cross_val_predict` fits on four fifths of the images and predicts
# the last fifth, five times. ``memory`` caches the features, so the backbone runs once per image.
paths, labels = load_image_folder(folder)
clf = CLCEClassifier(trainable="head", memory=Path(temporary.name, "features"), random_state=0)
folds = StratifiedKFold(5, shuffle=True, random_state=0)
probability = cross_val_predict(clf, paths, labels, cv=folds, method="predict_proba")

# %%
# The largest disagreements
# -------------------------
# ``indices`` and ``paths`` of the display name the files to look at.
classes = np.unique(labels)
display = TopLossesDisplay.from_predictions(labels, probability, X=paths, classes=classes)
plt.show()

moved = [path for path in display.paths if "-" in Path(path).name]
print(f"{len(moved)} of the 6 moved files are among the {len(display.paths)} images above")

# %%
# How many labels are wrong: cleanlab
# -----------------------------------
# The display shows where to look first, but not where to stop. `cleanlab
# <https://docs.cleanlab.ai>`_ reads the same probabilities. It estimates how sure the classifier is
# of each class, and lists the labels for which another class is more likely.
from cleanlab.filter import find_label_issues

codes = np.searchsorted(classes, labels)
suspects = find_label_issues(
    codes, probability, return_indices_ranked_by="self_confidence", n_jobs=1
)
for index in suspects:
    path = Path(paths[index])
    print(f"{path.name} lies in {path.parent.name}; is it {classes[probability[index].argmax()]}?")

# %%
# Which classes are confused
# --------------------------
figure, ax = plt.subplots(figsize=(5.4, 4.8), layout="constrained")
predicted = classes[probability.argmax(axis=1)]
ConfusionMatrixDisplay.from_predictions(
    labels, predicted, cmap="Blues", xticks_rotation=45, colorbar=False, ax=ax
)
plt.show()
temporary.cleanup()
