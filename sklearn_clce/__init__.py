"""Fine-tune pretrained image backbones with the CLCE criterion, the scikit-learn way."""

from .backbones import backbone_aliases
from .classifier import CLCEClassifier
from .data import ClassBalancedBatchSampler, find_unreadable, list_images, load_image_folder
from .deployment import model_card
from .displays import (
    AttributionDisplay,
    EmbeddingDisplay,
    TopLossesDisplay,
    TrainingCurveDisplay,
)
from .evaluation import EpisodeSplit, compare, few_shot_score
from .features import BackboneFeatures, FeatureStore
from .losses import (
    CLCELoss,
    LabelAwareContrastiveLoss,
    clce_loss,
    label_aware_contrastive_loss,
    label_set_pairs,
)

__version__ = "0.2.0"

__all__ = [
    "AttributionDisplay",
    "CLCEClassifier",
    "BackboneFeatures",
    "CLCELoss",
    "ClassBalancedBatchSampler",
    "EmbeddingDisplay",
    "EpisodeSplit",
    "FeatureStore",
    "LabelAwareContrastiveLoss",
    "TopLossesDisplay",
    "TrainingCurveDisplay",
    "clce_loss",
    "compare",
    "few_shot_score",
    "find_unreadable",
    "label_aware_contrastive_loss",
    "label_set_pairs",
    "backbone_aliases",
    "list_images",
    "model_card",
    "load_image_folder",
]
