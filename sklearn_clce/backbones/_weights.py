"""Reading a file of weights."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read tensors from a file without running anything that it holds."""
    from timm.models import load_state_dict

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"pretrained={str(path)!r}: there is no such file")
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
