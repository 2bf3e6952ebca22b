"""Forward and backward of the criterion by batch size, in time and memory."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from pytorch_metric_learning.losses import SupConLoss
from torch._dynamo.exc import TorchDynamoException

from sklearn_clce import label_aware_contrastive_loss
from sklearn_clce.losses._forms import TILES_FROM

from ..loss_speed import bare_products, median_ratio, peak_bytes, time_in_turns
from .plan import Plan
from .synchronisation import waits

WIDTH, N_CLASSES, TEMPERATURE = 768, 100, 0.1
OURS, METRIC_LEARNING, PRODUCTS = "criterion", "pytorch-metric-learning", "bare products"
MEAN = "criterion, positives='mean'"
MATRIX, BLOCKS, COMPILED = "matrix", "blocks", "plain, compiled"


def measure(plan: Plan) -> dict:
    """Measure each batch size, and find where blocks begin to pay."""
    rows = [measure_size(n, plan) for n in plan.criterion_sizes]
    faster = [row["n"] for row in rows if row["ms"].get(BLOCKS, 0) < row["ms"].get(MATRIX, 1e9)]
    return {
        "width": WIDTH,
        "rows": rows,
        "blocks_from": TILES_FROM[plan.device.type],
        "blocks_faster_at": faster,
    }


def measure_size(n: int, plan: Plan) -> dict:
    """Measure all candidates in turns, but for those that want more memory, or can't compile."""
    steps, left_out = {}, {}
    for name, step in candidates(n, plan).items():
        try:
            step()
            steps[name] = step
        except torch.OutOfMemoryError:
            left_out[name] = "out of memory"
        except TorchDynamoException as error:
            left_out[name] = type(error).__name__
        if plan.device.type == "cuda":
            torch.cuda.empty_cache()
    timings = time_in_turns(steps, plan.rounds, max(1, 512 // n), plan.device)
    cuda = plan.device.type == "cuda"
    return {
        "n": n,
        "ms": {name: 1e3 * statistics.median(values) for name, values in timings.items()},
        "peak_mib": {name: peak_bytes(step, plan.device) / 2**20 for name, step in steps.items()},
        "time_against": {
            other: median_ratio(timings, OURS, other)
            for other in (METRIC_LEARNING, PRODUCTS)
            if {OURS, other} <= timings.keys()
        },
        "left_out": left_out,
        "synchronisations": dict(waits(steps[OURS])) if cuda and OURS in steps else None,
    }


def candidates(n: int, plan: Plan) -> dict[str, Callable[[], object]]:
    """Make a step for each candidate, forward and backward on the same embeddings."""
    generator = torch.Generator().manual_seed(n)
    embeddings = torch.randn(n, WIDTH, generator=generator).to(plan.device).requires_grad_()
    labels = torch.randint(N_CLASSES, (n,), generator=generator).to(plan.device)
    loss = label_aware_contrastive_loss

    def backward(loss: Callable, **settings: object) -> None:
        loss(embeddings, labels, **settings).backward()

    def backward_by_matrix() -> None:
        with mock.patch.dict(TILES_FROM, {plan.device.type: sys.maxsize}):
            backward(loss, temperature=TEMPERATURE)

    steps = {
        OURS: partial(backward, loss, temperature=TEMPERATURE),
        MEAN: partial(backward, loss, temperature=TEMPERATURE, positives="mean"),
        MATRIX: backward_by_matrix,
        BLOCKS: partial(backward, loss, temperature=TEMPERATURE, form="tiles"),
        METRIC_LEARNING: partial(backward, SupConLoss(temperature=TEMPERATURE)),
        PRODUCTS: partial(bare_products, embeddings.detach()),
    }
    if n in plan.compiled_sizes:
        torch._dynamo.reset()
        compiled = torch.compile(loss, dynamic=False)
        steps[COMPILED] = partial(backward, compiled, temperature=TEMPERATURE, form="plain")
    return steps
