"""The criterion: cross-entropy and a label-aware contrastive loss with hard-negative weighting."""

from ._contrastive import LabelAwareContrastiveLoss, label_aware_contrastive_loss
from ._criterion import CLCELoss, clce_loss
from ._label_sets import LabelSetPairs, label_set_pairs
from ._multilabel import MultilabelCLCELoss
from ._plain import l2_normalise

__all__ = [
    "CLCELoss",
    "LabelAwareContrastiveLoss",
    "LabelSetPairs",
    "MultilabelCLCELoss",
    "clce_loss",
    "label_aware_contrastive_loss",
    "label_set_pairs",
    "l2_normalise",
]
