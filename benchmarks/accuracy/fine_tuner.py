"""What the recipes of others have in common."""

import random

import numpy as np
import torch


class FineTuner:
    """A classifier of images that begins with the weights of a backbone.

    Parameters
    ----------
    backbone : nn.Module
        A timm model without a classifier, whose weights are the start.
    config : BackboneConfig
        How it wants its images.
    seed : int
        Of everything random.
    device : torch.device
        Where to compute.
    """

    def __init__(self, backbone, config, seed, device):
        self.backbone, self.config, self.seed, self.device = backbone, config, seed, device
        self.budget = {}

    def seed_all(self):
        """Seed what augmentation, order and new weights are drawn from."""
        random.seed(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002
        torch.manual_seed(self.seed)
