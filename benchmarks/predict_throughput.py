"""Time ``predict_proba`` against a bare timm loop, and watch memory over many files.

Speed: the same bundled backbone, images, preprocessing, memory format and batches, in turns, in one
process; the median over the rounds of the ratio within a round. Goal: at least 0.95 of
the bare loop's images per second. Memory: the peak of a process that predicts 1,000
files against one that predicts 4,000. Goal: a ratio of at most 1.05.

Run ``python benchmarks/predict_throughput.py [--image-size 96] [--rounds 7] [--json]``.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sklearn_clce import CLCEClassifier
from sklearn_clce.backbones import load_backbone
from sklearn_clce.data import EvaluationTransform

N_IMAGES, BATCH_SIZE = 512, 32


def bare_loop(X, backbone, head, config, where):
    """Predict as a script would: transform, stack, normalise, run."""
    device, precision, batch_size = where
    dtype = torch.bfloat16 if precision == "float32" else getattr(torch, precision)
    autocast = torch.autocast(device.type, dtype, enabled=precision != "float32")
    transform = EvaluationTransform(config)
    mean = torch.tensor(config.mean, device=device).view(-1, 1, 1)
    std = torch.tensor(config.std, device=device).view(-1, 1, 1)
    outputs = []
    with torch.inference_mode(), autocast:
        for start in range(0, len(X), batch_size):
            pixels = [torch.from_numpy(image) for image in X[start : start + batch_size]]
            images = [transform(image.permute(2, 0, 1).float() / 255) for image in pixels]
            batch = (torch.stack(images).to(device) - mean) / std
            batch = batch.contiguous(memory_format=torch.channels_last)
            outputs.append(head(backbone(batch)).softmax(dim=1))
    return torch.cat(outputs).float().cpu().numpy()


def fitted(backbone="efficientnet_lite0", **parameters):
    """Fit a classifier to next to nothing."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, size=(20, 32, 32, 3), dtype=np.uint8)
    settings = {"batch_size": BATCH_SIZE, "device": "cpu", "precision": "float32"} | parameters
    clf = CLCEClassifier(backbone, max_epochs=1, augment=None, random_state=0, **settings)
    return clf.fit(X, np.arange(20) % 10)


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def measure_speed(rounds, n_images=N_IMAGES, side=32, **parameters):
    """Predict pictures of a size in turns; return the seconds of both sides, round by round.

    Parameters are those of the classifier.
    """
    rng = np.random.default_rng(1)
    X = rng.integers(0, 256, size=(n_images, side, side, 3), dtype=np.uint8)
    clf = fitted(**parameters)
    backbone, config = load_backbone(
        clf.backbone, pretrained=clf.pretrained, image_size=clf.image_size
    )
    backbone.to(clf.device, memory_format=torch.channels_last).eval()
    where = torch.device(clf.device), clf.precision, clf.batch_size
    head = torch.nn.Linear(len(clf.module_.head.standardize.mean), len(clf.classes_)).to(clf.device)
    loop = backbone, head, config, where
    bare_loop(X, *loop), clf.predict_proba(X)  # warm up
    return [(seconds(bare_loop, X, *loop), seconds(clf.predict_proba, X)) for _ in range(rounds)]


def peak_memory(n_files):
    """Predict files in a process of its own; return its peak in MB."""
    command = [sys.executable, __file__, "--peak-of", str(n_files)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def predict_files(n_files):
    rng = np.random.default_rng(0)
    clf = fitted(image_size=32)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{row}.jpg") for row in range(n_files)]
        for path in paths:
            Image.fromarray(rng.integers(0, 256, size=(256, 256, 3), dtype=np.uint8)).save(path)
        clf.predict(paths)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(predict_files(options.peak_of))
        return
    few, many = peak_memory(1000), peak_memory(4000)
    rounds = measure_speed(options.rounds, image_size=options.image_size)
    result = {
        "predict_speed_against_loop": statistics.median(loop / ours for loop, ours in rounds),
        "goal_speed": 0.95,
        "peak_mb_1000_files": few,
        "peak_mb_4000_files": many,
        "peak_ratio": many / few,
        "goal_peak_ratio": 1.05,
    }
    if options.json:
        print(json.dumps(result))
        return
    speed = result["predict_speed_against_loop"]
    print(f"images per second, predict_proba / loop: {speed:.3f} (at least 0.95)")
    print(f"peak memory, 4,000 files / 1,000 files: {many / few:.3f} (at most 1.05)")


if __name__ == "__main__":
    main()
