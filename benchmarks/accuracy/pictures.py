"""Collections of pictures, and the part of one that a seed draws."""

import gzip
import io
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

VARIABLE = "SKLEARN_CLCE_DATA"
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
TEST_IMAGES = 100  # of each class at most
OMNIGLOT_TRAIN = 10  # of the 20 drawings of each character


@dataclass(frozen=True)
class Collection:
    """A data set with its split into training and test images.

    Parameters
    ----------
    title : str
        Its name for readers.
    n_classes : int
        Classes to train on.
    load : callable
        Maps the folder of data to ``(x_train, y_train, x_test, y_test)``; images are
        uint8 and may be indexed by an array of rows.
    """

    title: str
    n_classes: int
    load: object


class Photographs:
    """JPEG files in one buffer, decoded when they are asked for.

    Parameters
    ----------
    buffer : ndarray of uint8
        The files, one after the other.
    offsets : ndarray of shape (n + 1,)
        Where each begins.
    rows : ndarray of int
        Which of them.
    """

    def __init__(self, buffer, offsets, rows):
        self.buffer, self.offsets, self.rows = buffer, offsets, rows

    def __getitem__(self, rows):
        return np.stack([self._central_square(row) for row in self.rows[rows]])

    def _central_square(self, row):
        from PIL import Image, ImageOps

        content = self.buffer[self.offsets[row] : self.offsets[row + 1]].tobytes()
        image = Image.open(io.BytesIO(content)).convert("RGB")
        return np.asarray(ImageOps.fit(image, (128, 128), Image.Resampling.BICUBIC))


def read_npz(folder, name):
    """Open one of the files of the folder of data.

    Parameters
    ----------
    folder : path or None
        None reads the environment variable.
    name : str
        Name of the file.

    Returns
    -------
    NpzFile
        Its arrays.

    Raises
    ------
    FileNotFoundError
        If it is not there; the message says where it was looked for.
    """
    folder = folder or os.environ.get(VARIABLE)
    if folder is None:
        raise FileNotFoundError(
            f"{name}: no folder of data is set; give --data FOLDER or set {VARIABLE}"
        )
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"{name}: there is no {path} (--data, or {VARIABLE})")
    return np.load(path, allow_pickle=False)


def cifar100(folder):
    """Read CIFAR-100: from the folder of data, else by torchvision, which may download it."""
    try:
        data = read_npz(folder, "cifar100_125.npz")
        return tuple(data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    except FileNotFoundError as error:
        parts = [_torchvision("CIFAR100", folder, error, train=train) for train in (True, False)]
        return tuple(array for part in parts for array in (part.data, np.array(part.targets)))


def class_split(folder, split):
    """Read CIFAR-100 with classes to train on and new ones to learn from a few images."""
    data = read_npz(folder, "cifar100_125.npz")
    images = np.concatenate([data["x_train"], data["x_test"]])
    labels = np.concatenate([data["y_train"], data["y_test"]])
    part = data[split][labels]
    base, novel = part == "train", part == "test"
    return images[base], labels[base], images[novel], labels[novel]


def caltech101(folder):
    """Read Caltech-101; photographs are cut to their central square."""
    data = read_npz(folder, "caltech101_128px.npz")
    buffer, offsets, labels = data["jpeg"], data["offsets"], data["labels"]
    train, test = (np.flatnonzero(data["split"] == part) for part in ("train", "test"))
    images = partial(Photographs, buffer, offsets)
    return images(train), labels[train], images(test), labels[test]


def omniglot(folder):
    """Read Omniglot: each character's first drawings are for training, the others for test."""
    data = read_npz(folder, "omniglot_242.npz")
    images, labels = data["x"], data["y"]
    order = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        order[labels == label] = np.arange((labels == label).sum())
    train = order < OMNIGLOT_TRAIN
    return images[train], labels[train], images[~train], labels[~train]


def fashion_mnist(folder):
    """Read Fashion-MNIST: Debian's package, else by torchvision, which may download it."""
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in KINDS]
    if all((FASHION_MNIST_FOLDER / name).is_file() for name in names):
        return tuple(_read_idx(FASHION_MNIST_FOLDER / name) for name in names)
    error = FileNotFoundError(f"Fashion-MNIST is not in {FASHION_MNIST_FOLDER}")
    parts = [_torchvision("FashionMNIST", folder, error, train=train) for train in (True, False)]
    return tuple(array.numpy() for part in parts for array in (part.data, part.targets))


def digits(folder):
    """Read scikit-learn's digits; every third image of a class is for test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = np.round(data.images * (255 / 16)).astype(np.uint8), data.target
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[::3]] = True
    return images[~test], labels[~test], images[test], labels[test]


KINDS = ("images-idx3", "labels-idx1")
COLLECTIONS = {
    "cifar100": Collection("CIFAR-100", 100, cifar100),
    "caltech101": Collection("Caltech-101", 101, caltech101),
    "omniglot": Collection("Omniglot", 242, omniglot),
    "fashion_mnist": Collection("Fashion-MNIST", 10, fashion_mnist),
    "digits": Collection("digits", 10, digits),
    "cifar_fs": Collection("CIFAR-FS", 64, partial(class_split, split="cifar_fs_split")),
    "fc100": Collection("FC100", 60, partial(class_split, split="fc100_split")),
}


def draw(collection, *, n_classes, shots, seed, folder=None):
    """Read the part of a collection that a seed draws.

    The classes depend on the seed alone, and fewer shots are some of more shots.

    Parameters
    ----------
    collection : Collection
        What to draw from.
    n_classes : int
        Classes to draw.
    shots : int or None
        Training images of each class; None: all.
    seed : int
        Of the draw.
    folder : path, default=None
        Folder of data.

    Returns
    -------
    x_train, y_train, x_test, y_test : ndarray
        uint8 images and labels; at most 100 test images of a class.
    """
    x_train, y_train, x_test, y_test = collection.load(folder)
    classes = np.random.default_rng(seed).permutation(np.unique(y_train))[:n_classes]
    train = rows_of_each(y_train, classes, shots, seed)
    test = rows_of_each(y_test, classes, TEST_IMAGES, seed)
    return x_train[train], y_train[train], x_test[test], y_test[test]


def rows_of_each(labels, classes, n_rows, seed):
    """Draw rows of each class; those of one do not depend on the other classes.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Labels.
    classes : ndarray
        Which of them.
    n_rows : int or None
        Rows of each class at most; None: all.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray of int
        Rows.
    """
    return np.concatenate(
        [
            np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))[
                :n_rows
            ]
            for label in np.sort(classes)
        ]
    )


def resize_once(images, config):
    """Bring images to the size that a backbone's preprocessing resizes to.

    What it would do in every epoch is then done.

    Parameters
    ----------
    images : ndarray of shape (n, H, W) or (n, H, W, C), uint8
        Images.
    config : BackboneConfig
        How the backbone wants its images.

    Returns
    -------
    ndarray of shape (n, side, side) or (n, side, side, C), uint8
        Resized.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    side = int(config.image_size / config.crop_pct)
    tensor = torch.from_numpy(images if images.ndim == 4 else images[..., None])
    tensor = resize(
        tensor.permute(0, 3, 1, 2),
        [side, side],
        interpolation=InterpolationMode(config.interpolation),
        antialias=True,
    )
    return (
        tensor.permute(0, 2, 3, 1).contiguous().numpy().reshape(-1, side, side, *images.shape[3:])
    )


def _read_idx(path):
    """Read an array in the idx format: a magic number, the lengths of the axes, bytes."""
    with gzip.open(path) as file:
        n_axes = int.from_bytes(file.read(4), "big") & 0xFF
        shape = [int.from_bytes(file.read(4), "big") for _ in range(n_axes)]
        return np.frombuffer(file.read(), dtype=np.uint8).reshape(shape)


def _torchvision(name, folder, error, *, train):
    """Let torchvision read a data set, and say where everything was looked for if it can't."""
    from torchvision import datasets

    root = Path(folder or os.environ.get(VARIABLE) or Path.home() / ".cache" / "sklearn_clce")
    try:
        return getattr(datasets, name)(root, train=train, download=True)
    except (OSError, RuntimeError) as reason:
        raise FileNotFoundError(
            f"{error}; torchvision can't download {name} to {root} either ({reason})"
        ) from reason
