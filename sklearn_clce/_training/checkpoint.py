"""A fit on disk after each epoch, to resume from after a crash."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import torch
from torch import Tensor

from .._network import Network
from .._system import (
    Lock,
    broadcast,
    device_rng_state,
    digest_file,
    gather_objects,
    is_main,
    n_processes,
    rank,
    remove_unfinished,
    set_device_rng_state,
    warn,
    write_atomically,
)
from ..backbones import UndescribableError, fingerprint, libraries
from ..features import image_digests
from .batches import LabelledSamples, Samples
from .plan import DECIDED, FitPlan
from .trainer import CLCENet
from .validation import ValidationSet

FILE_NAME = "checkpoint.pt"
MAGIC = b"sklearn-clce checkpoint 5\n"  # at the end, after the digest of the content
DIGEST_BYTES = 32


class Checkpoint:
    """The checkpoint of one fit: of some parameters, on some data.

    Only tensors, numbers and strings are written, and only those are read. A folder serves one
    running fit. A ValueError is raised if the folder holds another fit, or a foreign file, and an
    OSError if nothing can be written into it.
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
        """Return the seed of the fit: the checkpoint's, if there is one."""
        self.seed = seed if self.state is None else self.state["seed"]
        return self.seed

    def _opened(self) -> dict[str, Any] | Exception | None:
        """Enter the folder and read what is there; an error is for all processes."""
        where = f"checkpoint={str(self.folder)!r}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.lock.acquire(wait=False):
                return ValueError(
                    f"{where}: another fit is running in this folder; choose another folder, or "
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
            if not self.path.is_file():  # such as a pipe, which would be waited for
                raise ValueError("it is a folder, a pipe or a device")
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
            causes = [name for name in different if name not in DECIDED] or different
            raise ValueError(
                f"{where} is of another fit: {', '.join(causes)} "
                f"{'differs' if len(causes) == 1 else 'differ'}; choose another folder, or remove "
                "this one to start again"
            )
        return state

    def restore(self, net: CLCENet) -> None:
        """Restore a net that is about to train."""
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
        net.state.epochs_done = self.state["epochs_done"]
        net.state.stopped = self.state["ended"]
        net.state.time.load_state(self.state["time"])
        torch.set_rng_state(self.state["torch_rng"][rank()])
        kind, states = self.state["device_rng"]
        if kind == torch.device(net.device).type:
            set_device_rng_state(states[rank()], torch.device(net.device))
        if net.scaling is not None and self.state["scaling"] is not None:
            net.scaling.load_state(self.state["scaling"])
        self.epochs_kept = self.state["epochs_done"]

    def save(self, net: CLCENet) -> None:
        """Write the state of a net between two epochs."""
        callbacks = dict(net.callbacks_)
        scheduler = getattr(callbacks.get("lr_scheduler"), "scheduler_", None)
        stopping = callbacks["early_stopping"]
        device = torch.device(net.device)
        state = {
            "identity": self.identity,
            "seed": self.seed,
            "weights": net.module_.trained_state(),
            "optimizer": net.optimizer_.state_dict(),
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "early_stopping": {
                name: getattr(stopping, name)
                for name in ("best_score_", "n_failed_", "best_weights_")
            },
            "history": json.dumps(net.history_.to_list(), default=_number_or_none),
            "epochs_done": net.state.epochs_done,
            "time": net.state.time.state(),
            "ended": net.state.is_over,
            "torch_rng": gather_objects(torch.get_rng_state()),
            "device_rng": (device.type, gather_objects(device_rng_state(device))),
            "scaling": None if net.scaling is None else net.scaling.state(),
        }
        if is_main():
            self._write(state)

    def _write(self, state: dict[str, Any]) -> None:
        """Write a state; a full disk, or a folder at its place, does not end the fit."""
        try:
            write_atomically(self.path, lambda file: write_state(state, file))
            self.epochs_kept = state["epochs_done"]
        except (OSError, ValueError, RuntimeError) as error:  # torch turns OSErrors into the last
            if not self.has_warned:
                warn(
                    f"checkpoint={str(self.folder)!r} can't be written ({error}); training "
                    f"continues, and after a crash it would resume from epoch {self.epochs_kept}"
                )
            self.has_warned = True


def open_checkpoint(
    folder: str | os.PathLike[str] | None,
    plan: FitPlan,
    data: LabelledSamples,
    *,
    previous: Network | None,
    validation: ValidationSet | None,
) -> Checkpoint | None:
    """Open the checkpoint of a fit; None without a folder, or, with a warning, an identity.

    Fits that continue an earlier one, and those of clones, of which a search makes many, have
    folders of their own in it.
    """
    if folder is None or plan.is_partial_fit:
        return None
    try:
        identity = _identity_of(plan, data, previous, validation)
    except UndescribableError as error:
        warn(
            f"checkpoint={str(folder)!r}: {error}, so this fit can't be distinguished from "
            "another one and is not kept; after a crash it starts again"
        )
        return None
    path = Path(folder)
    if plan.is_of_clone or previous is not None:
        path /= f"fit-{fingerprint(identity)[:16]}"
    return Checkpoint(path, identity)


def _identity_of(
    plan: FitPlan,
    data: LabelledSamples,
    previous: Network | None,
    validation: ValidationSet | None,
) -> dict[str, str]:
    """Describe all that the result of a fit depends on; files count by their content."""
    parts = plan.compared() | {
        "pretrained": _content_of_file(plan.pretrained),
        "X": _content_of(data.samples),
        "y": (data.target.classes, data.target.labels),
        "class_weight or sample_weight": data.target.weights,
        "X_val": None if validation is None else _content_of(validation.samples),
        "y_val": None if validation is None else validation.target.labels,
        "sample_weight_val": None if validation is None else validation.target.weights,
        "processes": n_processes(),
        "libraries": (libraries(), torch.get_float32_matmul_precision()),
        "the fit before": None if previous is None else previous.trained_state(),
    }
    identity = {}
    for name, value in parts.items():
        try:
            identity[name] = fingerprint(value)
        except UndescribableError as error:
            raise UndescribableError(f"{name} can't be described: {error}") from error
    return identity


def digest_of(samples: Samples) -> str:
    """Digest samples by their content; images that may change have none: an empty string."""
    if not isinstance(samples, Tensor) and samples.is_stochastic:
        return ""
    return fingerprint(_content_of(samples))


def _content_of(samples: Samples) -> Tensor | list[bytes]:
    """Return features as they are, and a digest of each image."""
    if isinstance(samples, Tensor):
        return samples
    return image_digests(samples, range(len(samples)))


def _content_of_file(value: Any) -> Any:
    """Return the content of a file that is named."""
    if isinstance(value, (str, os.PathLike)) and os.path.isfile(value):
        return digest_file(value)
    return value


def _number_or_none(figure: Any) -> float | None:
    """Return a figure of an epoch; None for anything else, such as a matrix of a callback's."""
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
