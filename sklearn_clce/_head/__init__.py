"""From features to logits and embeddings: layers, closed forms, new columns; tensors alone."""

from .by_label import (
    add_labels,
    rarest_labels,
    refit_by_label,
    start_head_by_label,
    start_late_labels,
)
from .closed_form import MAX_REGRESSED, refit_classifier, start_head
from .head import MAX_PER_CLASS, Head, HeadConfig, energy_of_classes, less_distance
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
    "start_head_by_label",
    "refit_by_label",
    "add_labels",
    "start_late_labels",
    "rarest_labels",
    "energy_of_classes",
    "MAX_PER_CLASS",
    "less_distance",
    "MAX_REGRESSED",
]
