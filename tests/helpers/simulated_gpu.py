"""A GPU that is the CPU: its lock is the real one, and it has memory for one process alone.

A process that has an :class:`OnSimulatedGPU` shares it; what torch would keep of its memory stays
taken until ``torch.cuda.empty_cache``.
"""

import fcntl
import os
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from sklearn_clce._system import processes

MEMORY = Path(tempfile.gettempdir()) / f"simulated-gpu-{os.getuid()}"
taken = []


def take_memory():
    if not taken:
        file = open(MEMORY, "w")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("CUDA out of memory") from None
        taken.append(file)


def empty_cache():
    while taken:
        taken.pop().close()


def share():
    """Not at import: collecting doctests imports every file."""
    processes._shared_gpu = lambda device: "simulated"
    torch.cuda.empty_cache = empty_cache


class OnSimulatedGPU(nn.Module):
    """A backbone that needs its memory."""

    def __init__(self):
        super().__init__()
        share()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(16, 8)

    def __setstate__(self, state):
        super().__setstate__(state)
        share()

    def forward(self, images):
        take_memory()
        time.sleep(0.002)
        return self.layer(nn.functional.avg_pool2d(images[:, :1], 2).flatten(1))
