"""The place where :class:`sklearn_clce.EmbeddingStore` was documented at first."""

from .features import EmbeddingStore

__all__ = ["EmbeddingStore"]
