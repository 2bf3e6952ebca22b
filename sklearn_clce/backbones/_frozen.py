"""A backbone that does not train: loaded once a process, known by a fingerprint."""

from __future__ import annotations

import copy
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from ._loading import BackboneConfig, load_backbone
from ._running import Normalize, run_backbone

MAX_LOADED = 2

# Raised when features of the same images come out differently in a new release.
FEATURES_VERSION = "1"
NUMERIC_PACKAGES = ("torch", "torchvision", "timm", "pillow")
PLAIN_TYPES = (bool, int, float, complex, str, bytes, type(None))
NOT_COMPUTED_WITH = ("pretrained_cfg", "default_cfg", "_traits")  # timm's notes on its weights

_loaded: OrderedDict[tuple, FrozenBackbone] = OrderedDict()
_loaded_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class FrozenBackbone:
    """A backbone for inference alone, with its preprocessing.

    It may be shared by everything in the process: nobody changes, moves or trains
    ``module``. Who wants to do so takes a deep copy.

    Parameters
    ----------
    module : nn.Module
        Maps normalised images to features, in evaluation mode.
    config : BackboneConfig
        How it wants its images.
    """

    module: nn.Module
    config: BackboneConfig

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that features depend on besides image, device and precision.

        Weights and buffers, the classes of all layers with the code of their methods
        and their plain attributes, the preprocessing, and the releases of torch,
        torchvision, timm and Pillow. It is computed once.
        """
        digest = hashlib.sha256(FEATURES_VERSION.encode())
        for package in NUMERIC_PACKAGES:
            digest.update(f"{package} {version(package)}\n".encode())
        digest.update(repr(self.config).encode())
        for part in _architecture(self.module):
            digest.update(part.encode())
        for name, tensor in _tensors(self.module):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_raw_bytes(tensor))
        return digest.hexdigest()

    def runner(self, device: torch.device, precision: str) -> Callable[[Tensor], Tensor]:
        """Return the function from images to features.

        Parameters
        ----------
        device : torch.device
            Where to compute; a backbone that lies elsewhere is copied there.
        precision : {"float32", "bfloat16"}
            "bfloat16" computes under autocast.

        Returns
        -------
        callable
            Maps images of shape (n, C, H, W) in 0..1 to features of shape (n, d),
            float32 on the CPU.
        """
        module = _on_device(self.module, device)
        normalize = Normalize(self.config.mean, self.config.std).to(device)
        low = precision == "bfloat16"

        def run(images: Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=low):
                features = run_backbone(module, normalize(images.to(device)))
            return features.float().cpu()

        return run


def frozen_backbone(
    backbone: str | nn.Module,
    *,
    pretrained: bool | str | os.PathLike[str] = True,
    image_size: int | None = None,
) -> FrozenBackbone:
    """Load a backbone for inference, or take the one that this process has loaded.

    The last two that were asked for by name and with pretrained weights stay loaded,
    on the CPU. Random weights and modules are never shared.

    Parameters
    ----------
    backbone : str or nn.Module
        As for :func:`~sklearn_clce.backbones.load_backbone`.
    pretrained : bool or path, default=True
        A file of weights is known by its path, size and time of modification.
    image_size : int, default=None
        Side of the input in pixels; None takes the backbone's own.

    Returns
    -------
    FrozenBackbone
        The backbone, in evaluation mode, without gradients.

    Raises
    ------
    ValueError
        If the name is unknown, or the weights are not of this backbone.
    FileNotFoundError
        If there is no file at the path ``pretrained``.
    OSError
        If pretrained weights can be neither found nor downloaded.
    """

    def load() -> FrozenBackbone:
        module, config = load_backbone(backbone, pretrained=pretrained, image_size=image_size)
        return FrozenBackbone(module.requires_grad_(False), config)

    if isinstance(backbone, nn.Module) or pretrained is False:
        return load()
    key = (backbone, _source(pretrained), image_size)
    with _loaded_lock:
        if key not in _loaded:
            _loaded[key] = load()
        _loaded.move_to_end(key)
        while len(_loaded) > MAX_LOADED:
            _loaded.popitem(last=False)
        return _loaded[key]


def _source(pretrained: bool | str | os.PathLike[str]) -> Any:
    """Tell a changed file of weights from the one that was loaded."""
    if isinstance(pretrained, bool) or not os.path.isfile(pretrained):
        return pretrained
    stat = os.stat(pretrained)
    return os.path.abspath(pretrained), stat.st_size, stat.st_mtime_ns


def _on_device(module: nn.Module, device: torch.device) -> nn.Module:
    devices = {tensor.device for _, tensor in _tensors(module)}
    if devices <= {torch.empty(0, device=device).device}:
        return module
    return copy.deepcopy(module).to(device)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield weights and buffers, also those that a state dict leaves out."""
    return chain(module.named_parameters(), module.named_buffers())


def _raw_bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data


def _architecture(module: nn.Module) -> Iterator[str]:
    """Describe what the weights do not tell: layers, their plain attributes, their code."""
    classes = {}
    for name, layer in module.named_modules():
        cls = type(layer)
        classes[f"{cls.__module__}.{cls.__qualname__}"] = cls
        plain = {
            key: value
            for key, value in vars(layer).items()
            if key not in NOT_COMPUTED_WITH and _is_plain(value)
        }
        yield f"{name} {cls.__module__}.{cls.__qualname__} {sorted(plain.items())}\n"
    yield repr(module)
    for name in sorted(classes):
        yield f"{name} {list(_methods(classes[name]))}\n"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, chain(value, value.values())))
    return isinstance(value, PLAIN_TYPES)


def _methods(cls: type) -> Iterator[Any]:
    """Yield the code of a layer's methods; a class edited in a notebook keeps its name."""
    for base in cls.__mro__:
        if base.__module__.split(".")[0] not in ("torch", "builtins"):
            for name, member in sorted(vars(base).items()):
                code = getattr(member, "__code__", None)
                if code is not None:
                    yield name, _code(code)


def _code(code: CodeType) -> tuple:
    """Return what a function does, without the file and lines where it stands."""
    constants = [_code(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return code.co_code, constants, code.co_names


def _constant(value: Any) -> str:
    # the order of a frozenset of strings is another in each process
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
