"""Collections of pictures, and the part of one that a seed draws."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from . import sources

TEST_IMAGES = 25  # of each class at most


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


COLLECTIONS = {
    "flowers": Collection("flowers", 5, partial(sources.photographs, name="flowers5.npz")),
    "textures": Collection("textures", 10, partial(sources.photographs, name="dtd10.npz")),
    "waste": Collection("waste", 6, partial(sources.photographs, name="trashnet6.npz")),
    "mri": Collection("MRI slices", 4, partial(sources.photographs, name="braintumor4.npz")),
    "satellite": Collection("satellite", 7, partial(sources.photographs, name="rsscn7.npz")),
    "histology": Collection("histology", 3, partial(sources.photographs, name="lunghisto3.npz")),
    "sketches": Collection(
        "line drawings", 7, partial(sources.photographs, name="pacs_sketch.npz")
    ),
    "hands": Collection("hands", 10, partial(sources.photographs, name="signdigits10.npz")),
    "cifar100": Collection("CIFAR-100", 100, sources.cifar100),
    "caltech101": Collection("Caltech-101", 101, sources.caltech101),
    "omniglot": Collection("Omniglot", 242, sources.omniglot),
    "fashion_mnist": Collection("Fashion-MNIST", 10, sources.fashion_mnist),
    "digits": Collection("digits", 10, sources.digits),
    "cifar_fs": Collection(
        "CIFAR-FS", 64, partial(sources.few_shot_split, left_out=sources.CIFAR_FS)
    ),
    "caltech_fs": Collection("Caltech-101, split", 60, sources.caltech_split),
    "apparel": Collection(
        "clothes", 6, partial(sources.photographs, name="multilabel_apparel.npz", of="targets")
    ),
    "coco12": Collection(
        "COCO", 12, partial(sources.photographs, name="multilabel_coco12.npz", of="targets")
    ),
    "fc100": Collection("FC100", 60, partial(sources.few_shot_split, left_out=sources.FC100)),
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
        uint8 images and labels; at most 25 test images of a class.
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
    n_rows : int
        Rows of each class at most.
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
