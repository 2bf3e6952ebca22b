"""The criterion: cross-entropy and a label-aware contrastive loss with hard-negative weighting."""

from ._contrastive import LabelAwareContrastiveLoss, label_aware_contrastive_loss
from ._criterion import CLCELoss, clce_loss
from ._multilabel import MultilabelCLCELoss
from ._plain import l2_normalise

__all__ = [
    "CLCELoss",
    "LabelAwareContrastiveLoss",
    "MultilabelCLCELoss",
    "clce_loss",
    "label_aware_contrastive_loss",
    "l2_normalise",
]
