"""Time the contrastive loss against pytorch-metric-learning and the bare matrix products.

Forward and backward on the same inputs, the candidates taking turns: this package's loss
with hardness 0 (the supervised contrastive loss) and 1, the latter also with as many
references as samples, with a loss for each anchor and with one logarithm of the
positives' mean, pytorch-metric-learning's
``SupConLoss``, and the products S = z z', S z and S' z that a gradient from a kept
matrix needs. A ratio is the median of the rounds' ratios. Memory is the highest
allocation during a step minus what was there before it.

Run ``python benchmarks/loss_speed.py [--sizes 64 512 ...] [--threads N] [--device cuda]
[--json]``; needs the ``benchmarks`` extra.
"""

import argparse
import functools
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from pytorch_metric_learning.losses import SupConLoss

from sklearn_clce import label_aware_contrastive_loss

GOALS_TIME = {64: 0.6, 512: 0.55, 2048: 0.6, 4096: 0.45}  # against pytorch-metric-learning
GOAL_PRODUCTS, GOAL_PRODUCTS_FROM = 1.25, 2048
GOAL_MEMORY, GOAL_MEMORY_AT = 0.25, 4096
METRIC_LEARNING, PRODUCTS = "pytorch-metric-learning", "bare products"
OURS = {"hardness=0": {"hardness": 0.0}, "hardness=1": {"hardness": 1.0}}
REFERENCES, EACH, MEAN = "references", "reduction='none'", "positives='mean'"


def candidates(n, device):
    generator = torch.Generator().manual_seed(n)
    embeddings = torch.randn(n, 768, generator=generator).to(device).requires_grad_()
    labels = torch.randint(100, (n,), generator=generator).to(device)
    metric_learning = SupConLoss(temperature=0.1)
    references = torch.randn(n, 768, generator=generator).to(device)
    options = OURS | {
        REFERENCES: {"references": references, "reference_labels": labels},
        EACH: {"reduction": "none"},
        MEAN: {"positives": "mean"},
    }
    steps = {
        name: functools.partial(
            label_aware_contrastive_loss, embeddings, labels, temperature=0.1, **settings
        )
        for name, settings in options.items()
    }
    steps[METRIC_LEARNING] = functools.partial(metric_learning, embeddings, labels)
    steps = {name: functools.partial(forward_and_backward, loss) for name, loss in steps.items()}
    steps[PRODUCTS] = functools.partial(bare_products, embeddings.detach())
    return steps


def forward_and_backward(loss):
    loss().sum().backward()


def bare_products(embeddings):
    similarity = embeddings @ embeddings.T  # (n, n)
    similarity @ embeddings
    similarity.T @ embeddings


def seconds(step, repeats, device):
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    synchronise()
    return (time.perf_counter() - start) / repeats


def time_in_turns(steps, rounds, repeats, device):
    for step in steps.values():
        seconds(step, repeats, device)
    timings = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            timings[name].append(seconds(step, repeats, device))
    return timings


def peak_bytes(step, device):
    step()  # allocates what stays, such as the gradient
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    # The profiler sees the same allocations whether an operator is torch's own or not.
    with torch.profiler.profile(profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [e for e in events if e["name"] == "[memory]" and e["args"]["Device Type"] == 0]
    level = peak = 0
    for change in sorted(changes, key=lambda event: event["ts"]):
        level += change["args"]["Bytes"]
        peak = max(peak, level)
    return peak


def median_ratio(timings, name, against):
    pairs = zip(timings[name], timings[against], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def measure(n, rounds, device):
    steps = candidates(n, device)
    timings = time_in_turns(steps, rounds, repeats=max(1, 512 // n), device=device)
    peaks = {name: peak_bytes(step, device) for name, step in steps.items()}
    return {
        "n": n,
        "seconds": {name: statistics.median(values) for name, values in timings.items()},
        "peak_bytes": peaks,
        "ratios": {
            name: {
                "time_to_metric_learning": median_ratio(timings, name, METRIC_LEARNING),
                "time_to_products": median_ratio(timings, name, PRODUCTS),
                "memory_to_metric_learning": peaks[name] / peaks[METRIC_LEARNING],
            }
            for name in OURS
        },
        "time_to_hardness_1": {
            name: median_ratio(timings, name, "hardness=1") for name in (REFERENCES, EACH, MEAN)
        },
        "goals": {
            "time_to_metric_learning": GOALS_TIME.get(n),
            "time_to_products": GOAL_PRODUCTS if n >= GOAL_PRODUCTS_FROM else None,
            "memory_to_metric_learning": GOAL_MEMORY if n == GOAL_MEMORY_AT else None,
        },
    }


def print_ratios(result):
    for name, ratios in result["ratios"].items():
        cells = [f"{result['n']:>6} {name:<16}"]
        for measure_name, ratio in ratios.items():
            goal = result["goals"][measure_name]
            wanted = f"(goal {goal:.2f})" if goal else ""
            cells.append(f"{measure_name.replace('_', ' ')} {ratio:.2f} {wanted:<11}")
        print("  ".join(cells).rstrip(), flush=True)
    for name, ratio in result["time_to_hardness_1"].items():
        print(f"{result['n']:>6} {name:<16}  time to hardness=1 {ratio:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(GOALS_TIME))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for n in options.sizes:
        results.append(measure(n, options.rounds, options.device))
        if not options.json:
            print_ratios(results[-1])
    if options.json:
        cuda = options.device.type == "cuda"
        device = torch.cuda.get_device_name(options.device) if cuda else "cpu"
        print(json.dumps({"device": device, "threads": options.threads, "results": results}))


if __name__ == "__main__":
    main()
