"""Time a grid search over a frozen backbone against what it could cost.

12 candidates (temperature x weight) x 5 folds over scikit-learn's digits, with the bundled
backbone at its own 224 pixels. In one run, side by side:

- (a) one embedding pass over all images: goal at most 2 times its time, and at most once where
  the features are kept already;
- (b) the same search without the store: goal at least 10 times faster. It is timed on
  ``--without`` of the 60 fits and predictions, evenly, and scaled up;
- (c) a search over scikit-learn's LogisticRegression on precomputed features with as many
  candidates: goal at most 4 times its time.

Run ``python benchmarks/search_cost.py [--images 1000] [--image-size 224] [--json]``.
"""

import argparse
import json
import tempfile
import time
import warnings

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sklearn_clce import BackboneFeatures, CLCEClassifier

GRID = {"temperature": [0.05, 0.1, 0.5], "weight": [0.0, 0.3, 0.6, 0.9]}
N_FITS = 12 * 5


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def without_store(clf, X, y, n_fits):
    """Fit and score some of the folds; return the time that all 60 would take."""
    folds = list(StratifiedKFold(5).split(X, y))[:n_fits]
    start = time.perf_counter()
    for train, test in folds:
        clf.set_params(memory=joblib.Memory(None)).fit(X[train], y[train]).score(X[test], y[test])
    return (time.perf_counter() - start) * N_FITS / len(folds)


def measure(n_images, *, n_without=1, **parameters):
    """Time the searches; parameters are those of the classifier, such as ``image_size``."""
    digits = load_digits()
    X, y = digits.images[:n_images] / 16, digits.target[:n_images]
    of_features = {k: v for k, v in parameters.items() if k in BackboneFeatures().get_params()}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"batch_size": 128, "random_state": 0} | parameters
        clf = CLCEClassifier(trainable="head", **settings)
        clf.fit(X[:64], y[:64])  # warm up
        once = BackboneFeatures(**of_features, memory=joblib.Memory(None))
        one_pass, features = timed(lambda: once.transform(X))
        clf.set_params(memory=folder)
        search, _ = timed(lambda: GridSearchCV(clf, GRID, cv=5).fit(X, y))
        again, _ = timed(lambda: GridSearchCV(clf, GRID, cv=5).fit(X, y))
    naive = without_store(clf, X, y, n_without)
    candidates = {"C": np.logspace(-4, 1, 12)}
    linear = LogisticRegression(max_iter=200)
    with warnings.catch_warnings():  # of candidates that need more iterations
        warnings.simplefilter("ignore", ConvergenceWarning)
        logistic, _ = timed(lambda: GridSearchCV(linear, candidates, cv=5).fit(features, y))
    return {
        "seconds": {
            "search": search,
            "search_again": again,
            "one_pass": one_pass,
            "search_without_store": naive,
            "logistic_regression": logistic,
        },
        "against_one_pass": search / one_pass,
        "goal_against_one_pass": 2,
        "search_again_against_one_pass": again / one_pass,
        "goal_search_again_against_one_pass": 1,
        "faster_than_without_store": naive / search,
        "goal_faster_than_without_store": 10,
        "search_again_against_logistic_regression": again / logistic,
        "goal_against_logistic_regression": 4,
        "images": len(X),
        "image_size": clf.image_size,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--without", type=int, default=1, help="fits timed without the store")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = measure(options.images, image_size=options.image_size, n_without=options.without)
    if options.json:
        print(json.dumps(result))
        return
    for name, seconds in result["seconds"].items():
        print(f"{name:<22} {seconds:8.1f} s")
    print(f"search / one pass:               {result['against_one_pass']:6.2f} (at most 2)")
    again = result["search_again_against_one_pass"]
    print(f"the same again / one pass:       {again:6.2f} (at most 1)")
    print(
        f"search without store / with it:  {result['faster_than_without_store']:6.2f} (at least 10)"
    )
    against_logistic = result["search_again_against_logistic_regression"]
    print(f"head search / logistic search:   {against_logistic:6.2f} (at most 4)")


if __name__ == "__main__":
    main()
