"""Features of a frozen backbone: the transformer, and the store on disk."""

from ._computing import features_of, image_digests
from ._store import FeatureStore, open_store
from ._transformer import BackboneFeatures

__all__ = [
    "BackboneFeatures",
    "features_of",
    "image_digests",
    "FeatureStore",
    "open_store",
]
