"""Every form in which a user may have images."""

import numpy as np
import pandas as pd
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
    "with alpha": lambda images, _: np.concatenate([images, 0 * images[..., :1] + 9], axis=-1),
    "list of paths": save_images,
    "array of paths": lambda images, folder: np.array(save_images(images, folder)),
    "Path objects": lambda images, folder: [folder / p for p in save_images(images, folder)],
    "Series of paths": lambda images, folder: pd.Series(save_images(images, folder), name="path"),
    "frame of paths": lambda images, folder: pd.DataFrame({"path": save_images(images, folder)}),
    "Dataset": lambda images, _: PairDataset(images),
}
