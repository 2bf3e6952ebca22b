"""scikit-learn's own callbacks (since its version 1.9) over the epochs of a fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from sklearn.utils import _safe_indexing
from skorch.callbacks import Callback

Method = TypeVar("Method", bound=Callable[..., Any])

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's mixin; there are no callbacks to support."""

        def _init_callback_context(self, **kwargs: Any) -> None:
            return None

    def _with_callbacks(method: Any) -> Any:
        return method


def with_callbacks(method: Method) -> Method:
    """Decorate a ``fit`` that scikit-learn's callbacks follow, and leave its type as it is."""
    return _with_callbacks(method)


@dataclass(frozen=True)
class FitTask:
    """What scikit-learn's callbacks know a fit by, and what it was called with."""

    context: Any
    estimator: Any
    X: Any
    y: Any
    indices: np.ndarray | None = None  # of the samples that train; None: all

    def of(self, rows: np.ndarray, n_rows: int) -> FitTask:
        """Return the task that knows which of so many rows train."""
        return self if len(rows) == n_rows else replace(self, indices=rows)

    def data(self) -> dict[str, Any]:
        """Return X and y of the samples that train, as functions: most callbacks ask for none."""
        if self.indices is None:
            return {"X": self.X, "y": self.y}
        return {
            "X": partial(_safe_indexing, self.X, self.indices),
            "y": partial(_safe_indexing, self.y, self.indices),
        }


class EpochTasks(Callback):
    """Tell scikit-learn's callbacks of each epoch, if the net's fit is one of its tasks."""

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin a task below that of the fit."""
        task = net.run.fit_task
        if task is not None:
            self.context_ = task.context.subcontext(task_name="epoch")
            self.context_.call_on_fit_task_begin(estimator=task.estimator)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """End it, with what makes an estimator that predicts; a callback may stop the fit."""
        task = net.run.fit_task
        if task is not None and self.context_.call_on_fit_task_end(
            estimator=task.estimator, reconstruction_attributes={"net_": net}, **task.data()
        ):
            net.run.stopped = True

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Let go of the task, which does not pickle."""
        self.context_ = None
