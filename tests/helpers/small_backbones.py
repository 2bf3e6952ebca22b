"""Small backbones for tests."""

import logging
from contextlib import contextmanager

import torch
from torch import nn

LOGGER = logging.getLogger("images that pass a backbone")
LOGGER.setLevel(logging.INFO)
LOGGER.propagate = False


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


def log_images(images):
    """Report a batch that passes a backbone, in a way that is not part of its fingerprint."""
    LOGGER.info("%d", len(images))


class PassedImages(logging.Handler):
    """The number of images that passed any copy of a backbone."""

    def __init__(self):
        super().__init__()
        self.n_images = 0

    def emit(self, record):
        self.n_images += record.args[0]

    def since_last_call(self):
        n_images, self.n_images = self.n_images, 0
        return n_images


@contextmanager
def counting_images():
    """Count what :func:`log_images` reports within the block."""
    handler = PassedImages()
    LOGGER.addHandler(handler)
    try:
        yield handler
    finally:
        LOGGER.removeHandler(handler)


class Counting(nn.Module):
    """Reports the images that pass any copy of it."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)

    def forward(self, images):
        log_images(images)
        return self.pool(images).flatten(1)
