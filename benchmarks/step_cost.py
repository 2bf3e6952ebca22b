"""Time a training step with and without the contrastive term, by batch size.

Two nets that differ only in ``weight`` (0 and 0.5) take turns at the same batches: a whole
EfficientNet-Lite0 on small images, and a head on its frozen features. One run, medians, and the
ratio of each pair.

Run ``python benchmarks/step_cost.py [--device cuda] [--threads 1] [--csv FILE] [--json]``.
"""

import argparse
import csv
import json
import statistics
import time

import numpy as np
import torch

from sklearn_clce import CLCEClassifier

N_CLASSES = 10
N_FEATURES = 1280
IMAGE_SIZE = 64
HEAD, WHOLE = "head on features", f"EfficientNet-Lite0, {IMAGE_SIZE} px"
HEADER = ["network", "batch size", "cross-entropy, ms", "CLCE, ms", "ratio"]
BATCH_SIZES = {WHOLE: [16, 32, 64, 128, 256], HEAD: [64, 256, 1024, 4096]}


def data(kind, n):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % N_CLASSES
    if kind == HEAD:
        return rng.standard_normal((n, N_FEATURES), dtype=np.float32), labels
    return rng.random((n, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32), labels


def make_net(kind, weight, device):
    """Return a net ready to train, made by fitting one small batch."""
    X, y = data(kind, 2 * N_CLASSES)
    clf = CLCEClassifier(
        "precomputed" if kind == HEAD else "efficientnet_lite0",
        projection_dim=256 if kind == HEAD else None,
        image_size=IMAGE_SIZE,
        weight=weight,
        max_epochs=1,
        augment=None,
        device=device,
        random_state=0,
    )
    return clf.fit(X, y).net_


def make_batch(kind, n, net):
    X, y = map(torch.as_tensor, data(kind, n))
    X = X if kind == HEAD else X.permute(0, 3, 1, 2).contiguous()
    return X.to(net.device), (y, torch.ones(n))


def seconds(net, batch):
    synchronise = torch.cuda.synchronize if "cuda" in str(net.device) else lambda: None
    synchronise()
    start = time.perf_counter()
    net.train_step(batch)
    synchronise()
    return time.perf_counter() - start


def measure(kind, n, device, rounds):
    nets = {weight: make_net(kind, weight, device) for weight in (0.0, 0.5)}
    batch = make_batch(kind, n, nets[0.0])
    timings = {weight: [] for weight in nets}
    for _ in range(rounds + 1):
        for weight, net in nets.items():
            timings[weight].append(seconds(net, batch))
    without, with_term = (values[1:] for values in timings.values())  # the first warms up
    ratios = [b / a for a, b in zip(without, with_term, strict=True)]
    return {
        "network": kind,
        "batch_size": n,
        "ms_cross_entropy": round(1e3 * statistics.median(without), 1),
        "ms_clce": round(1e3 * statistics.median(with_term), 1),
        "ratio": round(statistics.median(ratios), 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--csv", help="write the table here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for kind, sizes in BATCH_SIZES.items():
        for n in sizes:
            rows.append(measure(kind, n, options.device, options.rounds))
            if not options.json:
                print(*rows[-1].values(), sep="\t", flush=True)
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([HEADER, *(row.values() for row in rows)])
    if options.json:
        print(json.dumps({"device": options.device, "threads": options.threads, "rows": rows}))


if __name__ == "__main__":
    main()
