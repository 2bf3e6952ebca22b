"""One file of tensors and metadata: written whole, read with distrust.

The file is a safetensors file: the length of a JSON header, the header, raw numbers.
Its metadata are four strings: the version of the format, what wrote the file, the
description of the model as JSON, and a digest of that and of all tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .._system import write_atomically

FORMAT_VERSION = 1
# How pickles begin: plain; compressed by zlib, gzip, bzip2, lzma; of torch.save.
PICKLES = (b"\x80", b"x\x01", b"x^", b"x\x9c", b"x\xda", b"\x1f\x8b", b"BZh", b"\xfd7z", b"PK")
MAX_HEADER_BYTES = 16 * 2**20
MAX_HEADER_VALUES = 500_000  # what bounds the memory that parsing takes

# From a version of the format to the next one: description in, description out.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

VERSION, WRITER, MODEL, DIGEST = "format_version", "written_by", "sklearn_clce", "sha256"


def write_model_file(
    path: str | os.PathLike[str], model: dict[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a file in one step: a crash leaves the old one or the new one."""
    text = json.dumps(model)
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
    _check_description(content[8 : 8 + int.from_bytes(content[:8], "little")], path)
    write_atomically(Path(path), lambda file: file.write(content))


def read_model_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file that :func:`write_model_file` wrote."""
    content, header = _read(Path(path))
    _check_description(header, path)
    try:
        tensors = load(content)  # copies
        del content
        metadata = json.loads(header).get("__metadata__", {})
    except (SafetensorError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise _no_model_file(path, f"it is damaged ({error})") from error
    _check_metadata(metadata, path)
    text = metadata[MODEL]
    if _digest(metadata[VERSION], text, tensors) != metadata[DIGEST]:
        raise _no_model_file(path, "its content is not what was written: it is damaged")
    _check_description(text.encode(), path)
    try:
        model = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_model_file(path, f"its description is not JSON ({error})") from error
    if type(model) is not dict:
        raise _no_model_file(path, "its description is not a JSON object")
    return _upgraded(model, int(metadata[VERSION]), path), tensors


def _read(path: Path) -> tuple[bytes, bytes]:
    """Read a file, which may be cut off meanwhile, and in it the JSON header."""
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file")
    if not path.is_file():
        raise _no_model_file(path, "it is a folder or a device")
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        available = os.fstat(file.fileno()).st_size - 8
        if not 2 <= length <= available:
            if start.startswith(PICKLES):
                raise _no_model_file(
                    path,
                    "it looks like a pickle, or a file of torch.save: joblib.load, pickle.load or "
                    "torch.load reads it, and runs what it holds, so trust who wrote it",
                )
            raise _no_model_file(path, f"it is too short, or not a safetensors file ({length=})")
        if length > MAX_HEADER_BYTES:
            raise _no_model_file(path, f"its header takes {length} bytes")
        content = start + file.read(available)
    return content, content[8 : 8 + length]


def _check_description(description: bytes, path: str | os.PathLike[str]) -> None:
    """Refuse JSON that would take much more memory to parse than it takes on disk."""
    n_values = sum(map(description.count, (b",", b"[", b"{")))
    if len(description) > MAX_HEADER_BYTES or n_values > MAX_HEADER_VALUES:
        raise _no_model_file(
            path,
            f"its header takes {len(description)} bytes for {n_values} values, and at most "
            f"{MAX_HEADER_BYTES} for {MAX_HEADER_VALUES} are read",
        )


def _check_metadata(metadata: Mapping[str, str], path: str | os.PathLike[str]) -> None:
    if MODEL not in metadata:
        raise _no_model_file(
            path, "it holds tensors and no model; pretrained='...' takes weights of a backbone"
        )
    found = metadata.get(VERSION, "")
    if not (found.isascii() and found.isdigit() and len(found) < 6) or DIGEST not in metadata:
        raise _no_model_file(path, "its version is missing")
    if int(found) > FORMAT_VERSION:
        raise _no_model_file(
            path,
            f"it is of format {found}, written by {metadata.get(WRITER, '')[:40]!r}, and this "
            f"version, sklearn-clce {version('sklearn-clce')}, reads formats up to "
            f"{FORMAT_VERSION}; a newer sklearn-clce is required",
        )


def _upgraded(model: dict[str, Any], found: int, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Bring the description of an older file to the form of today, version by version."""
    while found < FORMAT_VERSION:
        if found not in UPGRADES:
            raise _no_model_file(path, f"there was never a format {found}")
        model = UPGRADES[found](model)
        found += 1
    return model


def _digest(format_version: str, text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{format_version} {len(text)} {text}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _no_model_file(path: str | os.PathLike[str], reason: str) -> ValueError:
    return ValueError(
        f"path={os.fspath(path)!r} is not a model file: {reason}. A file that clf.save wrote is "
        "required"
    )
