"""The network: backbone, projection head and classifier in one forward pass."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import BackboneConfig, Normalize, part_widths, run_backbone
from .low_rank import is_adapted, merge

LENGTH = 4.0  # usual length of a standardised feature vector, whatever its width
BLOCKS = 0.5  # length of all lower blocks together, that of the last features being 1
FLOOR = 1e-4  # share of the mean feature below which a root would be too steep to train through


class Standardize(nn.Module):
    """Centre features and divide all of them by one number; of those never negative, the root.

    One number, because a few images say little about the deviation of a single feature. The
    root makes the means of a ReLU's outputs, of which few are large, more even. Lower blocks
    beside the last features are divided by a number each, and have no root. Without
    :meth:`adapt` features pass as they are.
    """

    mean: Tensor
    scale: Tensor
    floor: float | None = None  # features below it count as it, before the root; None: no root

    def __init__(self, n_last: int, *of_blocks: int) -> None:
        super().__init__()
        self.widths = (n_last, *of_blocks)
        n_features = sum(self.widths)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))  # earlier model files hold as many

    def adapt(self, features: Tensor, weights: Tensor) -> bool:
        """Take the weighted mean and length of features, and tell whether they differ.

        Shapes: features (n, n_features), weights (n,).
        """
        share = (weights.double() / weights.double().sum())[:, None]  # (n, 1)
        features = features.double()
        last = features[:, : self.widths[0]]
        self.floor = None
        if last.min() >= 0 and last.max() > 0:
            self.floor = FLOOR * float((share * last).sum(dim=0).mean())
        features = self._rooted(features)
        mean = (share * features).sum(dim=0)
        self.mean.copy_(mean)
        parts = zip(
            features.split(self.widths, dim=1),
            mean.split(self.widths),
            self.scale.split(self.widths),
            self._lengths(),
            strict=True,
        )
        tiny = torch.finfo(self.scale.dtype).tiny
        differ = False
        for part, mean_of_part, scale, wanted in parts:
            length = (share * (part - mean_of_part) ** 2).sum().sqrt()
            differs = bool(length > (1e-6 * mean_of_part.norm()).clamp(min=wanted * tiny))
            scale.fill_(length / wanted if differs else 1)
            differ |= differs
        return differ

    def _lengths(self) -> list[float]:
        """Return the length that each part is to have: all together that of one part alone."""
        blocks = self.widths[1:]
        shares = [1.0, *(BLOCKS**2 / len(blocks) for _ in blocks)]
        return [LENGTH * math.sqrt(share / sum(shares)) for share in shares]

    def _rooted(self, features: Tensor) -> Tensor:
        if self.floor is None:
            return features
        last, *blocks = features.split(self.widths, dim=1)
        return torch.cat([_root(last, self.floor), *blocks], dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Standardise a batch: features (n, n_features) -> (n, n_features)."""
        features = features.to(torch.promote_types(features.dtype, self.mean.dtype))
        return (self._rooted(features) - self.mean) / self.scale

    def inverse(self, standardized: Tensor) -> Tensor:
        """Return, on the CPU, the features (n, n_features) whose standardised form this is."""
        # in float64, which not every device has
        features = standardized.cpu().double() * self.scale.cpu() + self.mean.cpu()
        if self.floor is None:
            return features
        last, *blocks = features.split(self.widths, dim=1)
        return torch.cat([_unroot(last, self.floor), *blocks], dim=1)


def _root(features: Tensor, floor: float) -> Tensor:
    """Take the root of features, and of those below 0 the root of their opposite, mirrored.

    What was seen first tells that features are never negative; later ones may be.
    """
    root = features.abs().clamp(min=floor).sqrt()
    return torch.where(features < 0, 2 * math.sqrt(floor) - root, root)


def _unroot(root: Tensor, floor: float) -> Tensor:
    mirrored = 2 * math.sqrt(floor) - root
    features = torch.where(root < mirrored, -mirrored.square(), root.square())
    return torch.where(features.abs() > 1.01 * floor, features, 0)  # or rounding decides the sign


class BatchInvariantLinear(nn.Linear):
    """Linear layer whose outputs do not depend on the place in a batch, when it evaluates.

    A matrix product in float32 may sum one sample in another order than the next, so that the
    same image gets another last digit beside other images. In evaluation the sums are in
    float64 and then rounded; in training, and on devices without float64, they are not.
    """

    exact = True

    def forward(self, batch: Tensor) -> Tensor:
        """Map a batch (n, in_features) -> (n, out_features)."""
        if self.training or not self.exact or batch.device.type == "mps":
            return super().forward(batch)
        exact = nn.functional.linear(batch.double(), self.weight.double(), self.bias.double())
        return exact.to(self.weight.dtype)


class ProjectionHead(nn.Sequential):
    """Small network beside the features, from them to the embedding."""

    def __init__(self, n_features: int, projection_dim: int) -> None:
        super().__init__(
            BatchInvariantLinear(n_features, projection_dim),
            nn.GELU(),
            BatchInvariantLinear(projection_dim, projection_dim),
        )


class CLCEModule(nn.Module):
    """Images or features to logits and embeddings.

    A batch of images runs through the backbone; a batch of shape (n, n_features)
    already holds features.
    """

    class_means: Tensor
    class_counts: Tensor
    started = True  # unless a head waits for samples of two classes to start from

    def __init__(
        self,
        backbone: nn.Module | None,
        config: BackboneConfig | None,
        *,
        n_features: int,
        n_classes: int,
        projection_dim: int | None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.backbone = backbone
        self.config = config
        self.normalize = None if config is None else Normalize(config.mean, config.std)
        self.standardize = Standardize(*part_widths(backbone, n_features))
        self.projection = (
            None if projection_dim is None else ProjectionHead(n_features, projection_dim)
        )
        self.n_embedding = n_features if projection_dim is None else projection_dim
        self.classifier = BatchInvariantLinear(n_features + (projection_dim or 0), n_classes)
        nn.init.zeros_(self.classifier.weight)  # what the training images don't tell stays out
        nn.init.zeros_(self.classifier.bias)
        # of what the classifier reads; a class without a sample counts 0, one without a mean -1
        means = torch.zeros(n_classes, self.classifier.in_features)
        self.register_buffer("class_means", means, persistent=False)  # no weights
        self.register_buffer("class_counts", torch.zeros(n_classes), persistent=False)
        self.settle_what_trains()

    def settle_what_trains(self) -> None:
        """Note whether nothing, or all, of the backbone trains: every step asks for it."""
        backbone = self.backbone
        self.frozen = backbone is None or not trains(backbone)
        self.trains_whole = backbone is not None and _trains_whole(backbone)
        self.lora = backbone is not None and is_adapted(backbone)
        if self.frozen and backbone is not None:
            backbone.eval()

    @property
    def tunes(self) -> bool:
        """Whether a pretrained backbone trains."""
        return self.pretrained and not self.frozen

    def new_layers(self) -> nn.Module:
        """Return the layers that no pretrained weights exist for."""
        layers = [self.projection, self.classifier]
        return nn.ModuleList([layer for layer in layers if layer is not None])

    def train(self, mode: bool = True) -> CLCEModule:
        """Set training mode, except for what is frozen of the backbone."""
        self.training = mode
        for child in self.children():
            if not (self.frozen and child is self.backbone):  # that stays in evaluation mode
                child.train(mode)
        if mode and self.backbone is not None and not self.frozen and not self.trains_whole:
            _evaluate_where_frozen(self.backbone)
        if mode and self.backbone is not None and self.tunes:
            _keep_batch_statistics(self.backbone)
        return self

    def merged(self) -> CLCEModule:
        """Return the network of plain layers alone, a copy where it has others."""
        if self.backbone is None or not is_adapted(self.backbone):
            return self
        copied = copy.deepcopy(self)
        assert copied.backbone is not None
        merge(copied.backbone)
        return copied

    def portable(self) -> CLCEModule:
        """Return a copy for inference by other runtimes: on the CPU, with nothing of float64."""
        copied = copy.deepcopy(self.merged()).cpu().eval().requires_grad_(False)
        for layer in copied.modules():
            if isinstance(layer, BatchInvariantLinear):
                layer.exact = False
        backbone: Any = copied.backbone
        if hasattr(backbone, "set_grad_checkpointing"):
            backbone.set_grad_checkpointing(False)
        return copied

    def features(self, batch: Tensor) -> Tensor:
        """Run the backbone on images (n, C, H, W) in 0..1; features (n, n_features) pass."""
        if batch.ndim == 2 or self.backbone is None or self.normalize is None:
            return batch
        return run_backbone(self.backbone, self.normalize(batch))

    def read(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what the classifier reads, and embeddings.

        Shapes: batch (n, C, H, W) -> read (n, n_read), embeddings (n, n_embedding).
        """
        features = self.standardize(self.features(batch))
        if self.projection is None:
            return features, features
        embeddings = self.projection(features)
        return torch.cat([features, embeddings], dim=1), embeddings

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and embeddings in one pass.

        Shapes: batch (n, C, H, W) -> logits (n, n_classes), embeddings (n, n_embedding).
        """
        read, embeddings = self.read(batch)
        return self.classifier(read), embeddings


def trains(module: nn.Module) -> bool:
    """Tell whether any parameter of a module requires gradients."""
    return any(parameter.requires_grad for parameter in module.parameters())


def _trains_whole(module: nn.Module) -> bool:
    return all(parameter.requires_grad for parameter in module.parameters())


def _evaluate_where_frozen(module: nn.Module) -> None:
    """Put what does not train into evaluation mode: batch statistics and dropout stay still."""
    if not trains(module):
        module.eval()
        return
    for child in module.children():
        if next(child.parameters(), None) is not None:
            _evaluate_where_frozen(child)


def _keep_batch_statistics(backbone: nn.Module) -> None:
    """Normalise as the backbone was trained to: a few images have other statistics."""
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
