"""Classifiers on the features of a frozen backbone: what a user would do instead."""

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC

STRENGTHS = np.logspace(-4, 4, 9)


def make_baseline(method, seed):
    """Make the classifier that learns from features."""
    if method == "logistic":
        return LogisticRegression()
    if method == "logistic_cv":
        regression = LogisticRegression(max_iter=1000, random_state=seed)
        return GridSearchCV(regression, {"C": STRENGTHS}, scoring="neg_log_loss")
    if method == "discriminant":
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    if method == "svc":
        vectors = make_pipeline(StandardScaler(), CalibratedClassifierCV(SVC(), ensemble=False))
        return GridSearchCV(vectors, {"calibratedclassifiercv__estimator__C": STRENGTHS[2:]})
    if method == "class_mean":
        return make_pipeline(Normalizer(), NearestCentroid())
    return KNeighborsClassifier()
