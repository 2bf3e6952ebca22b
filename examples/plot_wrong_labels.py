"""
=================
Find wrong labels
=================

Labels that people set are wrong in some places. Cross-validation gives every picture a
probability from a classifier that was not trained on it; where that disagrees most with the
label, somebody should look.
"""

# %%
# Pictures, and six wrong labels
# ------------------------------
# Pictures cut from seven photographs, twelve of each, as files in a folder for each class. Then six
# files are moved into a wrong folder.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from skimage import data
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from sklearn_clce import CLCEClassifier, TopLossesDisplay, load_image_folder

photographs = {
    "brick": data.brick(),
    "coffee": data.coffee(),
    "coins": data.coins(),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "retina": data.retina(),
    "tissue": data.immunohistochemistry(),
}
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name, "images")
for label, photograph in photographs.items():
    (folder / label).mkdir(parents=True)
    for number, picture in enumerate(
        extract_patches_2d(photograph, (96, 96), max_patches=12, random_state=0)
    ):
        Image.fromarray(picture).save(folder / label / f"{label}{number:02}.png")
for old, new in [("brick", "grass"), ("coins", "coffee"), ("tissue", "retina")]:
    for number in (3, 7):
        (folder / old / f"{old}{number:02}.png").rename(folder / new / f"{old}{number:02}.png")

# %%
# A probability for every picture
# -------------------------------
# :func:`~sklearn.model_selection.cross_val_predict` fits on four fifths of the pictures and
# predicts the last fifth, five times. ``memory`` keeps the features, so the backbone runs once
# for each picture.
paths, labels = load_image_folder(folder)
clf = CLCEClassifier(trainable="head", memory=Path(temporary.name, "features"), random_state=0)
folds = StratifiedKFold(5, shuffle=True, random_state=0)
probability = cross_val_predict(clf, paths, labels, cv=folds, method="predict_proba")

# %%
# Where label and classifier disagree most
# ----------------------------------------
# ``indices`` and ``paths`` of the display say which files to look at.
classes = np.unique(labels)
display = TopLossesDisplay.from_predictions(labels, probability, X=paths, classes=classes)
plt.show()

moved = [path for path in display.paths if Path(path).parent.name not in Path(path).name]
print(f"{len(moved)} of the 6 moved files are among the {len(display.paths)} pictures above")

# %%
# How many labels are wrong, and which: cleanlab
# ----------------------------------------------
# The display says where to look first, not where to stop. `cleanlab <https://docs.cleanlab.ai>`_
# reads the same probabilities: it learns how sure the classifier is of the pictures of each class,
# and names the labels that another class has the better claim to.
from cleanlab.filter import find_label_issues

codes = np.searchsorted(classes, labels)
suspects = find_label_issues(
    codes, probability, return_indices_ranked_by="self_confidence", n_jobs=1
)
for index in suspects:
    path = Path(paths[index])
    print(f"{path.name} lies in {path.parent.name}; is it {classes[probability[index].argmax()]}?")

# %%
# Which classes are taken for which
# ---------------------------------
figure, ax = plt.subplots(figsize=(5.4, 4.8), layout="constrained")
predicted = classes[probability.argmax(axis=1)]
ConfusionMatrixDisplay.from_predictions(
    labels, predicted, cmap="Blues", xticks_rotation=45, colorbar=False, ax=ax
)
plt.show()
temporary.cleanup()
