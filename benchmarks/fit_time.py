"""Time whole fits at the defaults as data grow: how long is it until a classifier is there?

Pictures are crops of scikit-learn's two photographs, read from files, at the backbone's own size;
labels are made up. Time is seconds of processor time on one core, so that other work on the machine
does not count; on a GPU, seconds. A fit of many epochs on more than ``--whole`` pictures is
measured for two epochs, of which the second stands for those that follow.

Run ``python benchmarks/fit_time.py --json > benchmarks/results/fit_time.json`` to measure, with
``--sizes 10000`` for another number of pictures, and
``python benchmarks/fit_time.py --csv docs/tables/fit_time.csv`` to write the table of that file.
"""

import argparse
import csv
import json
import tempfile
import time
import warnings
from itertools import product
from pathlib import Path

import joblib
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from skorch.callbacks import Callback

from sklearn_clce import CLCEClassifier
from sklearn_clce._training.plan import MAX_EPOCHS

RESULTS = Path(__file__).parent / "results" / "fit_time.json"
SIZES, CLASSES, TRAINABLE = (100, 1000), (7, 100), ("head", "auto")
WHOLE = 200  # pictures of which all epochs are measured
N_PREDICTED = 100
SIDE = 224


def draw(folder, n_images, n_classes):
    """Write crops of the two photographs; return their paths and labels."""
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    paths = []
    for number in range(n_images):
        photograph = photographs[number % 2]
        top, left = (rng.integers(0, length - SIDE) for length in photograph.shape[:2])
        paths.append(f"{folder}/{number}.jpg")
        Image.fromarray(photograph[top : top + SIDE, left : left + SIDE]).save(paths[-1])
    return paths, np.arange(n_images) % n_classes


class EpochTimes(Callback):
    """Notes when each epoch ends."""

    def __init__(self, clock):
        self.clock, self.times = clock, []

    def on_epoch_end(self, net, **kwargs):
        self.times.append(self.clock())


def measure(trainable, n_images, n_classes, *, device="cpu", whole=WHOLE, **settings):
    """Time a fit and a prediction; ``settings`` are further parameters of the classifier."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    epochs = EpochTimes(clock)
    clf = CLCEClassifier(
        trainable=trainable,
        random_state=0,
        device=device,
        memory=joblib.Memory(None),
        callbacks=[epochs],
        **settings,
    )
    in_part = trainable != "head" and n_images > whole
    if in_part:
        clf.set_params(max_epochs=2)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes of one picture
        X, y = draw(folder, n_images, n_classes)
        start = clock()
        clf.fit(X, y)
        fitted = clock()
        clf.predict(X[:N_PREDICTED])
        predicted = clock() - fitted
    seconds = fitted - start
    if in_part:
        seconds += (MAX_EPOCHS - 2) * (epochs.times[1] - epochs.times[0])
    return {
        "trainable": trainable,
        "pictures": n_images,
        "classes": n_classes,
        "epochs": MAX_EPOCHS if in_part else clf.n_iter_,
        "fit_seconds": seconds,
        "is_estimate": in_part,
        "predict_100_seconds": predicted * N_PREDICTED / min(N_PREDICTED, n_images),
    }


def write_table(results, path):
    """Write the table of the page."""
    header = ["setting", "images", "classes", "epochs", "fit, s", "prediction of 100, s"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in results["fits"]:
            fit, prediction = (
                f"{float(f'{row[key]:.2g}'):g}" for key in ("fit_seconds", "predict_100_seconds")
            )
            fit = f"about {fit}" if row["is_estimate"] else fit
            name = f'``trainable="{row["trainable"]}"``'
            counts = (f"{row[key]:,}" for key in ("pictures", "classes", "epochs"))
            writer.writerow([name, *counts, fit, prediction])


def main():
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="measure, and print one JSON object")
    parser.add_argument("--csv", type=Path, help="write the table of the committed figures")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="numbers of pictures")
    parser.add_argument("--classes", nargs="+", type=int, default=CLASSES)
    parser.add_argument("--trainable", nargs="+", choices=[*TRAINABLE, "all"], default=TRAINABLE)
    parser.add_argument("--whole", type=int, default=WHOLE, help="pictures to run all epochs on")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.csv:
        write_table(json.loads(RESULTS.read_text()), options.csv)
        return
    torch.set_num_threads(1)
    cases = product(options.trainable, options.sizes, options.classes)
    fits = [measure(*case, device=options.device, whole=options.whole) for case in cases]
    surroundings = {"device": options.device, "cores": 1, "torch": torch.__version__}
    print(json.dumps({**surroundings, "fits": fits}, indent=1))


if __name__ == "__main__":
    main()
