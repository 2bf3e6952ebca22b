"""scikit-learn's own callbacks (since its version 1.9) over the epochs of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

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


class EpochTasks(Callback):
    """Tell scikit-learn's callbacks of each epoch, if the net's fit is one of its tasks."""

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin a task below that of the fit."""
        if net.run.fit_task is not None:
            self.task_ = net.run.fit_task.subcontext(task_name="epoch")
            self.task_.call_on_fit_task_begin(estimator=net.run.estimator)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """End it; a callback may say that it is enough."""
        run = net.run
        if run.fit_task is not None and self.task_.call_on_fit_task_end(estimator=run.estimator):
            run.stopped = True

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Let go of the task, which does not pickle."""
        self.task_ = None
