"""How a net trains on rows: the split, the batches, the epochs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedShuffleSplit
from skorch.helper import predefined_split
from torch import Tensor
from torch.utils.data import Dataset, Subset

from .._distributed import is_main, rank
from ..data import LabelledFeatures, LabelledImages
from ..samplers import make_batch_sampler
from .assembly import Rows, make_augmentation, make_dataset
from .net import CLCENet


def train(
    net: CLCENet,
    params: Any,
    rows: Rows,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    features: Tensor | None,
    seed: int,
) -> None:
    """Train a net.

    Parameters
    ----------
    net : CLCENet
        Initialised; it is changed.
    params : CLCEClassifier
        Where the parameters are read.
    rows : Tensor or sequence of Tensor
        Features, or images.
    labels : ndarray of shape (n,)
        Class indices.
    weights : ndarray of shape (n,)
        Weights of the rows.
    features : Tensor of shape (n, n_features) or None
        Features of the rows, if nothing of the backbone trains. They are trained on
        instead of the images, unless those are to be augmented.
    seed : int
        Of the order of rows and the validation split.
    """
    net.augment = make_augmentation(params, net.module_, rows)
    if features is not None:
        if not net.module_.standardize.adapted:
            net.module_.standardize.adapt(features, torch.from_numpy(weights))
        rows = features if net.augment is None else rows
    dataset, net.train_split = make_dataset(net.module_, rows, labels, weights), None
    if params.early_stopping:
        train_rows, valid_rows = split_rows(labels, params.validation_fraction, seed)
        net.train_split = predefined_split(part_of(dataset, valid_rows))
        dataset, labels = part_of(dataset, train_rows), labels[train_rows]
    if not is_main():
        torch.manual_seed(seed + rank())  # or all processes would augment in the same way
    net.batch_sampler = make_batch_sampler(
        params.sampler, labels, params.batch_size, weight=params.weight, random_state=seed
    )
    if params.weight > 0 and params.n_views == 1:
        warn_of_lonely_anchors(net.batch_sampler, labels)
    net.partial_fit(dataset)
    net.train_split = None  # it holds the rows set aside


def part_of(dataset: LabelledFeatures | LabelledImages, rows: np.ndarray) -> Dataset:
    """Take some rows of a dataset.

    Parameters
    ----------
    dataset : LabelledFeatures or LabelledImages
        All rows.
    rows : ndarray of int
        The rows to take.

    Returns
    -------
    Dataset
        Of the same kind of batches.
    """
    if not isinstance(dataset, LabelledFeatures):
        return Subset(dataset, rows)
    features, (labels, weights) = dataset.__getitems__(torch.from_numpy(rows))
    return LabelledFeatures(features, labels.numpy(), weights.numpy())


def split_rows(
    labels: np.ndarray, validation_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Set rows of each class aside.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Class indices.
    validation_fraction : float
        Share of the rows to set aside, in (0, 1).
    seed : int
        Of the draw.

    Returns
    -------
    train_rows, valid_rows : ndarray of int
        Rows of each part.

    Raises
    ------
    ValueError
        If there are too few rows for a part of each class.
    """
    split = StratifiedShuffleSplit(1, test_size=validation_fraction, random_state=seed)
    try:
        return next(split.split(np.empty((len(labels), 0)), labels))
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True with validation_fraction={validation_fraction!r}: {error}"
        ) from error


def warn_of_lonely_anchors(batch_sampler: Any, labels: np.ndarray) -> None:
    """Warn where most anchors will not have a positive in their batch.

    Parameters
    ----------
    batch_sampler : Sampler
        The batches; left at the epoch where it was.
    labels : ndarray of shape (n,)
        Class indices.
    """
    epoch, n_paired = batch_sampler.epoch, 0
    n_rows = 0
    for batch in batch_sampler:
        counts = np.bincount(labels[batch])
        n_paired += counts[counts > 1].sum()
        n_rows += len(batch)
    batch_sampler.epoch = epoch
    if n_paired < n_rows / 2 and is_main():
        warnings.warn(
            f"only {n_paired} of {n_rows} anchors have a positive in their batch, so the "
            "contrastive term does little: take a larger batch_size, sampler='balanced', "
            "n_views=2, or weight=0",
            UserWarning,
            stacklevel=4,
        )
