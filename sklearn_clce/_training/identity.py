"""What a fit is of: parameters, data and libraries, so that another one is told from it."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from .._system import digest_file, n_processes
from ..backbones import UndescribableError, fingerprint, libraries
from ..data import Images
from ..features import image_digests
from .callbacks import copy_weights
from .module import CLCEModule
from .parameters import CLCEParameters
from .validation import ValidationSet

NOT_IDENTITY = (
    "cache_size",
    "callbacks",
    "checkpoint",
    "device",
    "memory",
    "num_workers",
    "verbose",
)


def identity_of(
    parameters: CLCEParameters,
    samples: Tensor | Images,
    labels: np.ndarray,
    weights: np.ndarray,
    classes: np.ndarray,
    before: CLCEModule | None,
    validation: ValidationSet | None = None,
) -> dict[str, str]:
    """Describe all that the result of a fit depends on; files count by their content."""
    parts = {
        name: _file_or(value) if name == "pretrained" else value
        for name, value in parameters.get_params(deep=False).items()
        if name not in NOT_IDENTITY
    }
    parts |= {
        "X": _content_of(samples),
        "y": (classes, labels),
        "sample_weight": weights,
        "X_val": None if validation is None else _content_of(validation.samples),
        "y_val": None if validation is None else validation.labels,
        "sample_weight_val": None if validation is None else validation.weights,
        "processes": n_processes(),
        "libraries": (libraries(), torch.get_float32_matmul_precision()),
        "the fit before": None if before is None else copy_weights(before),
    }
    identity = {}
    for name, value in parts.items():
        try:
            identity[name] = fingerprint(value)
        except UndescribableError as error:
            raise UndescribableError(f"{name} can't be described: {error}") from error
    return identity


def digest_of(samples: Tensor | Images) -> str:
    """Digest samples by their content; of images that may change there is no digest: empty."""
    if not isinstance(samples, Tensor) and samples.is_stochastic:
        return ""
    return fingerprint(_content_of(samples))


def _content_of(samples: Tensor | Images) -> Tensor | list[bytes]:
    """Return features as they are, and a digest of each image."""
    if isinstance(samples, Tensor):
        return samples
    return image_digests(samples, range(len(samples)))


def _file_or(value: object) -> object:
    """Return the content of a file that is named."""
    if isinstance(value, (str, os.PathLike)) and os.path.isfile(value):
        return digest_file(value)
    return value
