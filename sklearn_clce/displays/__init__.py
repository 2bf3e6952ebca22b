"""Displays: what the embeddings look like, how training went, where and why the model errs.

After scikit-learn's convention: ``__init__`` holds arrays, ``plot`` draws them and returns the
display, ``from_estimator`` and ``from_predictions`` compute the arrays first.
"""

from ._attribution import AttributionDisplay
from ._embedding import EmbeddingDisplay
from ._top_losses import TopLossesDisplay
from ._training_curve import TrainingCurveDisplay

__all__ = ["AttributionDisplay", "EmbeddingDisplay", "TopLossesDisplay", "TrainingCurveDisplay"]
