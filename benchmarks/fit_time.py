"""Time whole fits at the defaults: how long is it until a classifier is there?

Pictures are crops of scikit-learn's two photographs, read from files, at the backbone's own size.
Time is seconds of processor time on one core, so that other work on the machine does not count.

Run ``python benchmarks/fit_time.py --json > benchmarks/results/fit_time.json`` to measure, and
``python benchmarks/fit_time.py --csv docs/tables/fit_time.csv`` to write the table of that file.
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from sklearn_clce import CLCEClassifier

RESULTS = Path(__file__).parent / "results" / "fit_time.json"
CASES = [
    ("head", 72),
    ("head", 500),
    ("auto", 72),
    ("all", 72),
]  # what trains, on how many pictures
SIDE = 224


def draw(folder, n_images):
    """Write crops of the two photographs; return their paths and labels."""
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    paths, labels = [], []
    for number in range(n_images):
        photograph = photographs[number % 2]
        top, left = (rng.integers(0, length - SIDE) for length in photograph.shape[:2])
        path = f"{folder}/{number}.jpg"
        Image.fromarray(photograph[top : top + SIDE, left : left + SIDE]).save(path)
        paths.append(path)
        labels.append(number % 2)
    return paths, labels


def measure(trainable, n_images):
    with tempfile.TemporaryDirectory() as folder:
        X, y = draw(folder, n_images)
        nothing_kept = joblib.Memory(None)
        clf = CLCEClassifier(trainable=trainable, random_state=0, device="cpu", memory=nothing_kept)
        start = time.process_time()
        clf.fit(X, y)
        fitted = time.process_time()
        clf.predict(X[:50])
        return {
            "trainable": trainable,
            "pictures": n_images,
            "epochs": clf.n_iter_,
            "fit_seconds": fitted - start,
            "predict_50_seconds": time.process_time() - fitted,
        }


def write_table(results, path):
    header = ["what trains", "pictures", "epochs", "fit, s", "prediction of 50, s"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in results["fits"]:
            times = [
                f"{float(f'{row[key]:.2g}'):g}" for key in ("fit_seconds", "predict_50_seconds")
            ]
            name = f'``trainable="{row["trainable"]}"``'
            writer.writerow([name, row["pictures"], row["epochs"], *times])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="measure, and print one JSON object")
    parser.add_argument("--csv", type=Path, help="write the table of the committed figures")
    options = parser.parse_args()
    if options.csv:
        write_table(json.loads(RESULTS.read_text()), options.csv)
        return
    torch.set_num_threads(1)
    fits = [measure(trainable, n_images) for trainable, n_images in CASES]
    print(json.dumps({"cores": 1, "torch": torch.__version__, "fits": fits}, indent=1))


if __name__ == "__main__":
    main()
