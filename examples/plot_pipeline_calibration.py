"""
=======================================
A pipeline, calibration and a ROC curve
=======================================

The classifier works with the tools of scikit-learn. Here a pipeline of frozen features and a head
is calibrated on held-out images, and judged with the displays of scikit-learn.
"""

# %%
# Stone or plant, from small, noisy images
# ----------------------------------------
# Images of 20 x 20 pixels are cut from photographs of brick, gravel, grass and a flower. Noise
# makes the task hard enough for probabilities to matter.
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from photographs import cut
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import RocCurveDisplay, brier_score_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_clce import BackboneFeatures, CLCEClassifier

rng = np.random.default_rng(0)
images, _ = cut(["brick", "gravel", "grass", "flower"], size=20, n=300)
X = images.mean(axis=-1) / 255  # grey
X = np.clip(X + rng.normal(scale=0.15, size=X.shape), 0, 1)
y = np.repeat(["stone", "stone", "plant", "plant"], 300)
X_train, X_rest, y_train, y_rest = train_test_split(
    X, y, train_size=400, stratify=y, random_state=0
)
X_calibration, X_test, y_calibration, y_test = train_test_split(
    X_rest, y_rest, train_size=400, stratify=y_rest, random_state=0
)

# %%
# A pipeline: images to features, features to probabilities
# ---------------------------------------------------------
# ``backbone="precomputed"`` means that X holds features.
# :class:`~sklearn.calibration.CalibratedClassifierCV` learns to correct the probabilities of the
# fitted pipeline, which :class:`~sklearn.frozen.FrozenEstimator` leaves unchanged. ``memory``
# caches the features, so the backbone runs once per image.
folder = tempfile.TemporaryDirectory()
pipeline = make_pipeline(
    BackboneFeatures(image_size=64, memory=folder.name),
    CLCEClassifier("precomputed", max_epochs=20, random_state=0),
)
pipeline.fit(X_train, y_train)
calibrated = CalibratedClassifierCV(FrozenEstimator(pipeline), method="isotonic")
models = {"as trained": pipeline, "calibrated": calibrated}
calibrated.fit(X_calibration, y_calibration)

# %%
# The probabilities before and after
# ----------------------------------
# The Brier score is the mean squared error of the probabilities: lower is better. On the diagonal,
# a probability of 0.8 is right in 80 % of the cases.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
styles = {"as trained": ("o", "#0072B2"), "calibrated": ("s", "#D55E00")}
for name, model in models.items():
    marker, colour = styles[name]
    probability = model.predict_proba(X_test)[:, 1]
    brier = brier_score_loss(y_test, probability, pos_label="stone")
    print(f"{name}: accuracy {model.score(X_test, y_test):.1%}, Brier score {brier:.3f}")
    CalibrationDisplay.from_predictions(
        y_test,
        probability,
        pos_label="stone",
        n_bins=8,
        strategy="quantile",
        name=f"{name} (Brier {brier:.3f})",
        ax=left,
        marker=marker,
        color=colour,
    )
    RocCurveDisplay.from_estimator(model, X_test, y_test, name=name, pos_label="stone", ax=right)
for line, (_, colour), dash in zip(right.lines, styles.values(), ["-", "--"], strict=True):
    line.set(color=colour, linestyle=dash)
right.legend(loc="lower right")
left.set_title("Calibration")
right.set_title("ROC curve: stone against plant")
plt.show()
folder.cleanup()
