"""Where the host waits for the device, as torch's sync debug mode reports it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback

MESSAGE = "called a synchronizing CUDA operation"


def waits(function: Callable[[], object]) -> Counter:
    """Call a function; count its synchronisations by the line of Python that they come from."""
    with _counted() as places:
        _watch(True)
        function()
    return places


class Steps(Callback):
    """Watches from the first step of an epoch to its last, and counts them.

    The passes over the images before and after training wait once a batch for what they compute.
    """

    def __init__(self) -> None:
        self.n = 0

    def on_epoch_begin(self, net: NeuralNet, **kwargs: object) -> None:
        """See how many steps are to come."""
        self.left = len(net.state.batch_sampler)

    def on_batch_begin(self, net: NeuralNet, training: bool = False, **kwargs: object) -> None:
        """Watch from here on."""
        if training:
            _watch(True)

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: object) -> None:
        """Watch no more after the last step of an epoch."""
        if training:
            self.n += 1
            self.left -= 1
            _watch(self.left > 0)


def waits_of_a_step(fit: Callable[[Steps], object]) -> Counter:
    """Count the synchronisations in a step of training, by line; ``fit`` takes the callback."""
    with _counted():
        fit(Steps())  # what happens once in a process
    steps = Steps()
    with _counted() as places:
        fit(steps)
    return Counter({place: n / steps.n for place, n in places.items()})


@contextmanager
def _counted() -> Iterator[Counter]:
    """Count the synchronisations that are watched, by their places, when the block ends."""
    places: Counter = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield places
        finally:
            _watch(False)
    places.update(_place(one) for one in caught if MESSAGE in str(one.message))


def _watch(on: bool) -> None:
    torch.cuda.set_sync_debug_mode("warn" if on else "default")


def _place(warning: warnings.WarningMessage) -> str:
    path = Path(warning.filename)
    return f"{path.parent.name}/{path.name}:{warning.lineno}"
