"""Anything that a user calls images, as batches for a backbone."""

from ._batches import FeatureBatches, LabelledFeatures, LabelledImages
from ._images import ArrayImages, ListImages, as_images, load_image_folder, read_image
from ._transforms import Augmentation, EvaluationTransform, is_grey

__all__ = [
    "load_image_folder",
    "as_images",
    "read_image",
    "ArrayImages",
    "ListImages",
    "FeatureBatches",
    "LabelledFeatures",
    "LabelledImages",
    "Augmentation",
    "EvaluationTransform",
    "is_grey",
]
