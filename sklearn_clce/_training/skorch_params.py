"""Which of skorch's arguments have an effect here, and what to use instead of the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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

TAKEN = {"optimizer", "use_caching", "torch_load_kwargs", *LOADERS}
TAKEN |= {f"{loader}__{option}" for loader in LOADERS for option in LOADER_OPTIONS}
TAKEN_PREFIXES = ("optimizer__", "callbacks__")
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
    "keep_optimizer": "warm_start",
    "lr": "learning_rate",
    "module": "backbone",
    "optimizer__lr": "learning_rate",
    "optimizer__weight_decay": "weight_decay",
    "patience": "n_iter_no_change",
    "train_split": "early_stopping, with validation_fraction",
}
INSTEAD |= {f"{loader}__{option}": name for loader in LOADERS for option, name in BATCHES.items()}


def check_skorch_params(skorch_params: dict[str, Any], parameters: Iterable[str]) -> None:
    """Raise a ValueError if an argument has no effect; ``parameters`` are the estimator's own."""
    own = INSTEAD | dict(zip(parameters, parameters, strict=True))
    for name in skorch_params:
        for replaced, instead in own.items():
            part = name.startswith(f"{replaced}__") and replaced != "callbacks"
            if name == replaced or part:
                raise ValueError(
                    f"skorch_params sets {name}, which has no effect here; the estimator's own "
                    f"parameter is {instead}"
                )
        if name in NEEDED:
            raise ValueError(f"skorch_params sets {name}: fit itself needs this callback as it is")
        if name not in TAKEN and not name.startswith(TAKEN_PREFIXES):
            raise ValueError(
                f"skorch_params sets {name}, which has no effect here.{suggestion(name, TAKEN)} "
                " optimizer__..., callbacks__... and options of the loaders have one"
            )
