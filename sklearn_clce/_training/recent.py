"""What was computed lately, for calls that come again with the same content."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import joblib
from torch import Tensor


class Recent:
    """A function to tensors that is not run again for the content of its last calls.

    How many depends on their size: all results that are kept take ``most_bytes`` together.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], most_bytes: int) -> None:
        self.function = function
        self.most_bytes = most_bytes
        self.results: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()

    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        """Return the function's result, which nobody may change."""
        key = joblib.hash([arg.numpy() if isinstance(arg, Tensor) else arg for arg in args])
        result = self.results.pop(key, None)
        if result is None:
            result = self.function(*args)
        self.results[key] = result
        while self._n_bytes() > self.most_bytes:
            self.results.popitem(last=False)
        return result

    def _n_bytes(self) -> int:
        return sum(part.nbytes for result in self.results.values() for part in result)
