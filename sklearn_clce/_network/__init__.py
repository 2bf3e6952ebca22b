"""What is trained: backbone and head, which parts of it at which rate."""

from .drop_path import stochastic_depth
from .grad_cache import backward_in_parts
from .low_rank import is_adapted, merge
from .network import Network, is_trainable
from .trainable import (
    blocks_of,
    checkpoint_gradients,
    fixed_parameters,
    parameter_groups,
    resolve_layer_decay,
    resolve_trainable,
    set_trainable,
    trainable_names,
    trainable_of,
    warmup_cosine,
)

__all__ = [
    "Network",
    "is_trainable",
    "blocks_of",
    "trainable_of",
    "set_trainable",
    "trainable_names",
    "resolve_trainable",
    "fixed_parameters",
    "checkpoint_gradients",
    "is_adapted",
    "merge",
    "parameter_groups",
    "resolve_layer_decay",
    "warmup_cosine",
    "stochastic_depth",
    "backward_in_parts",
]
