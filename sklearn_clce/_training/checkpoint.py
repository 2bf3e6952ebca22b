"""A fit on disk after each epoch, to go on from after a crash."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import torch

from .._system import (
    Lock,
    broadcast,
    device_rng_state,
    gather_objects,
    is_main,
    rank,
    remove_unfinished,
    set_device_rng_state,
    write_atomically,
)
from ..backbones import UndescribableError, fingerprint
from .callbacks import copy_weights
from .identity import identity_of
from .module import CLCEModule
from .parameters import CLCEParameters
from .validation import ValidationSet

FILE_NAME = "checkpoint.pt"
MAGIC = b"sklearn-clce checkpoint 4\n"  # at the end, behind the digest of what stands before
DIGEST_BYTES = 32


class Checkpoint:
    """The checkpoint of one fit: of some parameters, on some data.

    Only tensors, numbers and strings are written, and only those are read. While a fit is in
    the folder, another one is refused. A ValueError is raised where the folder holds another
    fit, or a foreign file, and an OSError where nothing can be written into it.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: dict[str, str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE_NAME
        self.identity = identity
        self.lock = Lock(self.folder)
        self.epochs_kept = 0
        self.has_warned = False
        found = broadcast(self._opened() if is_main() else None)
        if isinstance(found, Exception):
            raise found
        self.state: dict[str, Any] | None = found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.lock.release()

    def seed_or(self, seed: int) -> int:
        """Return the seed of the fit: that of the checkpoint, if there is one."""
        self.seed = seed if self.state is None else self.state["seed"]
        return self.seed

    def _opened(self) -> dict[str, Any] | Exception | None:
        """Enter the folder and read what is there; an error is for all processes."""
        where = f"checkpoint={str(self.folder)!r}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.lock.acquire(wait=False):
                return ValueError(
                    f"{where}: another fit is going on in this folder; choose another folder, or "
                    "wait until it has ended"
                )
            state = self._load(where)
            if state is None or not state["ended"]:
                remove_unfinished(self.path)
                with tempfile.TemporaryFile(dir=self.folder):
                    return state
            return state
        except ValueError as error:
            self.lock.release()
            return error
        except OSError as error:
            self.lock.release()
            return OSError(f"{where} can't be written to, choose another folder: {error}")

    def _load(self, where: str) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state = read_state(self.path)
            identity = state["identity"]
        except Exception as error:  # torch.load has many
            raise ValueError(
                f"{where}: {FILE_NAME} is not a checkpoint of this version, or damaged "
                f"({type(error).__name__}: {error}); choose another folder or remove the file"
            ) from error
        different = [
            name
            for name in sorted(self.identity.keys() | identity.keys())
            if self.identity.get(name) != identity.get(name)
        ]
        if different:
            raise ValueError(
                f"{where} is of another fit: {', '.join(different)} differ; choose another folder, "
                "or remove it to begin anew"
            )
        return state

    def restore(self, net: Any) -> None:
        """Put a net that is about to train where the checkpoint was written."""
        if self.state is None:
            return
        callbacks = dict(net.callbacks_)
        net.module_.load_state_dict(self.state["weights"], strict=False)
        net.optimizer_.load_state_dict(self.state["optimizer"])
        if "lr_scheduler" in callbacks and self.state["scheduler"] is not None:
            callbacks["lr_scheduler"].scheduler_.load_state_dict(self.state["scheduler"])
        callbacks["early_stopping"].__dict__.update(self.state["early_stopping"])
        callbacks["last_good_weights"].weights_ = self.state["weights"]
        net.history_[:] = json.loads(self.state["history"])
        net.run.epochs_done = self.state["epochs_done"]
        net.run.stopped = self.state["ended"]
        net.run.time.go_on(self.state["time"])
        torch.set_rng_state(self.state["torch_rng"][rank()])
        kind, states = self.state["device_rng"]
        if kind == torch.device(net.device).type:
            set_device_rng_state(states[rank()], torch.device(net.device))
        if net.scaling is not None and self.state["scaling"] is not None:
            net.scaling.go_on(self.state["scaling"])
        self.epochs_kept = self.state["epochs_done"]

    def save(self, net: Any) -> None:
        """Write the state of a net between two epochs."""
        callbacks = dict(net.callbacks_)
        scheduler = getattr(callbacks.get("lr_scheduler"), "scheduler_", None)
        stopping = callbacks["early_stopping"]
        device = torch.device(net.device)
        state = {
            "identity": self.identity,
            "seed": self.seed,
            "weights": copy_weights(net.module_),
            "optimizer": net.optimizer_.state_dict(),
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "early_stopping": {
                name: getattr(stopping, name)
                for name in ("best_score_", "n_failed_", "best_weights_")
            },
            "history": json.dumps(net.history_.to_list(), default=_number_or_none),
            "epochs_done": net.run.epochs_done,
            "time": net.run.time.state(),
            "ended": net.run.is_over,
            "torch_rng": gather_objects(torch.get_rng_state()),
            "device_rng": (device.type, gather_objects(device_rng_state(device))),
            "scaling": None if net.scaling is None else net.scaling.state(),
        }
        if is_main():
            self._write(state)

    def _write(self, state: dict[str, Any]) -> None:
        """Write a state; a disk that takes no more ends no fit."""
        try:
            write_atomically(self.path, lambda file: write_state(state, file))
            self.epochs_kept = state["epochs_done"]
        except (OSError, RuntimeError) as error:  # torch turns the one into the other
            if not self.has_warned:
                warnings.warn(
                    f"checkpoint={str(self.folder)!r} can't be written ({error}); the fit goes on, "
                    f"and after a crash it would go on from epoch {self.epochs_kept}",
                    UserWarning,
                    stacklevel=2,
                )
            self.has_warned = True


def checkpoint_of(
    parameters: CLCEParameters,
    samples: Any,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    classes: np.ndarray,
    before: CLCEModule | None,
    validation: ValidationSet | None = None,
) -> Checkpoint | None:
    """Open the checkpoint of a fit; None without a folder, or, with a warning, an identity.

    A fit that goes on after another one, and the fits of clones, of which a search makes many,
    have folders of their own in it.
    """
    if parameters.checkpoint is None:
        return None
    try:
        identity = identity_of(parameters, samples, labels, weights, classes, before, validation)
    except UndescribableError as error:
        warnings.warn(
            f"checkpoint={str(parameters.checkpoint)!r}: {error}, so this fit can't be told from "
            "another one and is not kept; after a crash it begins anew",
            UserWarning,
            stacklevel=4,
        )
        return None
    folder = Path(parameters.checkpoint)
    if parameters._is_clone or before is not None:
        folder /= f"fit-{fingerprint(identity)[:16]}"
    return Checkpoint(folder, identity)


def _number_or_none(figure: Any) -> float | None:
    """Return a figure of an epoch; None for what is none, such as a matrix that a callback made."""
    return float(figure) if np.size(figure) == 1 else None


class _Hashing:
    """A file that digests what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def write_state(state: dict[str, Any], file: IO[bytes]) -> None:
    """Write a state, then its digest."""
    hashing: Any = _Hashing(file)
    torch.save(state, hashing)
    file.write(hashing.sha256.digest() + MAGIC)


def read_state(path: Path) -> dict[str, Any]:
    """Read what :func:`write_state` wrote, or raise a ValueError."""
    content = memoryview(path.read_bytes())
    end = len(content) - len(MAGIC)
    if end < DIGEST_BYTES or content[end:] != MAGIC:
        raise ValueError("its end is missing")
    state, digest = content[: end - DIGEST_BYTES], content[end - DIGEST_BYTES : end]
    if hashlib.sha256(state).digest() != digest:
        raise ValueError("its content is not what was written")
    return torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
