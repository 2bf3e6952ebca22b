"""Targets: labels as class indices or indicators, weights of samples, and how logits are read.

The room that knows that a sample may have several labels: ``_multilabel``, and ``_indicator``,
which reads them.
"""

from __future__ import annotations

from typing import Any

from ._base import Labels, Outputs, Target
from ._indicator import is_indicator
from ._multilabel import Multilabel
from ._single import SingleLabel

__all__ = [
    "Labels",
    "Outputs",
    "Target",
    "SINGLE_LABEL",
    "check_single_label",
    "outputs_for",
    "outputs_named",
]

SINGLE_LABEL = SingleLabel()
_ALL: dict[str, Outputs] = {outputs.name: outputs for outputs in (SINGLE_LABEL, Multilabel())}


def outputs_for(y: Any) -> Outputs:
    """Decide whether samples have one label or several, by the shape of y."""
    return Multilabel() if is_indicator(y) else SINGLE_LABEL


def check_single_label(y: Any, what: str) -> None:
    """Raise a ValueError if samples have several labels, which ``what`` does not support."""
    if is_indicator(y):
        raise ValueError(
            f"y holds several labels an image, and {what} for classes that exclude each other: one "
            "label for each image is required"
        )


def outputs_named(name: str) -> Outputs:
    """Return the outputs of that name, as a model file has it."""
    if name not in _ALL:
        raise ValueError(f"its outputs {name[:20]!r} are unknown")
    return _ALL[name]
