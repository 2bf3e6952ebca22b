"""From parameters and samples to a trained net."""

from .assembly import Samples, restored_net
from .course import Course, Split
from .fit import FittedNet, fit_net, infer
from .fit_tasks import CallbackSupportMixin, FitTask, with_callbacks
from .growing import grown_net
from .likeness import likeness_scores
from .module import CLCEModule
from .net import CLCENet
from .optim import trained_blocks
from .parameters import CLCEParameters
from .validation import ValidationSet, chosen_validation_set

__all__ = [
    "fit_net",
    "infer",
    "grown_net",
    "likeness_scores",
    "FittedNet",
    "restored_net",
    "Samples",
    "CLCEModule",
    "CLCENet",
    "CLCEParameters",
    "Course",
    "Split",
    "ValidationSet",
    "chosen_validation_set",
    "trained_blocks",
    "CallbackSupportMixin",
    "FitTask",
    "with_callbacks",
]
