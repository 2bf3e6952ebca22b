"""The place where :class:`sklearn_clce.FeatureStore` was documented at first."""

from .features import FeatureStore

__all__ = ["FeatureStore"]
