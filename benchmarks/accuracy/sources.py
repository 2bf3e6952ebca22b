"""Where pictures come from: a folder of arrays, packages, or torchvision, which may download."""

import gzip
import io
import os
from functools import partial
from pathlib import Path

import numpy as np

VARIABLE = "SKLEARN_CLCE_DATA"
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
KINDS = ("images-idx3", "labels-idx1")
OMNIGLOT_TRAIN = 10  # of the 20 drawings of each character
CALTECH_TRAIN, CALTECH_TEST = 40, 20  # photographs of each class at most
CALTECH_BASE = 60  # classes of Caltech-101 to train on; the others are new
SIDE, SIDE_OF_CALTECH = 256, 128  # pixels
# Classes of CIFAR-100 that are left out of training: those of validation, which nothing here
# uses, and those of the test episodes.
CIFAR_FS = (
    "beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter "
    "sea shark television tractor",
    "baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail "
    "sweet_pepper table telephone wardrobe whale woman worm",
)
FC100 = (
    "bear camel cattle chimpanzee crab elephant hamster kangaroo leopard lion lobster mouse rabbit "
    "shrew snail spider squirrel tiger wolf worm",
    "baby beaver bee beetle boy butterfly caterpillar cockroach dolphin fox girl man otter "
    "porcupine possum raccoon seal skunk whale woman",
)


class LazyImages:
    """Images that are read when they are asked for.

    Parameters
    ----------
    read : callable
        Maps a row to an image.
    rows : ndarray of int
        Which rows.
    """

    def __init__(self, read, rows):
        self.read, self.rows = read, rows

    def __getitem__(self, rows):
        return np.stack([self.read(row) for row in self.rows[rows]])


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
    """Read CIFAR-100."""
    return _cifar100(folder)[:4]


def few_shot_split(folder, left_out):
    """Read CIFAR-100 with classes to train on and new ones to learn from a few images."""
    *parts, names = _cifar100(folder)
    images, labels = (np.concatenate(parts[axis::2]) for axis in (0, 1))
    validation, test = (np.isin(names, text.split())[labels] for text in left_out)
    base = ~(validation | test)
    return images[base], labels[base], images[test], labels[test]


def _cifar100(folder):
    try:
        data = read_npz(folder, "cifar100_125.npz")
    except FileNotFoundError as error:
        train, test = (_torchvision("CIFAR100", folder, error, train=one) for one in (True, False))
        arrays = (train.data, np.array(train.targets), test.data, np.array(test.targets))
        return *arrays, np.array(train.classes)
    names = ("x_train", "y_train", "x_test", "y_test", "class_names")
    return tuple(data[name] for name in names)


def photographs(folder, name, side=SIDE, of="labels"):
    """Read a file of photographs, which are cut to their central square, and what they show."""
    data = read_npz(folder, name)
    labels, split = data[of], data["split"]
    images = partial(LazyImages, partial(_photograph, data["jpeg"], data["offsets"], side))
    train, test = (np.flatnonzero(split == part) for part in ("train", "test"))
    return images(train), labels[train], images(test), labels[test]


def caltech101(folder):
    """Read Caltech-101; photographs are cut to their central square."""
    try:
        return photographs(folder, "caltech101_128px.npz", SIDE_OF_CALTECH)
    except FileNotFoundError as error:
        downloaded = _torchvision("Caltech101", folder, error)
    labels = np.array(downloaded.y)
    train, test = split_of_each(labels, CALTECH_TRAIN, CALTECH_TEST)
    images = partial(LazyImages, lambda row: central_square(downloaded[row][0], SIDE_OF_CALTECH))
    return images(train), labels[train], images(test), labels[test]


def caltech_split(folder):
    """Read training images of some classes of Caltech-101, and test images of the others."""
    train, y_train, test, y_test = caltech101(folder)
    base = np.random.default_rng(0).permutation(np.unique(y_train))[:CALTECH_BASE]
    seen, new = (
        np.flatnonzero(np.isin(labels, base) == kind)
        for labels, kind in ((y_train, True), (y_test, False))
    )
    return (
        LazyImages(train.read, train.rows[seen]),
        y_train[seen],
        LazyImages(test.read, test.rows[new]),
        y_test[new],
    )


def omniglot(folder):
    """Read Omniglot: some drawings of each character are for training, the others for test."""
    try:
        data = read_npz(folder, "omniglot_242.npz")
        images, labels = data["x"], data["y"]
    except FileNotFoundError as error:
        drawings = _torchvision("Omniglot", folder, error)
        images, labels = (np.array(part) for part in zip(*drawings, strict=True))
    train, test = first_of_each(labels, OMNIGLOT_TRAIN)
    return images[train], labels[train], images[test], labels[test]


def fashion_mnist(folder):
    """Read Fashion-MNIST: Debian's package, else by torchvision."""
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


def first_of_each(labels, n_rows):
    """Split rows into the first of each class and the others.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Labels.
    n_rows : int
        How many of each class come first.

    Returns
    -------
    first, others : ndarray of int
        Rows, in their order.
    """
    order = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        order[labels == label] = np.arange((labels == label).sum())
    return np.flatnonzero(order < n_rows), np.flatnonzero(order >= n_rows)


def split_of_each(labels, n_train, n_test):
    """Draw rows of each class for training and for test, the same ones always.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Labels.
    n_train, n_test : int
        How many of each class at most; of a small class a third is for test.

    Returns
    -------
    train, test : ndarray of int
        Rows.
    """
    rng, train, test = np.random.default_rng(0), [], []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n_of_class = min(n_test, len(rows) // 3)
        test.append(rows[:n_of_class])
        train.append(rows[n_of_class : n_of_class + n_train])
    return np.concatenate(train), np.concatenate(test)


def central_square(image, side):
    """Cut a PIL photograph to its central square, and resize that to (side, side, 3)."""
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC)
    return np.asarray(fitted)


def _photograph(buffer, offsets, side, row):
    """Decode one of the JPEG files that lie in one buffer."""
    from PIL import Image

    content = buffer[offsets[row] : offsets[row + 1]].tobytes()
    return central_square(Image.open(io.BytesIO(content)), side)


def _read_idx(path):
    """Read an array in the idx format: a magic number, the lengths of the axes, bytes."""
    with gzip.open(path) as file:
        n_axes = int.from_bytes(file.read(4), "big") & 0xFF
        shape = [int.from_bytes(file.read(4), "big") for _ in range(n_axes)]
        return np.frombuffer(file.read(), dtype=np.uint8).reshape(shape)


def _torchvision(name, folder, error, **part):
    """Let torchvision read a data set, and say where everything was looked for if it can't."""
    from torchvision import datasets

    root = Path(folder or os.environ.get(VARIABLE) or Path.home() / ".cache" / "sklearn_clce")
    try:
        return getattr(datasets, name)(root, download=True, **part)
    except (OSError, RuntimeError) as reason:
        raise FileNotFoundError(
            f"{error}; torchvision can't download {name} to {root} either ({reason})"
        ) from reason
