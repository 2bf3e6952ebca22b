"""
====================================
Explain a prediction: where it looks
====================================

:class:`~sklearn_clce.AttributionDisplay` shows which parts of an image a prediction depends on. It
reveals a classifier that is right for a wrong reason, such as the colour of the background.
"""

# %%
# Two classes, cut from two photographs
# -------------------------------------
# The classifier learns a temple and a flower from twenty small crops of each.
import numpy as np
from matplotlib import pyplot as plt
from photographs import cut
from sklearn.datasets import load_sample_images

from sklearn_clce import AttributionDisplay, CLCEClassifier

temple, flower = load_sample_images().images  # (427, 640, 3) each
X, y = cut(["temple", "flower"], size=160, n=20)
clf = CLCEClassifier(trainable="head", random_state=0).fit(X, y)

# %%
# One image, two classes
# ----------------------
# A new image has the temple on its left and the flower on its right. Coloured regions speak for the
# class above the image: for "temple" that should be the left half, for "flower" the right one.
both = np.concatenate([temple[100:420, 130:290], flower[60:380, 230:390]], axis=1)
display = AttributionDisplay.from_estimator(clf, [both, both], target=["temple", "flower"])
plt.show()

# %%
# The numbers behind it
# ---------------------
# ``attributions`` holds a map for each image, with the resolution of the last feature map of the
# backbone. Above 0, a place speaks more for the class than the mean of the image.
for target, places in zip(display.targets, display.attributions, strict=True):
    light = places.clip(0)
    left = light[:, : light.shape[1] // 2].sum() / light.sum()
    print(f"{target}: a map of {places.shape}, {left:.0%} of what speaks for it is on the left")

# %%
# Without ``target`` each image is shown with the class that is predicted.
AttributionDisplay.from_estimator(clf, [temple, flower])
plt.show()
