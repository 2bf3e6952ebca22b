"""What was computed lately, for calls that come again with the same content."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import joblib
from torch import Tensor


class Recent:
    """A function that is not run again for the content of its last calls."""

    def __init__(self, function: Callable[..., Any], n_kept: int) -> None:
        self.function = function
        self.n_kept = n_kept
        self.results: OrderedDict[str, Any] = OrderedDict()

    def __call__(self, *args: Any) -> Any:
        """Return the function's result, which nobody may change."""
        key = joblib.hash([arg.numpy() if isinstance(arg, Tensor) else arg for arg in args])
        result = self.results.pop(key, None)
        if result is None:
            result = self.function(*args)
        self.results[key] = result
        if len(self.results) > self.n_kept:
            self.results.popitem(last=False)
        return result
