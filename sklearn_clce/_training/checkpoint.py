"""A fit on disk after each epoch, to go on from after a crash."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from .._distributed import from_all, is_main, n_processes, rank, same_for_all
from .._files import remove_unfinished, write_atomically
from .._parameters import CLCEParameters
from ..data import ArrayImages, ListImages
from .callbacks import copy_weights

FORMAT = 2
NOT_IDENTITY = ("callbacks", "checkpoint", "device", "memory", "num_workers", "verbose")


class Checkpoint:
    """The checkpoint of one fit: of some parameters, on some data.

    Only tensors, numbers and strings are written, and only those are read.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    identity : dict of str to str
        What the fit is of. A checkpoint of anything else is refused.

    Raises
    ------
    ValueError
        If the folder holds a checkpoint of another fit, or a foreign file.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: dict[str, str]) -> None:
        self.folder = Path(folder)
        self.identity = identity
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "checkpoint.pt"
        if is_main():
            remove_unfinished(self.path)
        self.state = same_for_all(self._load())

    def seed_or(self, seed: int) -> int:
        """Settle the seed of the fit.

        Parameters
        ----------
        seed : int
            Its seed if it is a new one.

        Returns
        -------
        int
            That of the checkpoint, if there is one.
        """
        self.seed = seed if self.state is None else self.state["seed"]
        return self.seed

    def _load(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            found, identity = state["format"], state["identity"]
        except Exception as error:  # torch.load has many
            raise ValueError(
                f"checkpoint={str(self.folder)!r}: {self.path.name} is not a checkpoint "
                f"({type(error).__name__}); choose another folder or remove the file"
            ) from error
        if found != FORMAT:
            raise ValueError(
                f"checkpoint={str(self.folder)!r} is of format {found}, this version reads {FORMAT}"
            )
        different = [
            name
            for name in sorted(self.identity.keys() | identity.keys())
            if self.identity.get(name) != identity.get(name)
        ]
        if different:
            raise ValueError(
                f"checkpoint={str(self.folder)!r} is of another fit: {', '.join(different)} "
                "differ; choose another folder, or remove it to begin anew"
            )
        return state

    def restore(self, net: Any) -> None:
        """Put a net where the checkpoint was written.

        Parameters
        ----------
        net : CLCENet
            About to train.
        """
        if self.state is None:
            return
        callbacks = dict(net.callbacks_)
        net.module_.load_state_dict(self.state["weights"], strict=False)
        net.optimizer_.load_state_dict(self.state["optimizer"])
        if callbacks["lr_scheduler"] is not None and self.state["scheduler"] is not None:
            callbacks["lr_scheduler"].scheduler_.load_state_dict(self.state["scheduler"])
        vars(callbacks["early_stopping"]).update(self.state["early_stopping"])
        callbacks["last_good_weights"].weights_ = self.state["weights"]
        for row in json.loads(self.state["history"]):
            net.history_.append(row)
        net.run.epochs_done = net.run.batch_sampler.epoch = self.state["epochs_done"]
        net.run.stopped = self.state["stop_training"]
        torch.set_rng_state(self.state["torch_rng"][rank()])
        if self.state["cuda_rng"] is not None and torch.device(net.device).type == "cuda":
            torch.cuda.set_rng_state(self.state["cuda_rng"][rank()], net.device)

    def save(self, net: Any) -> None:
        """Write the state of a net between two epochs.

        Parameters
        ----------
        net : CLCENet
            Training.
        """
        callbacks = dict(net.callbacks_)
        scheduler = getattr(callbacks["lr_scheduler"], "scheduler_", None)
        stopping = callbacks["early_stopping"]
        on_cuda = torch.device(net.device).type == "cuda"
        state = {
            "format": FORMAT,
            "identity": self.identity,
            "seed": self.seed,
            "weights": copy_weights(net.module_),
            "optimizer": net.optimizer_.state_dict(),
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "early_stopping": {
                name: getattr(stopping, name)
                for name in ("best_score_", "n_failed_", "best_weights_")
            },
            "history": json.dumps(net.history_.to_list(), default=float),
            "epochs_done": net.run.epochs_done,
            "stop_training": net.run.stopped,
            "torch_rng": from_all(torch.get_rng_state()),
            "cuda_rng": from_all(torch.cuda.get_rng_state(net.device)) if on_cuda else None,
        }
        if is_main():
            write_atomically(self.path, lambda file: torch.save(state, file))


def identity_of(
    parameters: CLCEParameters,
    samples: Tensor | Sequence[Tensor],
    labels: np.ndarray,
    weights: np.ndarray,
    classes: np.ndarray,
) -> dict[str, str]:
    """Describe a fit by its parameters, data and processes, so that another one is told from it.

    Files count by path, size and time of change.
    """
    described = {
        name: describe(value)
        for name, value in parameters.get_params(deep=False).items()
        if name not in NOT_IDENTITY
    }
    return described | {
        "X": hash_rows(samples),
        "y": joblib.hash((classes.tolist(), labels)),
        "sample_weight": joblib.hash(weights),
        "processes": str(n_processes()),
    }


def describe(value: Any) -> str:
    """Describe a parameter the same way in every process.

    Parameters
    ----------
    value : object
        Its value.

    Returns
    -------
    str
        Equal for equal values; functions and objects go by their name.
    """
    if isinstance(value, nn.Module):
        weights = {name: tensor.cpu().numpy() for name, tensor in value.state_dict().items()}
        return f"{type(value).__qualname__} {joblib.hash(weights)}"
    if isinstance(value, dict):
        return str({key: describe(item) for key, item in sorted(value.items())})
    if isinstance(value, (bool, int, float, str, tuple, list, type(None))):
        return repr(value)
    if isinstance(value, (os.PathLike, torch.device)):
        return str(value)
    return getattr(value, "__qualname__", type(value).__qualname__)


def hash_rows(rows: Tensor | Sequence[Tensor]) -> str:
    """Hash features or images.

    Parameters
    ----------
    rows : Tensor or sequence of Tensor
        Features, or images.

    Returns
    -------
    str
        Hexadecimal digest.
    """
    if isinstance(rows, Tensor):
        return joblib.hash(rows.numpy())
    if isinstance(rows, ArrayImages):
        return joblib.hash(rows.array)
    digest = hashlib.blake2b(digest_size=16)
    for row in range(len(rows)):
        digest.update(_describe_image(rows, row))
    return digest.hexdigest()


def _describe_image(images: Sequence[Tensor], row: int) -> bytes:
    item = images.items[row] if isinstance(images, ListImages) else None
    if isinstance(item, (str, os.PathLike)):
        stat = os.stat(item)
        return repr((os.fspath(item), stat.st_size, stat.st_mtime_ns)).encode()
    return joblib.hash(images[row].numpy()).encode()
