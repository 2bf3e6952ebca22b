"""A frozen backbone: loaded once in each process, known by its fingerprint."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .._system import ProcessLock, autocast, state_of
from ._fingerprint import fingerprint
from ._joined import Backbones, Config, JoinedBackbone, each_backbone, join, unpack
from ._loading import BackboneConfig, load_backbone
from ._releases import libraries
from ._running import (
    UNSUITABLE,
    Normalize,
    explain_failure,
    give_lower_blocks,
    run_backbone,
    run_in_parts,
)

MAX_LOADED = 2

_loaded: OrderedDict[tuple, FrozenBackbone] = OrderedDict()
_loaded_lock = ProcessLock()


@dataclass(frozen=True, eq=False)
class FrozenBackbone:
    """A backbone for inference alone, with its preprocessing.

    All of a process may share it: to change, move or train ``module``, take a deep copy.
    """

    module: nn.Module
    config: Config

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that features depend on in addition to image, device and precision.

        Raises :class:`~sklearn_clce.backbones.UndescribableError` if there is none.
        """
        return fingerprint((libraries(), self.config, self.module))

    @property
    def is_new(self) -> bool:
        """Whether nobody has asked for the fingerprint."""
        return "fingerprint" not in vars(self)

    def runner(self, device: torch.device, precision: str) -> Callable[[Tensor], Tensor]:
        """Return the function from images (n, C, H, W) in 0..1 to features (n, d) on the CPU."""
        if isinstance(self.config, BackboneConfig):
            return self._runner_of_one(self.config, device, precision)
        assert isinstance(self.module, JoinedBackbone)
        shapes, parts = self.config.shapes, zip(self.module.parts, self.config.parts, strict=True)
        runs = [FrozenBackbone(*part).runner(device, precision) for part in parts]

        def run_each(batch: Tensor) -> Tensor:
            images = zip(runs, unpack(batch, shapes), strict=True)
            return torch.cat([run(of_part) for run, of_part in images], dim=1)

        return run_each

    def _runner_of_one(
        self, config: BackboneConfig, device: torch.device, precision: str
    ) -> Callable[[Tensor], Tensor]:
        module = _on_device(self.module, device)
        normalize = Normalize(config.mean, config.std).to(device)

        def run(images: Tensor) -> Tensor:
            with torch.no_grad(), autocast(precision, device):
                try:
                    features = run_in_parts(
                        lambda part: run_backbone(module, normalize(part)), images.to(device)
                    )
                except UNSUITABLE as error:
                    explain_failure(module, images[0], error)
                    raise
            return features.float().cpu()

        return run


def frozen_backbone(
    backbone: Backbones,
    *,
    pretrained: bool | str | os.PathLike[str] = True,
    image_size: int | None = None,
    n_channels: int | None = None,
    lower_blocks: bool = False,
) -> FrozenBackbone:
    """Load a backbone for inference, or take the one that this process has loaded.

    ``lower_blocks``: those that are named give them next to their last features. The last two that
    were loaded by name with pretrained weights stay in memory, on the CPU. Random weights and
    modules are never shared.
    """
    backbones = each_backbone(backbone)

    def load_one(one: str | nn.Module) -> tuple[nn.Module, BackboneConfig]:
        with torch.random.fork_rng(devices=[], enabled=len(backbones) > 1):  # as of one alone
            module, config = load_backbone(
                one, pretrained=pretrained, image_size=image_size, n_channels=n_channels
            )
        if lower_blocks and isinstance(one, str) and config.image_size is not None:
            give_lower_blocks(module, config.n_channels, config.image_size)
        return module, config

    def load() -> FrozenBackbone:
        loaded = list(map(load_one, backbones))
        module, config = join(loaded) if len(loaded) > 1 else loaded[0]
        return FrozenBackbone(module.requires_grad_(False), config)

    if pretrained is False or any(isinstance(one, nn.Module) for one in backbones):
        return load()
    key = (backbones, _source(pretrained), image_size, n_channels, lower_blocks)
    with _loaded_lock:
        if key not in _loaded:
            _loaded[key] = load()
        _loaded.move_to_end(key)
        while len(_loaded) > MAX_LOADED:
            _loaded.popitem(last=False)
        return _loaded[key]


def _source(pretrained: bool | str | os.PathLike[str]) -> Any:
    """Return what distinguishes a file of weights from the same file after a change."""
    if isinstance(pretrained, bool) or not os.path.isfile(pretrained):
        return pretrained
    return os.path.abspath(pretrained), state_of(pretrained)


def _on_device(module: nn.Module, device: torch.device) -> nn.Module:
    devices = {tensor.device for tensor in chain(module.parameters(), module.buffers())}
    if devices <= {torch.empty(0, device=device).device}:
        return module
    return copy.deepcopy(module).to(device)
