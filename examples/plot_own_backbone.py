"""
========================
Your own backbone module
========================

A backbone is any ``nn.Module`` that maps a batch of images to features. Here is one for digits,
trained from scratch. A network that you have pretrained works the same way.
"""

# %%
# A module: images in, features out
# ---------------------------------
# It gets RGB images of shape (n, 3, H, W) with pixels in 0..1. It returns features of shape (n,
# n_features), without a classifier. The attribute ``pretrained_cfg``, in the format of timm,
# describes the images that it expects. Without it, images keep their own size and are not
# normalised.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score, train_test_split
from torch import nn

from sklearn_clce import CLCEClassifier, TrainingCurveDisplay


class DigitNet(nn.Module):
    """Three convolutions, pooled over height and width."""

    pretrained_cfg = {
        "input_size": (1, 16, 16),
        "mean": (0.3,),
        "std": (0.35,),
        "crop_pct": 1.0,
    }

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.ReLU(),
        )

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3))  # (n, 128)


# %%
# An estimator like any other
# ---------------------------
# The module is copied and never changed: each fit, fold and clone begins with the weights that you
# passed. ``early_stopping`` sets samples aside and keeps the best weights.
digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(
    digits.images / 16, digits.target, train_size=600, stratify=digits.target, random_state=0
)
clf = CLCEClassifier(
    DigitNet(), max_epochs=15, learning_rate=5e-3, early_stopping=True, random_state=0
)
clf.fit(X_train, y_train)
print(f"accuracy {clf.score(X_test, y_test):.1%}; {clf.backbone_config_}")

TrainingCurveDisplay.from_estimator(clf).ax_.set_title("A small network from scratch")
plt.show()

# %%
# Cross-validation clones it
# --------------------------
clf.set_params(early_stopping=False)
scores = cross_val_score(clf, X_train, y_train, cv=2)
print("two folds of 300 images each:", scores.round(3))
