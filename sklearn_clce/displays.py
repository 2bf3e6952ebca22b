"""Displays: what the embeddings look like, how training went, where the model is most wrong.

After scikit-learn's convention: ``__init__`` holds arrays, ``plot`` draws them and returns the
display, ``from_estimator`` and ``from_predictions`` compute the arrays first.
"""

from ._embedding_display import EmbeddingDisplay
from ._top_losses_display import TopLossesDisplay
from ._training_display import TrainingCurveDisplay

__all__ = ["EmbeddingDisplay", "TopLossesDisplay", "TrainingCurveDisplay"]
