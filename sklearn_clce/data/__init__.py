"""Anything that a user calls images, as batches for a backbone."""

from ._batches import FeatureBatches, LabelledFeatures, LabelledImages
from ._folder import load_image_folder
from ._kinds import as_images
from ._reading import read_image
from ._sequences import ArrayImages, Images, ListImages
from ._transforms import Augmentation, EvaluationTransform, is_grey
from ._unreadable import find_unreadable

__all__ = [
    "load_image_folder",
    "find_unreadable",
    "as_images",
    "read_image",
    "Images",
    "ArrayImages",
    "ListImages",
    "FeatureBatches",
    "LabelledFeatures",
    "LabelledImages",
    "Augmentation",
    "EvaluationTransform",
    "is_grey",
]
