"""Every form in which a user may have images."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset


class PairDataset(Dataset):
    """A map-style dataset of (PIL image, label), as torchvision's are."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return Image.fromarray(self.images[row]), 0


class DictDataset(Dataset):
    """A dataset of columns, as those of the package ``datasets`` are."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def in_h5py(images, folder):
    h5py = pytest.importorskip("h5py")
    return h5py.File(folder / "images.h5", "w").create_dataset("x", data=images, chunks=True)


def in_zarr(images, folder):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(folder / "images.zarr", shape=images.shape, dtype=images.dtype)
    array[:] = images
    return array


def in_datasets(images, folder, **options):
    """Return a Dataset of the package ``datasets``, with a column of images and one of labels."""
    datasets = pytest.importorskip("datasets")
    columns = {"label": [0] * len(images), "image": save_images(images, folder)}
    column = datasets.Image(**options)
    return datasets.Dataset.from_dict(columns).cast_column("image", column)


def save_images(images, folder):
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{row}.png") for row in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def ragged(images):
    """An object array of arrays, for arrays of different sizes."""
    array = np.empty(len(images), dtype=object)
    array[:] = list(images)
    return array


KINDS = {
    "uint8 (n, H, W, C)": lambda images, _: images,
    "uint8 (n, C, H, W)": lambda images, _: images.transpose(0, 3, 1, 2),
    "int64": lambda images, _: images.astype(np.int64),
    "float64": lambda images, _: images / 255,
    "float32": lambda images, _: (images / 255).astype(np.float32),
    "tensor": lambda images, _: torch.from_numpy(images).permute(0, 3, 1, 2),
    "float tensor": lambda images, _: torch.from_numpy(images / 255),
    "PIL": lambda images, _: [Image.fromarray(image) for image in images],
    "list of arrays": lambda images, _: list(images),
    "list of tensors": lambda images, _: [torch.from_numpy(i).permute(2, 0, 1) for i in images],
    "object array": lambda images, _: ragged(images),
    "nested lists": lambda images, _: images.tolist(),
    "opaque": lambda images, _: np.concatenate([images, 0 * images[..., :1] + 255], axis=-1),
    "list of paths": save_images,
    "array of paths": lambda images, folder: np.array(save_images(images, folder)),
    "Path objects": lambda images, folder: [folder / p for p in save_images(images, folder)],
    "Series of paths": lambda images, folder: pd.Series(save_images(images, folder), name="path"),
    "frame of paths": lambda images, folder: pd.DataFrame({"path": save_images(images, folder)}),
    "bytes": lambda images, folder: [Path(p).read_bytes() for p in save_images(images, folder)],
    "files": lambda images, folder: [
        BytesIO(Path(p).read_bytes()) for p in save_images(images, folder)
    ],
    "dicts of bytes": lambda images, folder: [
        {"bytes": Path(p).read_bytes(), "path": None} for p in save_images(images, folder)
    ],
    "dicts of paths": lambda images, folder: [
        {"bytes": None, "path": p} for p in save_images(images, folder)
    ],
    "Dataset of dicts": lambda images, folder: DictDataset(
        [{"id": 3, "photo": p, "label": "cat"} for p in save_images(images, folder)]
    ),
    "datasets": in_datasets,
    "datasets, numpy": lambda images, folder: in_datasets(images, folder).with_format("numpy"),
    "datasets, torch": lambda images, folder: in_datasets(images, folder).with_format("torch"),
    "datasets, encoded": lambda images, folder: in_datasets(images, folder, decode=False),
    "column of datasets": lambda images, folder: in_datasets(images, folder)["image"],
    "lists as samples": lambda images, folder: [[p, "cat"] for p in save_images(images, folder)],
    "h5py": in_h5py,
    "zarr": in_zarr,
    "Dataset": lambda images, _: PairDataset(images),
}
