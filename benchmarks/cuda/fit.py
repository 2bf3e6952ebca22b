"""``fit`` against a hand-written loop, the pipeline's share of it, and waits in a step."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from itertools import pairwise

from sklearn_clce import CLCEClassifier

from ..fit_overhead import Task, estimator, hand_written, pictures
from .null_backbone import NullBackbone
from .plan import BUNDLED, Plan, is_pretrained
from .synchronisation import Steps, waits_of_a_step

N_STEPS = 8  # in which waits are counted


def measure(plan: Plan) -> dict:
    """Measure each backbone in each precision."""
    rows = [
        measure_task(make_task(backbone, precision, plan), plan)
        for backbone in plan.backbones
        for precision in plan.precisions
    ]
    cuda = plan.device.type == "cuda"
    return {"rows": rows, "synchronisations": count_waits(plan) if cuda else None}


def make_task(backbone: str, precision: str, plan: Plan) -> Task:
    """Say what both sides train."""
    return Task(
        backbone=backbone,
        pretrained=is_pretrained(backbone),
        image_size=plan.image_size,
        batch_size=plan.batch_size,
        epochs=plan.epochs,
        device=str(plan.device),
        precision=precision,
        workers=plan.workers,
    )


def measure_task(task: Task, plan: Plan) -> dict:
    """Train in a loop, with ``fit``, and with ``fit`` on a backbone that costs nothing."""
    X, y = pictures(plan.n_images, plan.side)
    null = replace(task, backbone=NullBackbone(task.backbone, task.image_size))
    loop, ours, pipeline = (
        epoch_seconds(train(X, y, one))
        for train, one in ((hand_written, task), (estimator, task), (estimator, null))
    )
    return {
        "backbone": task.backbone,
        "weights": "bundled" if task.pretrained else "random",
        "precision": task.precision,
        "images_per_second": len(X) / ours,
        "images_per_second_loop": len(X) / loop,
        "speed_against_loop": loop / ours,
        "pipeline_share": pipeline / ours,
    }


def epoch_seconds(times: list[float]) -> float:
    """Return the median time of an epoch: not the set-up, nor the first, which warms up."""
    return statistics.median(end - begin for begin, end in pairwise(times[2:]))


def count_waits(plan: Plan) -> dict:
    """Count the synchronisations in a step of a whole network, and of a head."""
    X, y = pictures(N_STEPS * plan.batch_size, 32)

    def fit(steps: Steps, trainable: str) -> None:
        CLCEClassifier(
            BUNDLED,
            pretrained=is_pretrained(BUNDLED),
            trainable=trainable,
            image_size=32,
            batch_size=plan.batch_size,
            max_epochs=1,
            sampler="shuffle",
            device=plan.device,
            callbacks=[steps],
            random_state=0,
        ).fit(X, y)

    return {
        trainable: dict(waits_of_a_step(partial(fit, trainable=trainable)))
        for trainable in ("all", "head")
    }
