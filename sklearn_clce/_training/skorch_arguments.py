"""Arguments of skorch that users pass: which have an effect here, and what replaces the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skorch.callbacks import Callback

from .._checks import suggestion

LOADERS = ("iterator_train", "iterator_valid")
LOADER_OPTIONS = [
    "generator",
    "in_order",
    "multiprocessing_context",
    "persistent_workers",
    "pin_memory",
    "pin_memory_device",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
]

ACCEPTED = {"optimizer", "use_caching", "torch_load_kwargs", *LOADERS}
ACCEPTED |= {f"{loader}__{option}" for loader in LOADERS for option in LOADER_OPTIONS}
ACCEPTED_PREFIXES = ("optimizer__", "callbacks__")
NEEDED = (
    "callbacks__epoch_timer",
    "callbacks__fit_tasks",
    "callbacks__last_good_weights",
    "callbacks__valid_acc",
)

BATCHES = dict.fromkeys(("batch_sampler", "drop_last", "sampler", "shuffle"), "sampler")
BATCHES |= {"batch_size": "batch_size", "num_workers": "num_workers"}
INSTEAD = {
    "callbacks__checkpoint": "checkpoint",
    "callbacks__clip_grad": "max_grad_norm",
    "callbacks__early_stopping": "early_stopping",
    "callbacks__progress": "verbose",
    "criterion": "weight, with temperature and hardness",
    "lr": "learning_rate",
    "module": "backbone",
    "optimizer__lr": "learning_rate",
    "optimizer__weight_decay": "weight_decay",
    "patience": "n_iter_no_change",
    "train_split": "early_stopping, with validation_fraction",
}
INSTEAD |= {f"{loader}__{option}": name for loader in LOADERS for option, name in BATCHES.items()}

VALIDATED = ("valid_loss", "valid_acc")  # what epochs record of a validation set


def check_skorch_params(skorch_params: Mapping[str, Any], parameters: Iterable[str]) -> None:
    """Raise a ValueError if an argument has no effect; ``parameters`` are the estimator's own."""
    parameters = list(parameters)
    own = INSTEAD | dict(zip(parameters, parameters, strict=True))
    for name in skorch_params:
        for replaced, instead in own.items():
            part = name.startswith(f"{replaced}__") and replaced != "callbacks"
            if name == replaced or part:
                raise ValueError(
                    f"skorch_params={{{name!r}: ...}} has no effect here: set {instead}, the "
                    "estimator's own parameter"
                )
        if name in NEEDED:
            raise ValueError(f"skorch_params={{{name!r}: ...}}: fit needs this callback as it is")
        if name not in ACCEPTED and not name.startswith(ACCEPTED_PREFIXES):
            raise ValueError(
                f"skorch_params={{{name!r}: ...}} has no effect here."
                f"{suggestion(name, ACCEPTED)} "
                " optimizer__..., callbacks__... and options of the loaders have one"
            )


def check_callbacks(callbacks: list[Any] | None, *, validated: bool) -> None:
    """Reject what is not a callback of skorch, or monitors a validation set that is not there."""
    for place, callback in enumerate(callbacks or ()):
        callback = callback[-1] if isinstance(callback, tuple) else callback
        callback = callback() if isinstance(callback, type) else callback
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks[{place}] is {type(callback).__name__}: a callback of skorch, or a "
                "tuple (name, callback), is required"
            )
        monitor = getattr(callback, "monitor", None)
        watches = isinstance(monitor, str) and monitor.removesuffix("_best") in VALIDATED
        if watches and not validated:
            raise ValueError(
                f"callbacks: {type(callback).__name__} monitors {monitor!r}, which needs a "
                "validation set: early_stopping=True sets one aside, X_val and y_val bring one, "
                "and monitor='train_loss' needs none"
            )
