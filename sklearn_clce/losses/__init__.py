"""The criterion: cross-entropy and a label-aware contrastive loss with hard-negative weighting."""

from ._criterion import (
    CLCELoss,
    LabelAwareContrastiveLoss,
    clce_loss,
    l2_normalise,
    label_aware_contrastive_loss,
)

__all__ = [
    "CLCELoss",
    "LabelAwareContrastiveLoss",
    "clce_loss",
    "label_aware_contrastive_loss",
    "l2_normalise",
]
