"""Time ``fit`` against a hand-written PyTorch loop, and a CLCE epoch against a CE epoch.

All take turns in one process: the same bundled backbone, images, preprocessing, batches,
optimizer, schedule, clipping, memory format and precision. Printed are medians over the
rounds of the ratios within a round. Goals: fit at least 0.97 of the loop's images per
second, a CLCE epoch at most 1.05 times a CE epoch.

Run ``python benchmarks/fit_overhead.py [--image-size 96] [--rounds 7] [--json]``.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from sklearn_clce import CLCEClassifier, clce_loss
from sklearn_clce._training.optim import warmup_cosine
from sklearn_clce.backbones import load_backbone
from sklearn_clce.data import EvaluationTransform

N_IMAGES, N_CLASSES, BATCH_SIZE = 256, 10, 64


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
        self.head = nn.Linear(1280, N_CLASSES)
        self.register_buffer("mean", torch.tensor(config.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(-1, 1, 1))

    def forward(self, images):
        images = (images - self.mean) / self.std
        features = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return self.head(features), features


def hand_written(X, y, image_size, weight, epochs):
    """Fit in a plain loop; return images per second, set-up included as in ``fit``."""
    start = time.perf_counter()
    torch.manual_seed(0)
    backbone, config = load_backbone("efficientnet_lite0", image_size=image_size)
    network = Network(backbone.to(memory_format=torch.channels_last), config).train()
    loader = DataLoader(
        Pictures(X, y, EvaluationTransform(config)), batch_size=BATCH_SIZE, shuffle=True
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    n_steps = epochs * len(loader)
    schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, n_steps=n_steps, warmup=0.1))
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            logits, embeddings = network(images)
            if weight:
                loss = clce_loss(logits, embeddings, labels, weight=weight)
            else:
                loss = F.cross_entropy(logits, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            loss.item()
    return epochs * len(X) / (time.perf_counter() - start)


def estimator(X, y, image_size, weight, epochs):
    """Fit the classifier; return images per second."""
    start = time.perf_counter()
    CLCEClassifier(
        image_size=image_size,
        weight=weight,
        batch_size=BATCH_SIZE,
        max_epochs=epochs,
        augment=None,
        sampler="shuffle",
        random_state=0,
        device="cpu",
    ).fit(X, y)
    return epochs * len(X) / (time.perf_counter() - start)


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
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, size=(N_IMAGES, 32, 32, 3), dtype=np.uint8)
    y = np.arange(N_IMAGES) % N_CLASSES
    size, epochs = options.image_size, options.epochs
    hand_written(X, y, size, 0.5, 1), estimator(X, y, size, 0.5, 1)  # warm up
    speed, cost = [], []
    for _ in range(options.rounds):
        loop = hand_written(X, y, size, 0.5, epochs)
        clce = estimator(X, y, size, 0.5, epochs)
        ce = estimator(X, y, size, 0.0, epochs)
        speed.append(clce / loop)
        cost.append(ce / clce)
    result = {
        "fit_speed_against_loop": statistics.median(speed),
        "goal_speed": 0.97,
        "clce_epoch_against_ce_epoch": statistics.median(cost),
        "goal_cost": 1.05,
        "rounds": options.rounds,
        "image_size": size,
        "threads": torch.get_num_threads(),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"images per second, fit / loop: {result['fit_speed_against_loop']:.3f} (at least 0.97)")
    print(
        f"time, CLCE epoch / CE epoch:   {result['clce_epoch_against_ce_epoch']:.3f} (at most 1.05)"
    )


if __name__ == "__main__":
    main()
