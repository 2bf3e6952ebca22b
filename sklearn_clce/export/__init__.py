"""A fitted estimator as a file for runtimes that know nothing of Python."""

from ._estimator import OnnxMixin

__all__ = ["OnnxMixin"]
