"""Time the n-th ``partial_fit``, and measure its pickle: going on costs what beginning does.

A head on features and a small convolution on digits are each trained call by call, on the same
samples. A row for each of some calls: the median time of the calls around it, against that of the
first ones, and the size of the pickle.

Run ``python benchmarks/partial_fit_cost.py [--calls 200] [--threads 1] [--json]``.
"""

import argparse
import json
import pickle
import statistics
import time

import torch
from sklearn.datasets import load_digits
from torch import nn

from sklearn_clce import CLCEClassifier

AROUND = 10  # calls whose median is taken


class SmallNet(nn.Module):
    """One convolution and dropout."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3))


def estimators():
    """Name an estimator and what it takes."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:200] / 16, y[:200]
    head = CLCEClassifier("precomputed", random_state=0)
    net = CLCEClassifier(SmallNet(), augment=None, random_state=0)
    return {"head on features": (head, X, y), "small network": (net, X.reshape(-1, 8, 8), y)}


def measure(calls, warm_start=False):
    """Return a row for the first calls, the middle and the last of each estimator."""
    rows = []
    for name, (clf, X, y) in estimators().items():
        clf.set_params(warm_start=warm_start)  # whose pickles hold the optimizer's state
        clf.partial_fit(X, y, classes=range(10))  # warms up
        seconds, sizes = [], []
        for _ in range(calls):
            start = time.perf_counter()
            clf.partial_fit(X, y)
            seconds.append(time.perf_counter() - start)
            sizes.append(len(pickle.dumps(clf)))
        first = statistics.median(seconds[:AROUND])
        for call in sorted({AROUND, calls // 2, calls}):
            median = statistics.median(seconds[max(0, call - AROUND) : call])
            rows.append(
                {
                    "estimator": name,
                    "call": call,
                    "ms": round(1e3 * median, 2),
                    "against_first": round(median / first, 3),
                    "pickle_bytes": sizes[call - 1],
                }
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = measure(options.calls)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(
            f"{row['estimator']:18} call {row['call']:4}: {row['ms']:8.2f} ms, "
            f"{row['against_first']:.2f} of the first, {row['pickle_bytes']:,} bytes"
        )


if __name__ == "__main__":
    main()
