"""From features to logits and embeddings: layers, closed forms, new columns; tensors alone."""

from .closed_form import MAX_REGRESSED, refit_classifier, start_head
from .head import MAX_PER_CLASS, Head, HeadConfig
from .layers import BatchInvariantLinear
from .new_columns import add_classes, start_late_classes

__all__ = [
    "Head",
    "HeadConfig",
    "BatchInvariantLinear",
    "start_head",
    "refit_classifier",
    "add_classes",
    "start_late_classes",
    "MAX_PER_CLASS",
    "MAX_REGRESSED",
]
