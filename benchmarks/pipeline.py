"""Time ``fit`` on files of photographs against a torchvision ImageFolder and DataLoader loop.

600 JPEG photographs of about 500x375 pixels at 224 pixels, with a null backbone (the mean over
pixels), so that reading, cropping and augmenting is nearly all there is. Both sides take turns in
one process, with the same augmentation, batches and number of workers: 0, and as many as cores.
Printed are pictures per second of the first and of later epochs, medians over rounds, and their
ratios within a round. Goals: first epoch at least 1.5 times, later epochs at least 8 times.

With ``--one-picture`` instead: time and peak memory of a 48-megapixel photograph and of strips,
against timm's own evaluation transform. With ``--many N``: peak memory of a process that fits a
head on N photographs of 12 megapixels and predicts them.

Run ``python -m benchmarks.pipeline [--rounds 3] [--device cpu] [--against fastai] [--json]``.
"""

import argparse
import json
import os
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
from sklearn.datasets import load_sample_images
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from sklearn_clce import CLCEClassifier, load_image_folder

N_PHOTOS, SIZE, BATCH_SIZE = 600, 224, 32
GOALS = {"first": 1.5, "later": 8.0}


class NullBackbone(nn.Module):
    """The mean over pixels, times a weight that trains."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images.mean(dim=(2, 3)) * self.weight


def write_photos(folder, n, size=(500, 375)):
    """Cut photographs out of scikit-learn's two, into a folder for each class."""
    rng = np.random.default_rng(0)
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    for number in range(n):
        width = int(rng.integers(300, 600))
        height = width * size[1] // size[0]
        left, top = rng.integers(0, 640 - width), rng.integers(0, max(1, 427 - height))
        box = (left, top, left + width, min(427, top + height))
        photo = sources[number % 2].crop(box).resize(size, Image.Resampling.BICUBIC)
        path = Path(folder, "ab"[number % 2], f"{number}.jpg")
        path.parent.mkdir(exist_ok=True)
        photo.save(path, quality=90)


def torchvision_loop(folder, epochs, workers, device):
    """Train as a script would; return the seconds of each epoch."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(0.5, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.2, contrast=0.2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    loader = DataLoader(
        ImageFolder(folder, transform),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    return train(loader, epochs, device)


def fastai_loop(folder, epochs, workers, device):
    """Train on fastai's ImageDataLoaders, which crop on the CPU and augment by the batch."""
    from fastai.vision.all import (
        Brightness,
        Contrast,
        Flip,
        ImageDataLoaders,
        Normalize,
        RandomResizedCrop,
        get_image_files,
        parent_label,
    )

    loader = ImageDataLoaders.from_path_func(
        folder,
        get_image_files(folder),
        parent_label,
        valid_pct=0,
        bs=BATCH_SIZE,
        num_workers=workers,
        device=device,
        item_tfms=RandomResizedCrop(SIZE, min_scale=0.5),
        batch_tfms=[
            Flip(),
            Brightness(0.2),
            Contrast(0.2),
            Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=device.type == "cuda"),
        ],
    ).train
    return train(loader, epochs, device)


def train(loader, epochs, device):
    """Take a step for each batch; return the seconds of each epoch."""
    network = nn.Sequential(NullBackbone(), nn.Linear(3, 2)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        for images, labels in loader:
            images, labels = (  # fastai has tensors of its own
                part.as_subclass(torch.Tensor).to(device, non_blocking=True)
                for part in (images, labels)
            )
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
        seconds.append(finished(device) - start)
    return seconds


class EpochTimes(Callback):
    def __init__(self, device):
        self.device, self.seconds = device, []

    def on_epoch_begin(self, net, **kwargs):
        self.start = finished(self.device)

    def on_epoch_end(self, net, **kwargs):
        self.seconds.append(finished(self.device) - self.start)


def fit(folder, epochs, workers, device):
    """Fit the classifier; return the seconds of each epoch."""
    times = EpochTimes(device)
    paths, labels = load_image_folder(folder)
    CLCEClassifier(
        NullBackbone(),
        image_size=SIZE,
        weight=0,
        batch_size=BATCH_SIZE,
        max_epochs=epochs,
        sampler="shuffle",
        num_workers=workers,
        device=device,
        precision="float32",
        random_state=0,
        callbacks=[times],
    ).fit(paths, labels)
    return times.seconds


def finished(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


LOOPS = {"torchvision": torchvision_loop, "fastai": fastai_loop}


def measure(n_photos, rounds, epochs, device, loop):
    """Return pictures per second and ratios, by number of workers."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        write_photos(folder, n_photos)
        fit(folder, 1, 0, device), loop(folder, 1, 0, device)  # warm up
        for workers in (0, os.cpu_count()):
            found = [
                [side(folder, epochs, workers, device) for side in (loop, fit)]
                for _ in range(rounds)
            ]
            speeds = {}
            for part, take in (("first", slice(0, 1)), ("later", slice(1, None))):
                pairs = [[n_photos / float(np.mean(side[take])) for side in both] for both in found]
                speeds[part] = {
                    "loop": statistics.median(loop for loop, _ in pairs),
                    "fit": statistics.median(ours for _, ours in pairs),
                    "ratio": statistics.median(ours / loop for loop, ours in pairs),
                    "goal": GOALS[part],
                }
            result[f"workers={workers}"] = speeds
    return result


def told(name, value):
    """Say what was measured, in lines for a terminal."""
    if not (isinstance(value, dict) and "first" in value):
        return [f"{name}: {value}"]
    return [
        f"{name}, {part} epochs: {speed['fit']:.0f} images per second to {speed['loop']:.0f}, "
        f"{speed['ratio']:.2f} times (at least {speed['goal']})"
        for part, speed in value.items()
    ]


PICTURES = {"48 megapixels": (8000, 6000), "strip 4000x1": (4000, 1), "strip 10000x1": (10000, 1)}
ONE_PICTURE = """
import resource, sys, time
from PIL import Image
path, side = sys.argv[1:]
if side == "timm":
    from timm.data import create_transform
    transform = create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875)
    read = lambda: transform(Image.open(path).convert("RGB"))
    transform(Image.new("RGB", (300, 300)))  # import everything
else:
    from sklearn_clce.backbones import BackboneConfig
    from sklearn_clce.data import EvaluationTransform, as_images
    transform = EvaluationTransform(BackboneConfig("any", image_size=224, crop_pct=0.875))
    images = as_images([path])
    read = lambda: transform(images.decode(0, transform.at_least))
    transform(as_images([Image.new("RGB", (300, 300))]).decode(0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
read()
seconds = time.perf_counter() - start
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def measure_one_picture():
    """Return seconds and megabytes of reading one picture, in processes of their own."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        photo = Image.fromarray(load_sample_images().images[0])
        for name, size in PICTURES.items():
            for suffix in ("jpg", "png"):
                path = Path(folder, f"picture.{suffix}")
                photo.resize(size).save(path)
                for side in ("timm", "sklearn-clce"):
                    command = [sys.executable, "-c", ONE_PICTURE, str(path), side]
                    done = subprocess.run(command, capture_output=True, text=True)
                    told = done.stdout.split()
                    result[f"{name} {suffix} {side}"] = (
                        dict(zip(("seconds", "mb"), map(float, told), strict=True))
                        if told
                        else {"error": done.stderr.strip().splitlines()[-1][:100]}
                    )
    return result


def fit_many(n):
    """Fit and predict n photographs of 12 megapixels; return the megabytes that it took."""
    with tempfile.TemporaryDirectory() as folder:
        write_photos(folder, 8, (4000, 3000))
        files, labels = load_image_folder(folder)
        paths, y = np.resize(files, n), np.resize(labels, n)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        clf = CLCEClassifier(NullBackbone(), image_size=SIZE, trainable="head", max_epochs=1)
        clf.fit(paths, y).predict(paths)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=N_PHOTOS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--against", choices=LOOPS, default="torchvision")
    parser.add_argument("--one-picture", action="store_true")
    parser.add_argument("--many", type=int, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.one_picture:
        result = measure_one_picture()
    elif options.many:
        result = {"photos": options.many, "peak_mb": fit_many(options.many)}
    else:
        result = measure(
            options.photos,
            options.rounds,
            options.epochs,
            torch.device(options.device),
            LOOPS[options.against],
        )
        result |= {
            "against": options.against,
            "photos": options.photos,
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "device": options.device,
        }
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print("\n".join(told(name, value)))


if __name__ == "__main__":
    main()
