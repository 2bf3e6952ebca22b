"""Methods of a fitted classifier in addition to predicting: novelty, new classes, a data frame."""

from ._frame import FrameMixin
from ._new_classes import NewClassesMixin
from ._novelty import NoveltyMixin

__all__ = ["FrameMixin", "NewClassesMixin", "NoveltyMixin"]
