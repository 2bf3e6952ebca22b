"""Features of a frozen backbone: the transformer, and the stores on disk and in memory."""

from ._computing import features_of, image_digests
from ._process_store import ProcessStore, process_store
from ._store import FeatureStore, open_store
from ._transformer import BackboneFeatures

__all__ = [
    "BackboneFeatures",
    "features_of",
    "image_digests",
    "FeatureStore",
    "ProcessStore",
    "open_store",
    "process_store",
]
