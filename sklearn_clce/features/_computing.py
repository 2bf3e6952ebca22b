"""Features of a frozen backbone: looked up where they are kept, else computed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._distributed import from_all, is_main, share_of
from ..backbones import FrozenBackbone
from ..data import ArrayImages, EvaluationTransform, LabelledImages, ListImages
from ._store import EmbeddingStore


def features_of(
    images: Sequence[Tensor],
    backbone: FrozenBackbone,
    *,
    store: EmbeddingStore | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    verbose: int = 0,
) -> Tensor:
    """Compute features of images, or take those that are kept.

    With a store the backbone runs once for each image that the store does not hold,
    equal images counted once, and each batch is kept as soon as it is computed. A kept
    feature is returned bit for bit as it was computed. The rounding of a feature may
    depend on the number of images in its batch, not on which they are; so one that is
    computed in another batch may differ in its last bits. Several processes that train
    together share the missing images among them.

    Parameters
    ----------
    images : sequence of Tensor
        What :func:`~sklearn_clce.data.as_images` returns.
    backbone : FrozenBackbone
        What computes the features.
    store : EmbeddingStore, default=None
        Where features are kept; None computes all.
    batch_size : int, default=32
        Images in a batch.
    device : torch.device or str, default="cpu"
        Where to compute. Features of the CPU and of a GPU are kept apart.
    precision : {"float32", "bfloat16"}, default="float32"
        "bfloat16" computes under autocast.
    verbose : int, default=0
        1 prints on how many images the backbone runs.

    Returns
    -------
    Tensor of shape (n, d), float32
        Features in the order of the images, on the CPU.
    """
    device = torch.device(device)
    data = LabelledImages(images, EvaluationTransform(backbone.config))
    keys = _keys(images, range(len(images)), store, backbone, device, precision)
    kept = {} if store is None else store.get(keys)
    missing = {key: row for row, key in reversed(list(enumerate(keys))) if key not in kept}
    rows = sorted(set().union(*from_all(list(missing.values()))))
    if verbose and is_main():
        print(f"[BackboneFeatures] running the backbone on {len(rows)} of {len(images)} images")
    run = backbone.runner(device, precision) if rows else None
    computed = {}
    for part in _parts(share_of(rows), batch_size):
        vectors = run(data.__getitems__(part)[0]).numpy()
        computed |= {keys[row]: vector for row, vector in zip(part, vectors, strict=True)}
        if store is not None:
            now = _keys(images, part, store, backbone, device, precision)
            # an image that changed while it was read belongs to no key
            same = [key for row, key in zip(part, now, strict=True) if keys[row] == key]
            store.put({key: computed[key] for key in same})
    for others in from_all(computed):
        kept |= others
    return torch.from_numpy(np.stack([kept[key] for key in keys]))


def _keys(
    images: Sequence[Tensor],
    rows: Sequence[int],
    store: EmbeddingStore | None,
    backbone: FrozenBackbone,
    device: torch.device,
    precision: str,
) -> list[Any]:
    """Return what the feature of each row is kept under; without a store, the row."""
    if store is None:
        return list(rows)
    how = f"{backbone.fingerprint} {device.type} {precision} {getattr(images, 'layout', '')}"
    run = hashlib.sha256(how.encode()).digest()
    return [hashlib.sha256(run + image).digest() for image in _image_digests(images, rows, store)]


def _image_digests(
    images: Sequence[Tensor], rows: Sequence[int], store: EmbeddingStore
) -> list[bytes]:
    """Digest images as they are before preprocessing: pixels, or the content of files."""
    if isinstance(images, ArrayImages):
        return [_digest_pixels(images.array[row], "array") for row in rows]
    if not isinstance(images, ListImages):
        return [_digest_pixels(images[row].numpy(), "tensor") for row in rows]
    paths: dict[int, str | os.PathLike[str]] = {}
    digests: dict[int, bytes] = {}
    for row in rows:
        item = images.item(row)
        if isinstance(item, (str, os.PathLike)):
            paths[row] = item
        else:
            digests[row] = _digest_pixels(images[row].numpy(), "tensor")
    try:
        digests |= zip(paths, store.file_digests(list(paths.values())), strict=True)
    except OSError:
        for row in paths:
            images[row]  # the message for one that can't be read names its row
        raise
    return [digests[row] for row in rows]


def _digest_pixels(pixels: np.ndarray, layout: str) -> bytes:
    digest = hashlib.sha256(f"{layout} {pixels.dtype.str} {pixels.shape}\n".encode())
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
