"""
======================================
Reject unknown images, and add classes
======================================

A classifier predicts one of its classes for every image, even for one of something that it has
never seen. ``score_samples`` detects such images, a threshold rejects them, and ``add_classes``
learns them as new classes, without the old images.
"""

# %%
# Nine known classes, three unknown ones
# --------------------------------------
# Images are cut from twelve photographs. The left halves are for training, the right halves for
# everything else. The classifier never sees a cat, a rocket or stars.
import matplotlib.pyplot as plt
import numpy as np
from photographs import NAMES, cut
from sklearn.metrics import roc_auc_score

from sklearn_clce import CLCEClassifier

# sphinx_gallery_thumbnail_number = 1
later = ["cat", "rocket", "stars"]

X_left, y_left = cut(NAMES, size=96, n=10, half="left")
X_right, y_right = cut(NAMES, size=96, n=12, half="right")
train = ~np.isin(y_left, later)
clf = CLCEClassifier(trainable="head", image_size=96, random_state=0)
clf.fit(X_left[train], y_left[train])

# %%
# A score and a threshold
# -----------------------
# A third of the right halves of the known classes sets the threshold, so that one in ten such
# images may be rejected. Do not use training images here: their scores are too high.
known = ~np.isin(y_right, later)
calibration = known & (np.arange(len(y_right)) % 3 == 0)
test = ~calibration
clf.calibrate_offset(X_right[calibration], contamination=0.1)

X_test, y_test, known = X_right[test], y_right[test], known[test]
scores = clf.score_samples(X_test)
print(f"area under the ROC curve: {roc_auc_score(known, scores):.2f}")

figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
bins = np.linspace(scores.min(), scores.max(), 25)
ax.hist([scores[known], scores[~known]], bins, stacked=True, label=["known", "cat, rocket, stars"])
ax.axvline(clf.offset_, color="black", linestyle="--", label="offset_")
ax.set(xlabel="score_samples", ylabel="images")
ax.legend()
plt.show()

# %%
# A classifier that abstains
# --------------------------
answer = np.where(scores < clf.offset_, "none of these", clf.predict(X_test))
print(f"known images that are rejected: {(answer == 'none of these')[known].mean():.0%}")
print(f"unknown images that are rejected: {(answer == 'none of these')[~known].mean():.0%}")
answered = known & (answer != "none of these")
print(f"right, of known images with an answer: {(answer == y_test)[answered].mean():.0%}")

# %%
# Add the rejected images as classes
# ----------------------------------
# Somebody labels five images of each new class. The old images are not needed again, and the scores
# of the old classes stay as they are.
few = np.isin(y_left, later) & (np.arange(len(y_left)) % 2 == 0)
clf.add_classes(X_left[few], y_left[few])
predicted = clf.predict(X_test)
print(f"{len(clf.classes_)} classes: {', '.join(clf.classes_)}")
for what, of in (("old", known), ("new", ~known)):
    print(f"right, of the {what} classes: {(predicted == y_test)[of].mean():.0%}")
