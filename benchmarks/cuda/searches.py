"""Searches: a grid of heads over kept features, and two processes on one device."""

from __future__ import annotations

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from sklearn_clce import CLCEClassifier

from ..search_cost import measure as measure_search
from ..search_cost import timed
from .plan import BUNDLED, Plan, is_pretrained

GRID = {"temperature": [0.1, 0.5], "weight": [0.0, 0.5]}


def measure_head_grid(plan: Plan) -> dict:
    """Search 12 candidates in 5 folds, against one pass over the images and other searches."""
    return measure_search(
        plan.n_grid_images,
        image_size=plan.image_size,
        pretrained=is_pretrained(BUNDLED),
        device=str(plan.device),
        batch_size=plan.batch_size,
        max_epochs=plan.grid_epochs,
    )


def measure_two_processes(plan: Plan) -> dict:
    """Search with one process and with two on the same device: they must agree."""
    digits = load_digits()
    X, y = digits.images[: plan.n_grid_images] / 16, digits.target[: plan.n_grid_images] % 2
    clf = CLCEClassifier(
        BUNDLED,
        pretrained=is_pretrained(BUNDLED),
        trainable="head",
        image_size=plan.image_size,
        max_epochs=plan.grid_epochs,
        device=str(plan.device),
        memory=joblib.Memory(None),
        random_state=0,
    )
    alone, one = timed(lambda: GridSearchCV(clf, GRID, cv=3, n_jobs=1).fit(X, y))
    shared, two = timed(lambda: GridSearchCV(clf, GRID, cv=3, n_jobs=2).fit(X, y))
    scores = [
        np.stack([search.cv_results_[f"split{fold}_test_score"] for fold in range(3)])
        for search in (one, two)
    ]
    return {
        "fits": scores[0].size,
        "failed_fits": int(np.isnan(scores[1]).sum()),
        "largest_difference": float(np.nanmax(np.abs(scores[0] - scores[1]))),
        "same_best": one.best_params_ == two.best_params_,
        "time_against_one_process": shared / alone,
    }
