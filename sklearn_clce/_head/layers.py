"""The layers of a head: standardisation, a linear layer of exact sums, the projection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

LENGTH = 4.0  # usual length of a standardised feature vector, whatever its width
BLOCKS = 0.5  # length of all lower blocks together, that of the last features being 1
FLOOR = 1e-4  # share of the mean feature below which a square root would be too steep to train


class Standardize(nn.Module):
    """Centre features and divide all of them by one number; of non-negative ones take the root.

    One number, because a few images say little about the deviation of a single feature. The
    root evens out the means of a ReLU's outputs, of which few are large. Features of lower
    blocks are divided by a number per block, and have no root. Several backbones count alike.
    Before :meth:`adapt` features pass unchanged.

    ``parts`` are the widths of each backbone's features: of the last ones, and of each block.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *parts: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(chain(*parts))
        self.are_last = [place == 0 for part in parts for place in range(len(part))]
        # of the square of the length; all blocks of a backbone have BLOCKS**2 together
        shares = [[1.0, *(BLOCKS**2 / len(blocks) for _ in blocks)] for _, *blocks in parts]
        self.shares = list(chain(*shares))
        # of each part: smaller features count as it, before the root; None: no root
        self.floors: list[float | None] = [None] * len(self.widths)
        n_features = sum(self.widths)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def adapt(self, features: Tensor, weights: Tensor) -> bool:
        """Adopt the weighted mean and length of features; return whether the samples differ.

        Shapes: features (n, n_features), weights (n,).
        """
        share = (weights.double() / weights.double().sum())[:, None]  # (n, 1)
        features = features.double()
        self.floors = [
            _floor_of(part, share) if is_last else None
            for part, is_last in zip(self._split(features), self.are_last, strict=True)
        ]
        features = self._rooted(features)
        mean = (share * features).sum(dim=0)
        self.mean.copy_(mean)
        parts = zip(
            self._split(features),
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
        """Return the length of each part, so that together they have that of one part alone."""
        return [LENGTH * math.sqrt(share / sum(self.shares)) for share in self.shares]

    def _split(self, features: Tensor) -> Sequence[Tensor]:
        return features.split(self.widths, dim=1)

    def _rooted(self, features: Tensor) -> Tensor:
        return self._changed(features, _root)

    def _changed(self, features: Tensor, change: Callable[[Tensor, float], Tensor]) -> Tensor:
        """Change the parts that have a root."""
        if all(floor is None for floor in self.floors):
            return features
        parts = zip(self._split(features), self.floors, strict=True)
        changed = [part if floor is None else change(part, floor) for part, floor in parts]
        return torch.cat(changed, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Standardise a batch: features (n, n_features) -> (n, n_features)."""
        features = features.to(torch.promote_types(features.dtype, self.mean.dtype))
        return (self._rooted(features) - self.mean) / self.scale

    def inverse(self, standardized: Tensor) -> Tensor:
        """Return, on the CPU, the features (n, n_features) of a standardised form."""
        # in float64, which not every device has
        features = standardized.cpu().double() * self.scale.cpu() + self.mean.cpu()
        return self._changed(features, _unroot)


def _floor_of(features: Tensor, share: Tensor) -> float | None:
    """Return what smaller features count as, before the root; None if some are negative.

    Shapes: features (n, n_features), share (n, 1), that of each sample.
    """
    if features.min() >= 0 and features.max() > 0:
        return FLOOR * float((share * features).sum(dim=0).mean())
    return None


def _root(features: Tensor, floor: float) -> Tensor:
    """Take the root of features; of a negative one the mirrored root of its opposite.

    The first samples decide that features are non-negative; later ones may not be.
    """
    root = features.abs().clamp(min=floor).sqrt()
    return torch.where(features < 0, 2 * math.sqrt(floor) - root, root)


def _unroot(root: Tensor, floor: float) -> Tensor:
    mirrored = 2 * math.sqrt(floor) - root
    features = torch.where(root < mirrored, -mirrored.square(), root.square())
    return torch.where(features.abs() > 1.01 * floor, features, 0)  # or rounding decides the sign


class BatchInvariantLinear(nn.Linear):
    """Linear layer whose outputs in evaluation do not depend on the place in a batch.

    A float32 matrix product may sum one sample in another order than the next, so that an
    image gets another last digit next to other images. In evaluation the sums are in
    float64 and then rounded; in training, and on devices without float64, they are not.
    """

    exact = True

    def forward(self, batch: Tensor) -> Tensor:
        """Map a batch (n, in_features) -> (n, out_features)."""
        if self.training or not self.exact or batch.device.type == "mps":
            return super().forward(batch)
        exact = nn.functional.linear(batch.double(), self.weight.double(), self.bias.double())
        return exact.to(self.weight.dtype)

    def columns(self) -> tuple[Tensor, Tensor]:
        """Copy weight (n_classes, n_inputs) and bias (n_classes,) to the CPU."""
        weight, bias = (part.detach().to("cpu", copy=True) for part in (self.weight, self.bias))
        return weight, bias

    def set_columns(self, weight: Tensor, bias: Tensor) -> None:
        """Replace weight (n_classes, n_inputs) and bias (n_classes,)."""
        with torch.no_grad():
            self.weight.copy_(weight)
            self.bias.copy_(bias)

    def with_columns(self, weight: Tensor, bias: Tensor) -> BatchInvariantLinear:
        """Return a layer of the same kind with these columns, of any number of classes."""
        layer = type(self)(self.in_features, len(weight), device=self.weight.device)
        layer.set_columns(weight, bias)
        return layer


class Projection(nn.Sequential):
    """Small network from features to the embedding."""

    def __init__(self, n_features: int, projection_dim: int) -> None:
        super().__init__(
            BatchInvariantLinear(n_features, projection_dim),
            nn.GELU(),
            BatchInvariantLinear(projection_dim, projection_dim),
        )
