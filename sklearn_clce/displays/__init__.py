"""Displays: what the embeddings look like, how training went, where the model is most wrong.

After scikit-learn's convention: ``__init__`` holds arrays, ``plot`` draws them and returns the
display, ``from_estimator`` and ``from_predictions`` compute the arrays first.
"""

from ._embedding import EmbeddingDisplay
from ._top_losses import TopLossesDisplay
from ._training_curve import TrainingCurveDisplay

__all__ = ["EmbeddingDisplay", "TopLossesDisplay", "TrainingCurveDisplay"]
