"""From parameters and samples to a trained net."""

from .assembly import (
    checkpoint_gradients,
    continued_net,
    kept_features,
    make_dataset,
    make_module,
    make_net,
)
from .checkpoint import Checkpoint, identity_of
from .fit import train
from .fit_tasks import CallbackSupportMixin, with_callbacks
from .module import CLCEModule
from .net import CLCENet, seeded_torch

__all__ = [
    "checkpoint_gradients",
    "continued_net",
    "kept_features",
    "make_dataset",
    "make_module",
    "make_net",
    "Checkpoint",
    "identity_of",
    "train",
    "CallbackSupportMixin",
    "with_callbacks",
    "CLCEModule",
    "CLCENet",
    "seeded_torch",
]
