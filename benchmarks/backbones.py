"""Measure what each short name of a backbone costs on one core: the table of the user guide.

Each backbone runs in a process of its own, with random weights, which cost what trained ones do.
Speed is pictures by second of processor time, so that other work on the machine does not count:
``predict`` of ``CLCEClassifier(trainable="all")`` for features, a step of ``partial_fit`` for
fine-tuning. Memory is what the first step adds to the peak of its process. Accuracy is not measured
here: timm publishes it.

Run ``python benchmarks/backbones.py --json > benchmarks/results/backbones.json`` to measure, and
``python benchmarks/backbones.py --csv docs/tables/backbones.csv`` to write the table of that file.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import timm
import torch

from sklearn_clce import CLCEClassifier, backbone_aliases

RESULTS = Path(__file__).parent / "results" / "backbones.json"
BATCH_SIZE = 8
N_CORES = 1
SMALLER = {"dinov2": 224}  # a second size of a backbone whose own is costly
# Top-1 accuracy on ImageNet-1k at the side of the table: results/results-imagenet.csv in timm's
# repository, commit 7479d45 (0173a13 for beitv2, efficientnet_lite1 and efficientnet_lite2). Those
# left out have no classifier or no line there.
TOP1 = {
    "efficientnet_lite0": 74.8,
    "efficientnet_lite1": 76.6,
    "efficientnet_lite2": 77.5,
    "beit": 85.2,
    "beitv2": 86.5,
    "vit": 85.1,
    "vit_tiny": 75.5,
    "tiny_vit": 85.1,
    "convnext": 84.2,
    "mobilenetv4": 79.9,
    "resnet": 80.4,
}


def measure(name, image_size):
    """Return what a backbone costs; in a process that does nothing else."""
    torch.set_num_threads(N_CORES)
    clf = CLCEClassifier(
        name,
        pretrained=False,
        image_size=image_size,
        batch_size=BATCH_SIZE,
        random_state=0,
        device="cpu",
    )
    X = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, 64, 64, 3), dtype=np.uint8)
    y = np.arange(BATCH_SIZE) % 2
    clf.partial_fit(X[:2], y[:2], classes=[0, 1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clf.partial_fit(X, y)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    full = timm.create_model(backbone_aliases()[name])
    return {
        "backbone": name,
        "image_size": clf.backbone_config_.image_size,
        "width": clf.transform(X[:1]).shape[1],
        "download_mb": sum(tensor.nbytes for tensor in full.state_dict().values()) / 1e6,
        "licence": timm.get_pretrained_cfg(backbone_aliases()[name]).license,
        "top1": TOP1.get(name) if image_size is None else None,
        "features_per_second": BATCH_SIZE / seconds(lambda: clf.predict(X)),
        "training_per_second": BATCH_SIZE / seconds(lambda: clf.partial_fit(X, y)),
        "training_mb": (peak - before) / 1024,
    }


def seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def measure_all():
    """Measure every short name, each in a process of its own."""
    sizes = [(name, size) for name in backbone_aliases() for size in (None, SMALLER.get(name))]
    rows = []
    for name, size in dict.fromkeys(sizes):
        command = [sys.executable, __file__, "--one", name, *([str(size)] if size else [])]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(result.stdout.splitlines()[-1]))
    return {
        "cores": N_CORES,
        "batch_size": BATCH_SIZE,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "backbones": rows,
    }


def write_table(results, path):
    """Write the table of the user guide, the fastest backbone first."""
    columns = {
        "name": lambda row: row["backbone"],
        "top-1, %": lambda row: row["top1"] or "",
        "features, images/s": lambda row: f"{row['features_per_second']:.2g}",
        "training, images/s": lambda row: f"{row['training_per_second']:.2g}",
        "memory, MB": lambda row: f"{round(row['training_mb'], -1):.0f}",
        "download, MB": lambda row: f"{row['download_mb']:.0f}",
        "side, px": lambda row: row["image_size"],
    }
    fastest_first = sorted(results["backbones"], key=lambda row: -row["features_per_second"])
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in fastest_first:
            writer.writerow([cell(row) for cell in columns.values()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="measure, and print one JSON object")
    parser.add_argument("--csv", type=Path, help="write the table of the committed figures")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, *size = options.one
        print(json.dumps(measure(name, int(size[0]) if size else None)))
    elif options.csv:
        write_table(json.loads(RESULTS.read_text()), options.csv)
    else:
        print(json.dumps(measure_all(), indent=1))


if __name__ == "__main__":
    main()
