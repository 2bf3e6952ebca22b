"""``predict_proba`` against a bare timm loop, and the pipeline's share of it."""

from __future__ import annotations

import statistics

from ..fit_overhead import pictures
from ..predict_throughput import fitted, measure_speed, seconds
from .null_backbone import NullBackbone
from .plan import Plan, is_pretrained


def measure(plan: Plan) -> dict:
    """Measure each backbone in each precision."""
    return {
        "rows": [
            measure_backbone(backbone, precision, plan)
            for backbone in plan.backbones
            for precision in plan.precisions
        ]
    }


def measure_backbone(backbone: str, precision: str, plan: Plan) -> dict:
    """Predict in turns with the loop, then with a backbone that costs nothing."""
    n_images = max(plan.batch_size, plan.n_images // 4)
    settings = {
        "image_size": plan.image_size,
        "batch_size": plan.batch_size,
        "device": str(plan.device),
        "precision": precision,
    }
    rounds = measure_speed(
        plan.rounds,
        n_images,
        plan.side,
        backbone=backbone,
        pretrained=is_pretrained(backbone),
        **settings,
    )
    ours = statistics.median(ours for _, ours in rounds)
    X, _ = pictures(n_images, plan.side)
    clf = fitted(NullBackbone(backbone, plan.image_size), **settings)
    pipeline = statistics.median(seconds(clf.predict_proba, X) for _ in range(plan.rounds))
    return {
        "backbone": backbone,
        "weights": "bundled" if is_pretrained(backbone) else "random",
        "precision": precision,
        "images_per_second": n_images / ours,
        "speed_against_loop": statistics.median(loop / ours for loop, ours in rounds),
        "pipeline_share": pipeline / ours,
    }
