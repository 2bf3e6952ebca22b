"""A fitted estimator in one file that runs nothing."""

from ._estimator import ModelFileMixin

__all__ = [
    "ModelFileMixin",
]
