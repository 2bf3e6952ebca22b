"""
=====================================
CE and CLCE embeddings, side by side
=====================================

The same backbone, pictures, seed and number of steps; one classifier learns with plain
cross-entropy, the other with the contrastive term added. The displays of the package show what
each has learned.
"""

# %%
# Two classifiers
# ---------------
# Pictures of 64 x 64 pixels cut from twelve photographs: eight of each from the left half to learn
# from, 25 of each from the right half to test.
import matplotlib.pyplot as plt
import numpy as np
from skimage import color, data
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import silhouette_score

from sklearn_clce import CLCEClassifier, EmbeddingDisplay, TopLossesDisplay, TrainingCurveDisplay

photographs = {
    "brick": data.brick(),
    "cat": data.cat(),
    "coffee": data.coffee(),
    "coins": data.coins(),
    "flower": load_sample_image("flower.jpg"),
    "grass": data.grass(),
    "gravel": data.gravel(),
    "retina": data.retina(),
    "rocket": data.rocket(),
    "stars": data.hubble_deep_field(),
    "temple": load_sample_image("china.jpg"),
    "tissue": data.immunohistochemistry(),
}


def pictures(half, n_pictures):
    """Cut pictures from the left (0) or right (1) half of each photograph."""
    X = []
    for photograph in photographs.values():
        rgb = color.gray2rgb(photograph) if photograph.ndim == 2 else photograph
        part = np.array_split(rgb, 2, axis=1)[half]
        X.extend(extract_patches_2d(part, (64, 64), max_patches=n_pictures, random_state=0))
    return np.array(X), np.repeat(list(photographs), n_pictures)


X_train, y_train = pictures(0, 8)
X_test, y_test = pictures(1, 25)
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
# Each picture with its label, the prediction, and the probability of both.
TopLossesDisplay.from_estimator(classifiers["CLCE"], X_test, y_test, n_images=8)
plt.show()
