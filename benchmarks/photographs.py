"""Photographs of seven domains, and parts of them."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

from .accuracy.sources import VARIABLE, read_npz

SETS = ("dtd10", "trashnet6", "rsscn7", "pacs_sketch", "signdigits10", "flowers5", "braintumor4")


def parser(description: str, *, may_train: bool = False) -> argparse.ArgumentParser:
    """Take the options that finding the photographs needs."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--data", help=f"folder of the photographs ({VARIABLE})")
    way = found.add_mutually_exclusive_group(required=True)
    way.add_argument("--features", type=Path, help="folder to keep features in")
    if may_train:
        way.add_argument("--trained", action="store_true", help="train the backbone, too")
    found.add_argument(
        "--draws", type=int, default=3, help="draws of classes and pictures of a set"
    )
    found.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    return found


def photographs(name: str, data: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return JPEG files as bytes (n,), labels (n,) and which are for training (n,)."""
    found = read_npz(data, f"{name}.npz")
    buffer, ends = found["jpeg"], found["offsets"]
    files = np.empty(len(ends) - 1, dtype=object)
    files[:] = [buffer[start:end].tobytes() for start, end in pairwise(ends)]
    return files, found["labels"], found["split"] == "train"


def draw_classes(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return classes to begin with, and a third of all, at least one, that is left out."""
    classes = np.random.default_rng(seed).permutation(np.unique(y))
    n_out = max(1, round(len(classes) / 3))
    return np.sort(classes[n_out:]), np.sort(classes[:n_out])


def draw_pictures(
    y: np.ndarray, among: np.ndarray, classes: np.ndarray, n_pictures: int, seed: int
) -> np.ndarray:
    """Return indices of some pictures of each class, of those that a mask allows."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.permutation(np.flatnonzero((y == label) & among))[:n_pictures] for label in classes]
    )
