"""
====================================
Explain a prediction: where it looks
====================================

:class:`~sklearn_clce.AttributionDisplay` shows on which parts of an image a prediction depends. So
you find a classifier that is right for a wrong reason, such as the colour of the background.
"""

# %%
# Two classes, cut from two photographs
# -------------------------------------
# The classifier learns what a temple and a flower look like, from twenty small cuts of each.
import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from sklearn_clce import AttributionDisplay, CLCEClassifier

temple, flower = load_sample_images().images  # (427, 640, 3) each
X = np.concatenate(
    [
        extract_patches_2d(photograph, (160, 160), max_patches=20, random_state=0)
        for photograph in (temple, flower)
    ]
)
y = np.repeat(["temple", "flower"], 20)
clf = CLCEClassifier(trainable="head", random_state=0).fit(X, y)

# %%
# One picture, two classes
# ------------------------
# A new picture has the temple on its left and the flower on its right. What is coloured speaks for
# the class above it: for "temple" that should be the left half, for "flower" the right one.
both = np.concatenate([temple[100:420, 130:290], flower[60:380, 230:390]], axis=1)
display = AttributionDisplay.from_estimator(clf, [both, both], target=["temple", "flower"])
plt.show()

# %%
# The numbers behind it
# ---------------------
# ``attributions`` holds a map for each picture, as fine as the last feature map of the backbone.
# Above 0 a place speaks more for the class than the mean of the picture does.
for target, places in zip(display.targets, display.attributions, strict=True):
    light = places.clip(0)
    left = light[:, : light.shape[1] // 2].sum() / light.sum()
    print(f"{target}: a map of {places.shape}, {left:.0%} of what speaks for it is on the left")

# %%
# Without ``target`` each picture is shown with the class that is predicted.
AttributionDisplay.from_estimator(clf, [temple, flower])
plt.show()
