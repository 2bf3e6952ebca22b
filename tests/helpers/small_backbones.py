"""Small backbones for tests."""

import torch
from torch import nn


class TinyBackbone(nn.Module):
    """Two convolutions with batch statistics and dropout."""

    def __init__(self):
        super().__init__()
        generator_state = torch.get_rng_state()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
        )
        torch.set_rng_state(generator_state)

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3))


class Counting(nn.Module):
    """Counts the images that it has seen, over all copies of it."""

    seen = 0

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)

    def forward(self, images):
        Counting.seen += len(images)
        return self.pool(images).flatten(1)
