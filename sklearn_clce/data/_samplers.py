"""Batches of samples: shuffled, or balanced so that every anchor has positives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from .._checks import to_numpy

MAX_WITHOUT_POSITIVE = 0.1  # "auto" balances from this share of anchors without a positive on


def count_parts(n: int, size: int) -> int:
    """Count the equal parts of at most this size that n samples are cut into.

    No part has a single sample, which is too few for batch statistics and contrastive
    pairs: an odd number in parts of two has one part of three.
    """
    most = n if size == 1 else max(1, n // 2)
    return min(math.ceil(n / size), most)


class ShuffledBatchSampler(Sampler[list[int]]):
    """Batches of nearly equal size in random order, by :func:`count_parts`.

    Each epoch has its own generator, made of seed and epoch.
    """

    def __init__(self, n_samples: int, batch_size: int, random_state: int = 0) -> None:
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.random_state = random_state
        self.epoch = 0

    def __len__(self) -> int:
        return count_parts(self.n_samples, self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.random_state, self.epoch])
        self.epoch += 1
        for batch in np.array_split(rng.permutation(self.n_samples), len(self)):
            yield batch.tolist()


class ClassBalancedBatchSampler(Sampler[list[int]]):
    """Batches of P classes with K samples each, for losses that compare those of a batch.

    Every epoch visits every sample. It visits those of small classes more than once, so
    that there are P different classes in each batch. No sample is in a batch twice; a
    class of fewer than K samples gives all of them. Works as the ``batch_sampler`` of a
    :class:`torch.utils.data.DataLoader`.

    Parameters
    ----------
    labels : array-like of shape (n_samples,)
        Label of each sample.
    classes_per_batch : int
        P, at least 2; all classes where there are fewer.
    samples_per_class : int
        K, the samples of a class, at least 2.
    random_state : int, default=0
        Seed. Each epoch has its own generator, made of seed and epoch, so two samplers
        with the same seed agree and global generators are not touched.

    Attributes
    ----------
    epoch : int
        Number of epochs begun; set it to continue where another process stopped.

    Raises
    ------
    ValueError
        If P or K is below 2, ``random_state`` is not a seed, or ``labels`` is empty or not
        one-dimensional.

    References
    ----------
    .. [1] Hermans, A. et al. "In Defense of the Triplet Loss for Person
       Re-Identification", arXiv:1703.07737, 2017.

    Examples
    --------
    >>> from sklearn_clce import ClassBalancedBatchSampler
    >>> labels = ["cat"] * 6 + ["dog"] * 2
    >>> sampler = ClassBalancedBatchSampler(labels, classes_per_batch=2, samples_per_class=2)
    >>> len(sampler)
    3
    >>> [sorted(labels[index] for index in batch) for batch in sampler][0]
    ['cat', 'cat', 'dog', 'dog']
    """

    def __init__(
        self,
        labels: Sequence[Any] | np.ndarray,
        *,
        classes_per_batch: int,
        samples_per_class: int,
        random_state: int = 0,
    ) -> None:
        least = {
            "classes_per_batch": (classes_per_batch, 2),
            "samples_per_class": (samples_per_class, 2),
            "random_state": (random_state, 0),
        }
        for name, (value, smallest) in least.items():
            if not isinstance(value, Integral) or value < smallest:
                raise ValueError(f"{name}={value!r}: an integer of at least {smallest} is required")
        names = np.asarray(to_numpy(labels))
        if names.ndim != 1 or len(names) == 0:
            raise ValueError(f"labels of shape {names.shape}: one label a sample is required")
        _, codes = np.unique(names, return_inverse=True)
        self.indices_by_class = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
        self.classes_per_batch = min(classes_per_batch, len(self.indices_by_class))
        self.samples_per_class = samples_per_class
        self.random_state = random_state
        self.epoch = 0

    def __len__(self) -> int:
        n_groups = [math.ceil(len(each) / self.samples_per_class) for each in self.indices_by_class]
        return max(max(n_groups), math.ceil(sum(n_groups) / self.classes_per_batch))

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.random_state, self.epoch])
        self.epoch += 1
        waiting = [self._groups(indices, rng) for indices in self.indices_by_class]
        batches = []
        for _ in range(len(self)):
            # the classes with most groups left, ties at random, so that no class is starved
            left = np.array([len(groups) for groups in waiting]) + rng.random(len(waiting))
            chosen = np.argsort(-left)[: self.classes_per_batch]
            batches.append(np.concatenate([self._next_group(waiting, c, rng) for c in chosen]))
        rng.shuffle(batches)
        for batch in batches:
            yield batch.tolist()

    def _groups(self, indices: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Cut a class into groups of K; others of the class fill the last one up."""
        indices = rng.permutation(indices)
        size = min(self.samples_per_class, len(indices))
        groups = [indices[start : start + size] for start in range(0, len(indices), size)]
        missing = size - len(groups[-1])
        groups[-1] = np.concatenate([groups[-1], indices[:missing]])
        return groups

    def _next_group(
        self, waiting: list[list[np.ndarray]], code: int, rng: np.random.Generator
    ) -> np.ndarray:
        if waiting[code]:
            return waiting[code].pop()
        return self._groups(self.indices_by_class[code], rng)[0]


def resolve_sampler(
    sampler: str,
    labels: np.ndarray,
    batch_size: int,
    *,
    weight: float,
    n_partners: np.ndarray,
) -> str:
    """Decide how samples come into batches, for labels of shape (n_samples,).

    ``n_partners`` counts, for some or all of them, the samples that may be positives of it, itself
    included. "auto" balances if shuffled batches would leave more than a tenth of the anchors
    without a positive, unless the contrastive term has no weight. Labels of one class are shuffled.
    """
    if len(np.unique(labels)) < 2:
        return "shuffle"  # of one class, as a call of partial_fit may be
    if sampler == "auto":
        n_drawn = math.ceil(len(labels) / count_parts(len(labels), batch_size))
        alone = anchors_without_positive(n_partners, len(labels), n_drawn) > MAX_WITHOUT_POSITIVE
        return "balanced" if weight > 0 and alone and batch_size >= 4 else "shuffle"
    if sampler == "balanced" and batch_size < 4:
        raise ValueError(
            f"batch_size={batch_size!r}: sampler='balanced' takes two samples of two classes, so "
            "at least 4 is required"
        )
    return sampler


def make_batch_sampler(
    sampler: str, labels: np.ndarray, batch_size: int, *, random_state: int
) -> ShuffledBatchSampler | ClassBalancedBatchSampler:
    """Make the batches of a fit, for labels of shape (n_samples,).

    Balanced batches hold as many classes as there is room for, with two samples of each or more.
    """
    if sampler == "shuffle":
        return ShuffledBatchSampler(len(labels), batch_size, random_state)
    samples_per_class = max(2, batch_size // len(np.unique(labels)))
    return ClassBalancedBatchSampler(
        labels,
        classes_per_batch=batch_size // samples_per_class,
        samples_per_class=samples_per_class,
        random_state=random_state,
    )


def anchors_without_positive(n_partners: np.ndarray, n_samples: int, batch_size: int) -> float:
    """Return the expected share of anchors without a positive in shuffled batches.

    ``n_partners`` (n_anchors,) counts the positives of each anchor and itself, of all samples.
    """
    sizes, counts = np.unique(n_partners, return_counts=True)
    drawn = min(batch_size, n_samples) - 1  # others in the batch
    log_alone = np.zeros(len(sizes))  # log-probability that none of them is a positive
    for already in range(drawn):
        others = n_samples - sizes - already
        left = n_samples - 1 - already
        with np.errstate(divide="ignore"):
            log_alone += np.log(np.maximum(others, 0) / left)
    return float(np.average(np.exp(log_alone), weights=counts)) if len(sizes) else 0.0
