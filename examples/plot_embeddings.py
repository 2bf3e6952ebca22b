"""
=====================================
CE and CLCE embeddings, side by side
=====================================

The same backbone, data, seed and number of steps; one classifier learns with plain
cross-entropy, the other with the contrastive term added. The displays of the package
show what came of it.
"""

# %%
# Two classifiers
# ---------------
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import silhouette_score
from sklearn.model_selection import train_test_split

from sklearn_clce import CLCEClassifier, EmbeddingDisplay, TopLossesDisplay, TrainingCurveDisplay

digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(
    digits.images / 16,
    digits.target,
    train_size=100,
    test_size=400,
    stratify=digits.target,
    random_state=0,
)
settings = {"image_size": 64, "max_epochs": 8, "learning_rate": 3e-3, "random_state": 0}
classifiers = {
    "CE": CLCEClassifier(weight=0, **settings),
    "CLCE": CLCEClassifier(**settings),
}
for clf in classifiers.values():
    clf.fit(X_train, y_train)

# %%
# Embeddings of images that were not trained on
# ---------------------------------------------
# Each class is named where it lies; rings mark misclassified images. The silhouette score
# measures, without a projection to the plane, how well classes lie apart.
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
# How training went
# -----------------
# Both terms are means over the batches of an epoch, before they are weighed.
display = TrainingCurveDisplay.from_estimator(classifiers["CLCE"])
display.ax_.set_title("Training with CLCE")
plt.show()

# %%
# Where the classifier is most wrong
# ----------------------------------
# Each picture with its label, what it was taken for, and the probability of both.
TopLossesDisplay.from_estimator(classifiers["CLCE"], X_test, y_test, n_images=8)
plt.show()
