"""Anything that a user calls images, as batches for a backbone."""

from ._augmentation import Augmentation, all_grey, is_grey
from ._batches import FeatureBatches, LabelledFeatures, LabelledImages
from ._folder import load_image_folder
from ._kinds import as_images, is_on_disk
from ._loading import ImageBatches
from ._pixels import as_float
from ._room import MemoryBudget
from ._sequences import ArrayImages, Images, ListImages, PartOfImages
from ._transforms import EvaluationTransform, RandomCrops
from ._unreadable import find_unreadable

__all__ = [
    "load_image_folder",
    "find_unreadable",
    "as_images",
    "as_float",
    "is_on_disk",
    "Images",
    "ArrayImages",
    "ListImages",
    "PartOfImages",
    "FeatureBatches",
    "LabelledFeatures",
    "LabelledImages",
    "ImageBatches",
    "MemoryBudget",
    "Augmentation",
    "EvaluationTransform",
    "RandomCrops",
    "all_grey",
    "is_grey",
]
