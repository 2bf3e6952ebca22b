"""Features of a frozen backbone: the transformer, and the store that keeps them."""

from ._computing import features_of
from ._store import EmbeddingStore, open_store
from ._transformer import BackboneFeatures

__all__ = [
    "BackboneFeatures",
    "features_of",
    "EmbeddingStore",
    "open_store",
]
