"""
====================================
CE and CLCE embeddings, side by side
====================================

Two classifiers with the same backbone, images, seed and number of steps. One learns with
cross-entropy alone, the other with the contrastive term as well. The displays of the package show
what each has learned.
"""

# %%
# Two classifiers
# ---------------
# Images of 64 x 64 pixels are cut from twelve photographs: eight of each left half for training,
# and 25 of each right half for the test.
import matplotlib.pyplot as plt
from photographs import NAMES, cut
from sklearn.metrics import silhouette_score

from sklearn_clce import CLCEClassifier, EmbeddingDisplay, TopLossesDisplay, TrainingCurveDisplay

# sphinx_gallery_thumbnail_number = 2
X_train, y_train = cut(NAMES, size=64, n=8, half="left")
X_test, y_test = cut(NAMES, size=64, n=25, half="right")
settings = {"image_size": 64, "max_epochs": 8, "learning_rate": 3e-3, "random_state": 0}
classifiers = {
    "CE": CLCEClassifier(weight=0, **settings),
    "CLCE": CLCEClassifier(**settings),
}
for clf in classifiers.values():
    clf.fit(X_train, y_train)

# %%
# Embeddings of test images
# -------------------------
# Class names are at the centre of each class. Rings mark misclassified images. The silhouette score
# measures, without a projection to the plane, how well the classes are separated.
figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
for ax, (name, clf) in zip(axes, classifiers.items(), strict=True):
    EmbeddingDisplay.from_estimator(clf, X_test, y_test, method="tsne", random_state=0, ax=ax)
    silhouette = silhouette_score(clf.transform(X_test), y_test, metric="cosine")
    ax.set_title(f"{name}: accuracy {clf.score(X_test, y_test):.1%}, silhouette {silhouette:.2f}")
plt.show()

# %%
# With thumbnails, misclassified ones first
# -----------------------------------------
display = EmbeddingDisplay.from_estimator(
    classifiers["CLCE"], X_test, y_test, method="tsne", random_state=0, thumbnails=40
)
display.ax_.set_title("Embeddings of the test images; thick frames: misclassified")
plt.show()

# %%
# Training curve
# --------------
# Both terms are means over the batches of an epoch, before they are weighted.
display = TrainingCurveDisplay.from_estimator(classifiers["CLCE"])
display.ax_.set_title("Training with CLCE")
plt.show()

# %%
# The worst errors
# ----------------
# Each image is shown with its label, the prediction, and the probability of both.
TopLossesDisplay.from_estimator(classifiers["CLCE"], X_test, y_test, n_images=8)
plt.show()
