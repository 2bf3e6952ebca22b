"""scikit-learn's own callbacks (since its version 1.9) over the epochs of a fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from sklearn.utils import _safe_indexing

Method = TypeVar("Method", bound=Callable[..., Any])

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Replaces scikit-learn's mixin; there are no callbacks to support."""

        def _init_callback_context(self, **kwargs: Any) -> None:
            return None

    def _with_callbacks(method: Any) -> Any:
        return method


def with_callbacks(method: Method) -> Method:
    """Decorate a ``fit`` that scikit-learn's callbacks follow, and leave its type as it is."""
    return _with_callbacks(method)


@dataclass(frozen=True)
class FitTask:
    """The fit as scikit-learn's callbacks know it, and its arguments."""

    context: Any
    estimator: Any
    X: Any
    y: Any
    indices: np.ndarray | None = None  # of the samples that train; None: all

    def of(self, rows: np.ndarray, n_rows: int) -> FitTask:
        """Return the task that knows which of so many rows train."""
        return self if len(rows) == n_rows else replace(self, indices=rows)

    @property
    def n_of_search(self) -> int | None:
        """Number of fits of the search that this is one of; None: unknown."""
        context = self.context
        while context is not None and context.task_name != "search":
            context = context.parent
        return None if context is None else context.max_subtasks

    def data(self) -> dict[str, Any]:
        """Return X and y of the samples that train, as functions: most callbacks ask for none."""
        if self.indices is None:
            return {"X": self.X, "y": self.y}
        return {
            "X": partial(_safe_indexing, self.X, self.indices),
            "y": partial(_safe_indexing, self.y, self.indices),
        }
