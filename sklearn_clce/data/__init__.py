"""Anything that a user calls images, as batches for a backbone."""

from ._batches import FeatureBatches, LabelledFeatures, LabelledImages, MemoryBudget
from ._folder import find_unreadable, list_images, load_image_folder, read_errors
from ._kinds import as_images, is_on_disk
from ._loading import ImageBatches
from ._pixels import as_float
from ._samplers import (
    ClassBalancedBatchSampler,
    ShuffledBatchSampler,
    count_parts,
    make_batch_sampler,
    resolve_sampler,
)
from ._sequences import ArrayImages, Images, ListImages, PartOfImages, as_indices, is_single
from ._transforms import (
    Augmentation,
    EvaluationTransform,
    RandomCrops,
    Transform,
    augmented,
    check_augment,
    evaluation_transform,
)

__all__ = [
    "ClassBalancedBatchSampler",
    "ShuffledBatchSampler",
    "count_parts",
    "make_batch_sampler",
    "resolve_sampler",
    "load_image_folder",
    "list_images",
    "find_unreadable",
    "read_errors",
    "as_images",
    "as_float",
    "as_indices",
    "is_single",
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
    "evaluation_transform",
    "RandomCrops",
    "Transform",
    "augmented",
    "check_augment",
]
