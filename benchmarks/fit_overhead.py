"""Time ``fit`` against a hand-written PyTorch loop, and a CLCE epoch against a CE epoch.

All take turns in one process: the same bundled backbone, all of which trains, images,
preprocessing, batches, optimizer, schedule, clipping, memory format and precision. Printed are
medians over the rounds of the ratios within a round. Goals: in its epochs fit sees at least 0.97
of the loop's images per second, and a CLCE epoch takes at most 1.05 times a CE epoch. The whole
fit has no goal: it runs the backbone twice more, to start the classifier and to fit it anew.

Run ``python benchmarks/fit_overhead.py [--image-size 96] [--rounds 7] [--json]``.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from sklearn_clce import CLCEClassifier, clce_loss
from sklearn_clce._network import warmup_cosine
from sklearn_clce.backbones import load_backbone
from sklearn_clce.data import EvaluationTransform

N_IMAGES, N_CLASSES = 256, 10


@dataclass(frozen=True)
class Task:
    """What both sides train, and where."""

    backbone: Any = "efficientnet_lite0"
    pretrained: bool = True
    image_size: int = 96
    batch_size: int = 64
    weight: float = 0.5
    epochs: int = 3
    device: str = "cpu"
    precision: str = "float32"
    workers: int = 0


class Pictures(Dataset):
    """What a script's author would write: one image at a time, transformed."""

    def __init__(self, X, y, transform):
        self.X, self.y, self.transform = X, y, transform

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        image = torch.from_numpy(self.X[row]).permute(2, 0, 1).float() / 255
        return self.transform(image), self.y[row]


class Network(nn.Module):
    def __init__(self, backbone, config):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.num_features, N_CLASSES)
        self.register_buffer("mean", torch.tensor(config.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(-1, 1, 1))

    def forward(self, images):
        images = (images - self.mean) / self.std
        features = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return self.head(features), features


def hand_written(X, y, task):
    """Fit in a plain loop; return when it began, each epoch began, and the last ended."""
    device = torch.device(task.device)
    cuda = device.type == "cuda"
    times = [now(device)]
    torch.manual_seed(0)
    backbone, config = load_backbone(
        task.backbone, pretrained=task.pretrained, image_size=task.image_size
    )
    network = Network(backbone, config).to(device, memory_format=torch.channels_last).train()
    loader = DataLoader(
        Pictures(X, y, EvaluationTransform(config)),
        batch_size=task.batch_size,
        shuffle=True,
        num_workers=task.workers,
        pin_memory=cuda,
    )
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-3, weight_decay=0.05, fused=cuda or None
    )
    n_steps = task.epochs * len(loader)
    schedule = LambdaLR(
        optimizer, lambda step: warmup_cosine(step, n_steps=n_steps, warmup_fraction=0.1)
    )
    scaler = torch.amp.GradScaler(device.type, enabled=task.precision == "float16")
    dtype = torch.bfloat16 if task.precision == "float32" else getattr(torch, task.precision)
    autocast = torch.autocast(device.type, dtype, enabled=task.precision != "float32")
    for _ in range(task.epochs):
        times.append(now(device))
        total = torch.zeros((), device=device)
        for images, labels in loader:
            images = images.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            with autocast:
                logits, embeddings = network(images)
            loss = clce_loss(logits, embeddings, labels, weight=task.weight)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            total += loss.detach()
        total.item()
    return [*times, now(device)]


class EpochTimes(Callback):
    """Note when each epoch begins, and when the last one has ended."""

    def __init__(self, device):
        self.device = device
        self.times = []

    def on_epoch_begin(self, net, **kwargs):
        self.times.append(now(self.device))

    def on_train_end(self, net, **kwargs):
        self.times.append(now(self.device))


def estimator(X, y, task):
    """Fit the classifier; return when it began, each epoch began, and the last ended."""
    device = torch.device(task.device)
    epochs = EpochTimes(device)
    start = now(device)
    CLCEClassifier(
        task.backbone,
        pretrained=task.pretrained,
        trainable="all",
        image_size=task.image_size,
        weight=task.weight,
        batch_size=task.batch_size,
        max_epochs=task.epochs,
        augment=None,
        sampler="shuffle",
        random_state=0,
        device=device,
        precision=task.precision,
        num_workers=task.workers,
        memory=joblib.Memory(None),  # or later fits would find the first pass
        callbacks=[("epochs", epochs)],
    ).fit(X, y)
    return [start, *epochs.times]


def timed(train, X, y, task):
    """Return the seconds of all epochs, and of the whole."""
    start = time.perf_counter()
    times = train(X, y, task)
    return times[-1] - times[1], time.perf_counter() - start


def now(device):
    """Return the time when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def pictures(n, side=32):
    """Make up pictures, uint8 (n, side, side, 3), and their labels."""
    X = np.random.default_rng(0).integers(0, 256, size=(n, side, side, 3), dtype=np.uint8)
    return X, np.arange(n) % N_CLASSES


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    X, y = pictures(N_IMAGES)
    task = Task(image_size=options.image_size, epochs=options.epochs)
    cross_entropy = replace(task, weight=0.0)
    once = replace(task, epochs=1)
    hand_written(X, y, once), estimator(X, y, once)  # warm up
    speed, cost, whole = [], [], []
    for _ in range(options.rounds):
        (loop, whole_loop), (clce, whole_clce), (ce, _) = (
            timed(train, X, y, one)
            for train, one in ((hand_written, task), (estimator, task), (estimator, cross_entropy))
        )
        speed.append(loop / clce)
        cost.append(clce / ce)
        whole.append(whole_clce / whole_loop)
    result = {
        "fit_speed_against_loop": statistics.median(speed),
        "goal_speed": 0.97,
        "clce_epoch_against_ce_epoch": statistics.median(cost),
        "goal_cost": 1.05,
        "whole_fit_against_whole_loop": statistics.median(whole),
        "rounds": options.rounds,
        "image_size": task.image_size,
        "threads": torch.get_num_threads(),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"images per second, fit / loop: {result['fit_speed_against_loop']:.3f} (at least 0.97)")
    print(
        f"time, CLCE epoch / CE epoch:   {result['clce_epoch_against_ce_epoch']:.3f} (at most 1.05)"
    )
    print(f"time, whole fit / whole loop:  {result['whole_fit_against_whole_loop']:.3f}")


if __name__ == "__main__":
    main()
