"""The head: features to logits and embeddings, and the mean of each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import BatchInvariantLinear, Projection, Standardize

MAX_WIDTH = 2**24
MAX_PER_CLASS = 20  # samples whose mean counts when later ones come; more hardly move it
PER_DISTANCE = 0.25  # weight of a squared distance in the novelty score; 1/8 and 1/2 are alike


@dataclass(frozen=True)
class HeadConfig:
    """How a head is built; the fields are parameters of the estimator, decided."""

    projection_dim: int | None  # width of the projection; None: features are the embedding

    def __post_init__(self) -> None:
        width = self.projection_dim
        if width is not None and (type(width) is not int or not 1 <= width <= MAX_WIDTH):
            raise ValueError(f"projection_dim is not in 1..{MAX_WIDTH}")


def energy_of_classes(logits: Tensor) -> Tensor:
    """Return the energy of logits (n, n_classes) of classes that exclude each other: (n,)."""
    centred = logits - logits.mean(dim=1, keepdim=True)  # an offset of all says nothing
    return centred.logsumexp(dim=1)


class Head(nn.Module):
    """Standardised features, next to their embedding, to logits; a class without samples is 0.

    ``widths`` are those of each backbone's features: of the last ones, and of each lower block.

    ``class_means`` are the means of the classifier's inputs by class (n_classes, n_inputs), and
    ``class_counts`` the weights behind them (n_classes,): 0 for a class without samples, -1 for one
    whose mean was not computed.
    """

    class_means: Tensor
    class_counts: Tensor
    is_initialised = True  # False: it waits for samples of two classes to start from

    def __init__(self, widths: Sequence[Sequence[int]], n_classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.standardize = Standardize(*widths)
        n_features, projection_dim = sum(self.standardize.widths), config.projection_dim
        self.projection = None if projection_dim is None else Projection(n_features, projection_dim)
        self.n_features = n_features
        self.n_embedding = n_features if projection_dim is None else projection_dim
        self.classifier = BatchInvariantLinear(n_features + (projection_dim or 0), n_classes)
        nn.init.zeros_(self.classifier.weight)  # directions without training samples stay out
        nn.init.zeros_(self.classifier.bias)
        means = torch.zeros(n_classes, self.classifier.in_features)
        self.register_buffer("class_means", means, persistent=False)  # no weights
        self.register_buffer("class_counts", torch.zeros(n_classes), persistent=False)

    @property
    def n_classes(self) -> int:
        """Number of logits."""
        return self.classifier.out_features

    @property
    def has_class_means(self) -> bool:
        """Whether the mean of any class is known."""
        return bool((self.class_counts > 0).any())

    @property
    def has_classifier(self) -> bool:
        """Whether the classifier predicts more than one class."""
        return bool(self.classifier.weight.any())

    def inputs(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the classifier's inputs, and embeddings.

        Shapes: features (n, n_features) -> inputs (n, n_inputs), embeddings (n, n_embedding).
        """
        features = self.standardize(features)
        if self.projection is None:
            return features, features
        embeddings = self.projection(features)
        return torch.cat([features, embeddings], dim=1), embeddings

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and embeddings.

        Shapes: features (n, n_features) -> logits (n, n_classes), embeddings (n, n_embedding).
        """
        inputs, embeddings = self.inputs(features)
        return self.classifier(inputs), embeddings

    def add_class_means(
        self, inputs: Tensor, labels: Tensor, weights: Tensor, *, keep_earlier: bool = False
    ) -> None:
        """Take weighted means of the classifier's inputs by class.

        ``keep_earlier``: average them with the means of earlier samples.
        Shapes: inputs (n, n_inputs), labels (n,), weights (n,).
        """
        means, counts = (part.cpu().double() for part in (self.class_means, self.class_counts))
        weights = weights.double()
        # of many calls the later ones count: the network has moved since the first
        before = counts.clamp(0, MAX_PER_CLASS) * keep_earlier
        seen = torch.zeros_like(counts).index_add_(0, labels, weights)
        sums = before[:, None] * means
        sums.index_add_(0, labels, weights[:, None] * inputs.double())
        means = torch.where(seen[:, None] > 0, sums / (before + seen)[:, None], means)
        self.class_counts.copy_(torch.where(seen > 0, before + seen, counts).float())
        self.class_means.copy_(means.float())

    def expect_class_means(self, labels: Tensor) -> None:
        """Note that classes have samples, before their means are computed: labels (n,)."""
        trained = labels.unique().to(self.class_counts.device)
        counts = self.class_counts[trained]
        self.class_counts[trained] = torch.where(counts == 0, -1, counts)

    def novelty_scores(
        self,
        inputs: Tensor,
        logits: Tensor,
        energy: Callable[[Tensor], Tensor] = energy_of_classes,
    ) -> Tensor:
        """Return how much samples are like the training samples; higher is more like them.

        The ``energy`` of the logits, less the squared distance to the nearest class mean: a sample
        far from all classes may have large logits for that alone. The sum is the logarithm of a
        density if classes are clouds of one shape. Distances are those of features, whose scale is
        fixed, and an embedding may not have been trained.

        Shapes: inputs (n, n_inputs), logits (n, n_classes) -> (n,).
        """
        logits, inputs, means, counts = (
            part.detach().float().cpu().double()  # in float32 the sums would depend on the batch
            for part in (logits, inputs, self.class_means, self.class_counts)
        )
        features, means = inputs[:, : self.n_features], means[counts > 0, : self.n_features]
        return less_distance(energy(logits), features, means)


def less_distance(energy: Tensor, features: Tensor, means: Tensor) -> Tensor:
    """Subtract the squared distance to the nearest mean from the energy of logits.

    Shapes: energy (n,), features (n, n_features), means (n_known, n_features) -> (n,).
    """
    squares = features.square().sum(dim=1)[:, None] + means.square().sum(dim=1)
    distances = squares - 2 * features @ means.T  # (n, n_known)
    return energy - PER_DISTANCE * distances.amin(dim=1)
