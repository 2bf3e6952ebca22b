"""Measure what ``trainable="lora"`` saves and costs, against all and the last two blocks.

Memory is the peak of a fresh process that takes one step on eight pictures, with a large backbone
and a small one, of random weights; most of a small one's is that of Python and PyTorch. Accuracy is
that of the small one, from ten pictures a class, on folders of pictures, one folder for each class
in them. One thread.

Run ``python benchmarks/low_rank.py``, with ``--weights vit.safetensors FOLDER...`` for accuracy.
"""

import argparse
import resource
import subprocess
import sys
import time
from itertools import product

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from sklearn_clce import CLCEClassifier, load_image_folder

SETTINGS = ["all", "2", "lora"]
LARGE, SMALL = "beit", "vit_tiny_patch16_224"
BATCH_SIZE = 8
N_TRAINING, N_TEST = 10, 20  # of each class


def trainable(setting):
    """Return the parameter that a word stands for."""
    return int(setting) if setting.isdigit() else setting


def measure_step(backbone, setting, checkpointing):
    """Print the peak of this process's memory, and how much trains, after a step."""
    torch.set_num_threads(1)
    X = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, 224, 224, 3), dtype=np.uint8)
    clf = CLCEClassifier(
        backbone,
        pretrained=False,
        trainable=trainable(setting),
        batch_size=BATCH_SIZE,
        gradient_checkpointing=checkpointing,
        random_state=0,
        device="cpu",
    )
    start = time.process_time()
    clf.partial_fit(X, np.arange(BATCH_SIZE) % 2, classes=[0, 1])
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    trained = sum(p.numel() for p in clf.module_.parameters() if p.requires_grad)
    print(
        f"{backbone:22} trainable={setting:4} {checkpointing=} peak {peak:5.2f} GiB, "
        f"{trained / 1e6:6.2f} million parameters train, {seconds:.0f} s of processor",
        flush=True,
    )


def some_of_each(paths, labels, n, seed):
    """Split off n pictures of each class."""
    n_classes = len(np.unique(labels))
    return train_test_split(
        paths, labels, train_size=n * n_classes, stratify=labels, random_state=seed
    )


def measure_accuracy(folder, weights, epochs, seeds):
    """Print accuracy on a folder of pictures."""
    paths, labels = load_image_folder(folder)
    for setting in SETTINGS:
        scores, seconds = [], time.process_time()
        for seed in range(seeds):
            X, rest, y, rest_labels = some_of_each(paths, labels, N_TRAINING, seed)
            X_test, _, y_test, _ = some_of_each(rest, rest_labels, N_TEST, seed)
            clf = CLCEClassifier(
                SMALL,
                pretrained=weights,
                trainable=trainable(setting),
                max_epochs=epochs,
                random_state=seed,
                device="cpu",
            )
            scores.append(clf.fit(X, y).score(X_test, y_test))
        print(
            f"{SMALL:22} trainable={setting:4} {folder}: {np.mean(scores):.1%} "
            f"({seeds} draws, {epochs} epochs), {time.process_time() - seconds:.0f} s of processor",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--weights")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        measure_step(*options.step, options.checkpointing)
        sys.exit()
    for name, setting in product([LARGE, SMALL], SETTINGS):
        for more in ([], ["--checkpointing"]):
            subprocess.run([sys.executable, __file__, "--step", name, setting, *more], check=True)
    torch.set_num_threads(1)
    for place in options.folders:
        measure_accuracy(place, options.weights, options.epochs, options.seeds)
