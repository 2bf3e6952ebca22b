"""From parameters and samples to a trained net."""

from .assembly import restored_net
from .course import Course, Split
from .fit import fit_net
from .fit_tasks import CallbackSupportMixin, FitTask, with_callbacks
from .growing import grown_net
from .inference import infer
from .likeness import likeness_scores
from .module import CLCEModule
from .net import CLCENet
from .optim import trained_blocks
from .parameters import CLCEParameters
from .samples import Samples
from .validation import ValidationSet, chosen_validation_set

__all__ = [
    "fit_net",
    "infer",
    "grown_net",
    "likeness_scores",
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
