"""One fit, from an estimator and samples to a trained net; and what a net computes."""

from .batches import LabelledSamples, Samples
from .build import restore_net, with_changed_head
from .fit import fit_net
from .history import TrainingHistory
from .inference import check_class_means, infer
from .plan import FitPlan, Passes, passes_of_fit, plan_passes, plan_without_fit
from .resume import ResumeState, Split, continue_state, remembered
from .sklearn_callbacks import CallbackSupportMixin, FitTask, with_callbacks
from .trainer import CLCENet
from .validation import ValidationSet, read_validation_set

__all__ = [
    "fit_net",
    "check_class_means",
    "infer",
    "restore_net",
    "with_changed_head",
    "CLCENet",
    "TrainingHistory",
    "FitPlan",
    "Passes",
    "passes_of_fit",
    "plan_passes",
    "plan_without_fit",
    "Samples",
    "LabelledSamples",
    "ResumeState",
    "Split",
    "continue_state",
    "remembered",
    "ValidationSet",
    "read_validation_set",
    "CallbackSupportMixin",
    "FitTask",
    "with_callbacks",
]
