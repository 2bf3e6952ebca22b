"""Splits that keep the share of each label, where samples have several."""

from __future__ import annotations

import numpy as np


def split_by_labels(labels: np.ndarray, n_aside: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Set samples aside so that each label has nearly its share on both sides [1]_.

    The rarest label is split first: its samples go where more of it are still wanted.
    Shapes: labels (n, n_classes) of 0 and 1 -> indices (n - n_aside,) and (n_aside,).

    References
    ----------
    .. [1] Sechidis, K. et al. "On the Stratification of Multi-Label Data", ECML PKDD 2011.
    """
    n = len(labels)
    order = np.random.default_rng(seed).permutation(n)
    wanted = np.array([n - n_aside, n_aside])  # samples of both sides
    wanted_by_label = wanted[:, None] / n * labels.sum(axis=0)  # (2, n_classes)
    sides = np.full(n, -1)
    while (left := labels[sides < 0].sum(axis=0)).any():
        label = np.where(left > 0, left, n + 1).argmin()
        for index in order[(sides[order] < 0) & (labels[order, label] > 0)]:
            side = max(0, 1, key=lambda s: (wanted[s] > 0, wanted_by_label[s, label], wanted[s]))
            sides[index] = side
            wanted[side] -= 1
            wanted_by_label[side] -= labels[index]
    without = order[sides[order] < 0]
    sides[without] = np.arange(len(without)) < wanted[1]
    return np.flatnonzero(sides == 0), np.flatnonzero(sides == 1)
