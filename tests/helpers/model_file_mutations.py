"""Ways to spoil a model file: each takes its bytes and a generator, and returns other bytes."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import torch
from safetensors.torch import load, save

from sklearn_clce.persistence._file import DIGEST, MODEL, VERSION, _digest

HOSTILE_NUMBERS = (-1, 0, 2**31, 10**9, 10**12, 2**63, 10**30, 1e308, float("nan"), float("inf"))
HOSTILE_VALUES = (
    *HOSTILE_NUMBERS,
    None,
    True,
    "",
    "\ud800\0",
    "A" * 10_000,
    "/etc/passwd",
    "hf-hub:nobody/nothing",
    "local-dir:/tmp",
    "eva_giant_patch14_560",
    "vit_giant_patch14_dinov2",
    [],
    [[]] * 1000,
    {},
    {"path": "/etc/passwd"},
    {"tuple": [1, 2]},
    {"dict": [["a", 1], [[], 2]]},
    {"dict": "x"},
    {"lambda": "x"},
)


class Pickled:
    """What a pickle would run."""

    def __reduce__(self):
        return os.mkdir, ("run-by-a-pickle",)


def header_length(content):
    return int.from_bytes(content[:8], "little")


def with_header(content, header):
    data = content[8 + header_length(content) :]
    return len(header).to_bytes(8, "little") + header + data


def truncated(content, rng):
    end = 8 + header_length(content)
    places = [0, 1, 7, 8, 9, end - 1, end, end + 1, len(content) - 1, rng.randrange(len(content))]
    return content[: rng.choice(places)]


def flipped(content, rng):
    content = bytearray(content)
    header = rng.random() < 0.6
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        place = rng.randrange(8 + header_length(content) if header else len(content))
        content[place % len(content)] ^= 1 << rng.randrange(8)
    return bytes(content)


def random_bytes(content, rng):
    start = rng.randrange(len(content))
    noise = rng.randbytes(rng.choice([1, 4, 16, 64]))
    if rng.random() < 0.5:
        return content[:start] + noise + content[start:]
    return content[:start] + noise + content[start + len(noise) :]


def wrong_length(content, rng):
    length = rng.choice([0, 1, 2, 2**60, 2**63, 2**64 - 1, len(content), len(content) - 8, 10**8])
    return length.to_bytes(8, "little") + content[8:]


def wrong_header(content, rng):
    deep = rng.choice([100, 10_000, 1_000_000])
    header = rng.choice([
        b"",
        b"{}",
        b"[]",
        b"null",
        b"not json",
        b"\xff\xfe{}",
        b"[" * deep,
        b"[" * deep + b"]" * deep,
        b'{"a":' * deep + b"1" + b"}" * deep,
        b'{"__metadata__":' + b'{"a":' * deep + b"}" * (deep + 1),
        b'{"__metadata__":{"sklearn_clce":"{}"}}',
        b'{"__metadata__":{"sklearn_clce":{}}}',
        b'{"__metadata__":[]}',
        b'{"a":{"dtype":"F32","shape":[' + b"0," * deep + b'0],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}',
        b'{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}',
        b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n
                         for n in range(deep // 20)) + b"}",
    ])  # fmt: skip
    return with_header(content, header)


def other_header_entry(content, rng):
    """Change an entry of a tensor in the header, in a way that is still JSON."""
    header = json.loads(content[8 : 8 + header_length(content)])
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    change = rng.choice(["dtype", "shape", "offsets", "name", "gone"])
    if change == "dtype":
        entry["dtype"] = rng.choice(["F16", "BF16", "I32", "F64", "BOOL", "U8", "F8_E4M3", "F4"])
    elif change == "shape":
        entry["shape"] = rng.choice([[], [0], [2**40], [-1], [1] * 100, entry["shape"] + [1]])
    elif change == "offsets":
        entry["data_offsets"] = rng.choice([[0, 0], [-4, 0], [0, 2**62], [4, 0], [0]])
    else:
        del header[name]
        if change == "name":
            header[rng.choice(["", "x", "__class__", "\u0000", "a" * 1000])] = entry
    return with_header(content, json.dumps(header).encode())


def foreign(content, rng):
    buffer = io.BytesIO()
    kind = rng.choice(["pickle", "torch", "zip", "npy", "empty", "text", "weights"])
    if kind == "pickle":
        pickle.dump(Pickled(), buffer)
    elif kind == "torch":
        torch.save({"weight": Pickled()}, buffer)
    elif kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("model.safetensors", content)
    elif kind == "npy":
        np.save(buffer, np.array([Pickled()], dtype=object), allow_pickle=True)
    elif kind == "text":
        buffer.write(rng.choice([b"{}", b"hello", b"\x02" + b"\0" * 7 + b"{}"]))
    elif kind == "weights":
        buffer.write(save({"weight": torch.zeros(3)}))
    return buffer.getvalue()


def signed(content, change):
    """Change description or tensors as a stranger would: with the right digest."""
    header = json.loads(content[8 : 8 + header_length(content)])
    metadata, tensors = header["__metadata__"], load(content)
    model = json.loads(metadata[MODEL])
    change(model, tensors)
    metadata[MODEL] = json.dumps(model)
    metadata[DIGEST] = _digest(metadata[VERSION], metadata[MODEL], tensors)
    return save(tensors, metadata)


def hostile_value(content, rng):
    """Put a value of another kind or size anywhere in the description."""

    def change(model, tensors):
        places = list(walk(model))
        container, key = rng.choice(places)
        what = rng.random()
        if what < 0.1 and isinstance(container, dict):
            del container[key]
        elif what < 0.15 and isinstance(container, dict):
            container[rng.choice(["unknown", "__class__", "callbacks", "memory"])] = "x"
        else:
            container[key] = rng.choice(HOSTILE_VALUES)

    return signed(content, change)


def walk(value):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield value, key
        if isinstance(item, (dict, list)):
            yield from walk(item)


def hostile_parameter(content, rng):
    """Give one of the parameters, or of what the network is built from, a bad value."""

    def change(model, tensors):
        part = rng.choice([model["parameters"], model["module"]])
        part[rng.choice(list(part))] = rng.choice(HOSTILE_VALUES)

    return signed(content, change)


def hostile_backbone(content, rng):
    def change(model, tensors):
        model["module"]["backbone"] = {
            "architecture": rng.choice(
                ["vit_giant_patch14_dinov2", "beit_large_patch16_512", "maxvit_tiny_tf_512", "x.y",
                 "__import__", "local-dir:/tmp", "hf-hub:a/b", "test_vit", "regnetz_e8"]
            ),
            "fixed_input_size": rng.random() < 0.5,
            "lower_blocks": [],
            "args": {"dict": [[
                rng.choice(["depth", "embed_dim", "img_size", "checkpoint_path", "pretrained_cfg",
                            "num_heads", "cache_dir", "in_chans", "pretrained_strict"]),
                rng.choice([*HOSTILE_VALUES, 10_000, 16_384]),
            ]]} if rng.random() < 0.5 else {"dict": []},
        }  # fmt: skip
        if rng.random() < 0.5:
            size = rng.choice([1, 512, 16_384, 10**9])
            config = {"tuple": [0.5] * 3}
            model["module"]["config"] = {"dict": [
                ["name", "x"], ["image_size", size], ["n_channels", 3], ["mean", config],
                ["std", config], ["interpolation", "bicubic"], ["crop_pct", 1.0],
                ["crop_mode", "center"]]}  # fmt: skip

    return signed(content, change)


def hostile_tensor(content, rng):
    """Give a tensor another shape, dtype or name."""

    def change(model, tensors):
        name = rng.choice(list(tensors))
        tensor = tensors.pop(name)
        kind = rng.choice(["shape", "dtype", "name", "gone", "more"])
        if kind == "shape":
            tensors[name] = rng.choice([tensor[None], tensor.flatten()[:0], torch.zeros(1, 2, 3)])
        elif kind == "dtype":
            dtypes = [torch.float16, torch.float64, torch.int8, torch.bool, torch.bfloat16]
            tensors[name] = tensor.to(rng.choice(dtypes))
        elif kind != "gone":
            names = ["", "x", "backbone", "__class__", "classifier.weight.x"]
            tensors[rng.choice(names)] = tensor.clone()
        if kind == "more":
            tensors[name] = tensor

    return signed(content, change)


def hostile_text(content, rng):
    """Make the description invalid JSON, or huge JSON."""
    header = json.loads(content[8 : 8 + header_length(content)])
    metadata, tensors = header["__metadata__"], load(content)
    deep = rng.choice([500, 10_000, 200_000])
    metadata[MODEL] = rng.choice([
        "", "{", "null", "[]", "3", "NaN", "1" * 10_000, "[" * deep, "[" * deep + "]" * deep,
        '{"a":' * deep + "1" + "}" * deep, '{"module":' * deep, "\x00",
        '{"parameters":{"weight":' + "[" * deep + "]" * deep + "}}",
        "[" + "[]," * 400_000 + "[]]", '["' + "a" * 10**6 + '"]',
    ])  # fmt: skip
    if rng.random() < 0.3:
        metadata[VERSION] = rng.choice(["0", "2", "-1", "1.0", "", "x", "9" * 5000, "\u0661"])
    metadata[DIGEST] = _digest(metadata[VERSION], metadata[MODEL], tensors)
    return save(tensors, metadata)


MUTATIONS = (
    truncated, flipped, random_bytes, wrong_length, wrong_header, other_header_entry, foreign,
    hostile_value, hostile_parameter, hostile_backbone, hostile_tensor, hostile_text,
)  # fmt: skip
ANOTHER_MODEL = (hostile_value, hostile_parameter, hostile_backbone)  # it may be one, if it loads
