"""Features of a frozen backbone: taken from a store, else computed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._system import (
    FileState,
    bar,
    count,
    digest_file,
    gather_objects,
    is_main,
    n_processes,
    note,
    own_share,
    state_of,
    warn,
)
from ..backbones import FrozenBackbone, UndescribableError
from ..data import (
    ArrayImages,
    ImageBatches,
    Images,
    LabelledImages,
    ListImages,
    PartOfImages,
    evaluation_transform,
)
from ._process_store import ProcessStore
from ._store import FeatureStore

Store = FeatureStore | ProcessStore
MAX_FILES = 200_000  # whose digests are known
MAX_IMAGES = 50_000  # at a time; the store of the process would drop them before they come again
# Images whose passes take several times as long as describing a backbone, by type of the device.
MIN_IMAGES, MIN_ON_DEVICE = {"cpu": 8}, 1024
SETTLED_NS = 2_000_000_000  # a second write soon after may leave the modification time as it was


def features_of(
    images: Images,
    backbone: FrozenBackbone,
    *,
    store: Store | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    num_workers: int | None = None,
    verbose: int | bool = 0,
) -> Tensor:
    """Compute features (n, d) of images, float32 on the CPU, or take those that are kept.

    With a store, the backbone runs once for each image that the store does not hold, and
    once for equal images; each batch is kept as soon as it is computed. A kept feature is
    returned bit for bit. Rounding may depend on the number of images in a batch, so that a
    feature computed in a batch of another size may differ in its last bits. Processes that
    train together share the missing images.
    """
    device = torch.device(device)
    data = LabelledImages(images, evaluation_transform(backbone.config))
    if isinstance(store, ProcessStore) and not _pays(images, backbone, device):
        store = None
    run_key = b"" if store is None else _run_key(backbone, device, precision, store)
    if run_key is None:
        store = None
    keys = _keys(images, range(len(images)), store, run_key)
    kept = {} if store is None else store.get(keys)
    missing = {key: index for index, key in reversed(list(enumerate(keys))) if key not in kept}
    indices = sorted(set().union(*gather_objects(list(missing.values()))))
    shown = bool(verbose) and is_main()
    if shown and (n_kept := sum(key in kept for key in keys)):
        note(f"{_how_many(n_kept, len(keys))} in memory")
    parts = list(_parts(own_share(indices), batch_size))
    batches = ImageBatches(data, parts, num_workers=num_workers, device=device)
    run = backbone.runner(device, precision) if parts else None
    computed: dict[Any, np.ndarray] = {}
    what = "features" if verbose else ""
    with bar(total=len(own_share(indices)), unit="image", what=what, shown=shown) as progress:
        for part, (batch, _) in zip(parts, batches, strict=True):
            assert run is not None
            vectors = run(batch).numpy()
            computed |= {keys[index]: vector for index, vector in zip(part, vectors, strict=True)}
            if store is not None:
                now = _keys(images, part, store, run_key)
                # an image that changed while it was read has no key
                same = [key for index, key in zip(part, now, strict=True) if keys[index] == key]
                store.put({key: computed[key] for key in same})
            progress.update(len(part))
    for others in gather_objects(computed):
        kept |= others
    return torch.from_numpy(np.stack([kept[key] for key in keys]))


def _pays(images: Images, backbone: FrozenBackbone, device: torch.device) -> bool:
    """Return whether a store that nobody asked for costs less than it may save.

    Describing a backbone takes as long as a few images; so does reading what is neither a file nor
    in memory. Processes that train together would each know another part.
    """
    n_least = MIN_IMAGES.get(device.type, MIN_ON_DEVICE) if backbone.is_new else 1
    return images.is_thread_safe and n_least <= len(images) <= MAX_IMAGES and n_processes() == 1


def _run_key(
    backbone: FrozenBackbone, device: torch.device, precision: str, store: Store
) -> bytes | None:
    """Digest all that features depend on except the image; None, with a warning, if unknown."""
    try:
        fingerprint = backbone.fingerprint
    except UndescribableError as error:
        if isinstance(store, ProcessStore):  # nobody asked for it
            return None
        warn(
            f"backbone={type(backbone.module).__name__} can't be described, so its features are "
            f"not kept: {error}"
        )
        return None
    settings = device.type, precision, torch.get_float32_matmul_precision()
    return hashlib.sha256(f"{fingerprint} {settings}".encode()).digest()


def _keys(
    images: Images, indices: Sequence[int], store: Store | None, run_key: bytes | None
) -> list[Any]:
    """Return the key of each image's feature; without a store, its index."""
    if store is None or run_key is None:
        return list(indices)
    digests = image_digests(images, indices)
    return [hashlib.sha256(run_key + digest).digest() for digest in digests]


def image_digests(images: Images, indices: Sequence[int]) -> list[bytes]:
    """Digest images as they are before preprocessing: pixels, or the content of files."""
    layout = f"layout: {images.layout}"
    if isinstance(images, ArrayImages):
        return [_digest_pixels(images.array[index], layout) for index in indices]
    if isinstance(images, PartOfImages):
        return image_digests(images.images, [images.indices[index] for index in indices])
    return [_digest_image(images, index, layout) for index in indices]


def _digest_image(images: Images, index: int, layout: str) -> bytes:
    item = images.item(index) if isinstance(images, ListImages) else None
    if isinstance(item, (bytes, bytearray, memoryview)):
        return layout.encode() + hashlib.sha256(item).digest()
    if not isinstance(item, (str, os.PathLike)):
        return _digest_pixels(images.decode(index).numpy(), layout)
    try:
        return layout.encode() + digest_of_file(item)
    except OSError:
        images[index]  # its message says which image can't be read
        raise


def _digest_pixels(pixels: np.ndarray, layout: str) -> bytes:
    digest = hashlib.sha256(f"{layout} {pixels.dtype.str} {pixels.shape}\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def digest_of_file(path: str | os.PathLike[str]) -> bytes:
    """Digest the content of a file, which is read once while nothing about it changes.

    That is its path, size, inode and times; a file that was modified within the last two
    seconds is read each time.
    """
    state = state_of(path)
    is_settled = state.modified < time.time_ns() - SETTLED_NS
    return _digest_settled(os.path.abspath(path), state) if is_settled else digest_file(path)


@lru_cache(MAX_FILES)
def _digest_settled(path: str, state: FileState) -> bytes:
    return digest_file(path)


def _how_many(n_kept: int, n: int) -> str:
    if n_kept == n:
        return f"all {count(n, 'image')} were"
    return f"{n_kept:,} of {count(n, 'image')} {'was' if n_kept == 1 else 'were'}"


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
