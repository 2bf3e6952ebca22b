"""Classifiers on the features of a frozen backbone: what a user would do instead."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier

STRENGTHS = np.logspace(-4, 4, 9)


def make_baseline(method, seed):
    """Make the classifier that learns from features."""
    if method == "logistic":
        return LogisticRegression()
    if method == "logistic_cv":
        regression = LogisticRegression(max_iter=1000, random_state=seed)
        return GridSearchCV(regression, {"C": STRENGTHS}, scoring="neg_log_loss")
    return KNeighborsClassifier()
