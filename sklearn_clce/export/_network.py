"""The network that is deployed: from decoded pictures to what a program asks for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._network import Network
from ..losses import l2_normalise

FREE_SIDE = 64  # of the images that a network of no input size of its own is traced with
N_EXAMPLES = 2  # of one, torch would make a fixed size


class DeployedNetwork(nn.Module):
    """A trained network with its preprocessing, for other runtimes.

    Shapes: images (n, H, W, C), or features (n, n_features) -> indices of the classes (n,),
    probabilities (n, n_classes), embeddings (n, n_embedding).
    """

    def __init__(self, module: Network, *, max_pixel_value: float | None) -> None:
        super().__init__()
        self.module = module.portable()
        self.max_pixel_value = (
            max_pixel_value  # of pixels that are integers of 8 bits; None: floats in 0..1
        )
        self.eval()

    @property
    def takes_images(self) -> bool:
        """Tell images from features."""
        return self.module.config is not None

    @property
    def has_free_size(self) -> bool:
        """Tell whether images keep their own size."""
        return self.module.config is not None and self.module.config.image_size is None

    def example(self) -> Tensor:
        """Return a batch of inputs."""
        config = self.module.config
        if config is None:
            return torch.zeros(N_EXAMPLES, len(self.module.head.standardize.mean))
        side = config.image_size or FREE_SIDE
        dtype = torch.float32 if self.max_pixel_value is None else torch.uint8
        return torch.zeros(N_EXAMPLES, side, side, config.n_channels, dtype=dtype)

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Preprocess and classify a batch."""
        if self.takes_images:
            batch = batch.permute(0, 3, 1, 2)
            if self.max_pixel_value is not None:
                batch = batch.float() / self.max_pixel_value
        logits, embeddings = self.module(batch)
        return logits.argmax(dim=1), logits.softmax(dim=1), l2_normalise(embeddings)
