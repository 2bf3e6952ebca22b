"""One file of tensors and metadata: written in one step, treated as untrusted when read.

The file is a safetensors file: the length of a JSON header, the header, raw numbers.
Its metadata are four strings: the version of the format, the writer, the description of
the model as JSON, and a digest of that and of all tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from sklearn.exceptions import InconsistentVersionWarning
from torch import Tensor

from .._system import warn, write_atomically
from ._plain import take

FORMAT_VERSION = 1
# How pickles begin: plain; compressed by zlib, gzip, bzip2, lzma; of torch.save.
PICKLES = (b"\x80", b"x\x01", b"x^", b"x\x9c", b"x\xda", b"\x1f\x8b", b"BZh", b"\xfd7z", b"PK")
MAX_HEADER_BYTES = 16 * 2**20
MAX_HEADER_VALUES = 500_000  # bounds the memory that parsing takes
LIBRARIES = ("sklearn-clce", "scikit-learn", "skorch", "timm", "torch", "torchvision", "pillow")

VERSION, WRITER, MODEL, DIGEST = "format_version", "written_by", "sklearn_clce", "sha256"


class SavedWithOtherVersions(InconsistentVersionWarning):
    """A model file was saved with other versions of the libraries that predictions depend on."""

    differences: list[str]  # library, its version in the file and the installed one

    def __str__(self) -> str:
        return (
            f"the {self.estimator_name} was saved with other versions: "
            f"{'; '.join(self.differences)}. Its predictions may differ; compare them, or "
            "install the versions that it was saved with"
        )


def write_model_file(
    path: str | os.PathLike[str], model: dict[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a file in one step: a crash leaves the old file or the new one."""
    text = json.dumps({"libraries": _installed_versions()} | model)
    own = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    metadata = {
        VERSION: str(FORMAT_VERSION),
        WRITER: f"sklearn-clce {version('sklearn-clce')}",
        MODEL: text,
        DIGEST: _digest(str(FORMAT_VERSION), text, own),
    }
    content = save(own, metadata)
    _check_size(content[8 : 8 + int.from_bytes(content[:8], "little")])
    write_atomically(Path(path), lambda file: file.write(content))


def read_model_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file that :func:`write_model_file` wrote."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"path={os.fspath(path)!r}: this file does not exist")
    try:
        return _parsed(*_read(Path(path)))
    except ValueError as error:
        raise ValueError(
            f"path={os.fspath(path)!r} is not a model file: {error}. A file that clf.save wrote is "
            "required"
        ) from error


def _read(path: Path) -> tuple[bytes, bytes]:
    """Read a file, which may be truncated meanwhile, and return it and its JSON header."""
    if not path.is_file():
        raise ValueError("it is a folder or a device")
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        available = os.fstat(file.fileno()).st_size - 8
        if not 2 <= length <= available:
            if start.startswith(PICKLES):
                raise ValueError(
                    "it looks like a pickle, or a file of torch.save: joblib.load, pickle.load or "
                    "torch.load reads it, and runs code in it, so trust its author first"
                )
            raise ValueError("it is not a safetensors file, or was cut off")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header takes {length} bytes")
        content = start + file.read(available)
    return content, content[8 : 8 + length]


def _parsed(content: bytes, header: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    _check_size(header)
    try:
        tensors = load(content)  # copies
        metadata = json.loads(header).get("__metadata__", {})
    except (SafetensorError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"it is damaged ({error})") from error
    _check_metadata(metadata)
    text = metadata[MODEL]
    if _digest(metadata[VERSION], text, tensors) != metadata[DIGEST]:
        raise ValueError("its content is not what was written: it is damaged")
    _check_size(text.encode())
    try:
        model = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its description is not JSON ({error})") from error
    if type(model) is not dict:
        raise ValueError("its description is not a JSON object")
    return model, tensors


def _check_size(description: bytes) -> None:
    """Reject JSON that would take much more memory to parse than it takes on disk."""
    n_values = sum(map(description.count, (b",", b"[", b"{")))
    if len(description) > MAX_HEADER_BYTES or n_values > MAX_HEADER_VALUES:
        raise ValueError(
            f"its header takes {len(description)} bytes for {n_values} values, and at most "
            f"{MAX_HEADER_BYTES} for {MAX_HEADER_VALUES} are read"
        )


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if MODEL not in metadata:
        raise ValueError(
            "it holds tensors and no model; pretrained='...' takes weights of a backbone"
        )
    found = metadata.get(VERSION, "")
    if not (found.isascii() and found.isdigit() and len(found) < 6) or DIGEST not in metadata:
        raise ValueError("its version is missing")
    if int(found) > FORMAT_VERSION:
        raise ValueError(
            f"it is of format {found}, written by {metadata.get(WRITER, '')[:40]!r}, and this "
            f"version, sklearn-clce {version('sklearn-clce')}, reads formats up to "
            f"{FORMAT_VERSION}; a newer sklearn-clce is required"
        )
    if int(found) < FORMAT_VERSION:
        raise ValueError(f"there was never a format {found}")


def _digest(format_version: str, text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{format_version} {len(text)} {text}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def warn_of_versions(model: dict[str, Any]) -> None:
    """Warn if a model was saved with other versions of its libraries."""
    saved_with, installed = take(model, "libraries", dict), _installed_versions()
    saved = {name: str(saved_with.get(name))[:40] for name in LIBRARIES}
    different = [name for name in LIBRARIES if saved[name] != installed[name]]
    if different:
        warning = SavedWithOtherVersions(
            estimator_name="CLCEClassifier",
            current_sklearn_version=installed["scikit-learn"],
            original_sklearn_version=saved["scikit-learn"],
        )
        warning.differences = [f"{n} {saved[n]}, here {installed[n]}" for n in different]
        warn(warning)


def _installed_versions() -> dict[str, str]:
    return {name: _version(name) for name in LIBRARIES}


def _version(package: str) -> str:
    """Return the release of a package, regardless of its build (torch 2.6.0+cu124 is 2.6.0)."""
    return version(package).split("+")[0]
