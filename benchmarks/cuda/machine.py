"""The card, its driver, and the versions that a measurement was made with."""

from __future__ import annotations

import subprocess

import torch

from ..accuracy.measure import machine, versions
from ..accuracy.models import Surroundings


def describe(device: torch.device) -> dict:
    """Describe where a measurement is made."""
    cuda = device.type == "cuda"
    return machine(Surroundings(device=str(device))) | {
        "gpu_gib": round(torch.cuda.mem_get_info(device)[1] / 2**30, 1) if cuda else None,
        "driver": _driver(device) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "versions": versions(),
    }


def _driver(device: torch.device) -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.split()[device.index or 0]
