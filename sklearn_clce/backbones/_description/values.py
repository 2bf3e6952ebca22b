"""Descriptions of tensors, layers, containers and objects."""

from __future__ import annotations

import copyreg
import logging
import os
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from itertools import chain
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .digest import Digest, Kinds, by_name

HOOKS = {
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks"),
}
TIMMS_NOTES = {"pretrained_cfg", "default_cfg", "factory_args", "_traits"}  # of where it is from


def add_tensor(digest: Digest, tensor: Tensor) -> None:
    """Describe a tensor to the bit, wherever and however it lies in memory."""
    if type(tensor) not in (Tensor, nn.Parameter):
        digest.add(type(tensor))
    try:
        if tensor.is_quantized:
            raise TypeError("its scale is not among its numbers")
        flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
        content = flat.view(torch.uint8).numpy().data
    except Exception as error:  # sparse, without memory, of a subclass
        raise digest.refusal(f"a tensor of {type(tensor).__name__} can't be read") from error
    digest.write("tensor", tensor.dtype, tuple(tensor.shape), tensor.requires_grad, content)
    digest.add(vars(tensor))


def add_array(digest: Digest, array: np.ndarray | np.generic) -> None:
    """Describe an array, or a number of NumPy's."""
    digest.write("array", array.dtype.str, array.shape)
    if array.dtype.hasobject:
        digest.add_each("objects", array.ravel().tolist())
    else:
        digest.write(np.ascontiguousarray(array).tobytes())
    if type(array) not in (np.ndarray, array.dtype.type):
        digest.add(type(array))
        digest.add(getattr(array, "__dict__", None))


def add_layers(digest: Digest, module: nn.Module) -> None:
    """Describe layers, weights, buffers, attributes and hooks."""
    cls = type(module)
    digest.add(cls)
    hidden = TIMMS_NOTES if cls.__module__.startswith("timm.") else set()
    state = {
        name: value
        for name, value in vars(module).items()
        if name not in hidden and not ("state_dict" in name and "hooks" in name)
    }
    hooks = HOOKS & state.keys()
    numbers = sorted(set(chain.from_iterable(state[name] for name in hooks)))
    for name in hooks:  # known by a number that is another in each process
        state[name] = {numbers.index(number): hook for number, hook in state[name].items()}
    for name, value in by_name(state):
        digest.write(name)
        digest.add(dict(value) if name == "_modules" else value, name.strip("_"))


def add_instance(digest: Digest, value: Any) -> None:
    """Describe an object by its attributes; one with a hidden state by how it is copied."""
    cls = type(value)
    slots = {
        (base.__qualname__, name): member
        for base in cls.__mro__
        if "__slots__" in vars(base)
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)
    }
    if _is_hidden(cls, len(slots)):
        _add_parts(digest, value)
        return
    digest.add(cls)
    digest.add_pairs("attributes", by_name(getattr(value, "__dict__", {})))
    for name in sorted(slots):
        try:
            content = slots[name].__get__(value)
        except AttributeError:
            continue
        digest.write(*name)
        digest.add(content, name[1])


def _is_hidden(cls: type, n_slots: int) -> bool:
    """Tell whether instances of a class hold more than attributes can show: it is made in C."""
    shown = n_slots + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    return cls.__basicsize__ > object.__basicsize__ + shown * 8 or cls.__itemsize__ > 0


def _add_parts(digest: Digest, value: Any) -> None:
    """Describe what an object would be made of again."""
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        parts = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:
        raise digest.refusal(f"{type(value).__name__} has no description") from error
    if isinstance(parts, str):
        digest.add_by_name(value, parts)
        return
    for part in parts:
        digest.add(list(part) if isinstance(part, Iterator) else part)


def _unless_subclassed(kind: type, add: Callable[[Digest, Any], None]) -> Any:
    """Describe a container of Python's own; another one has a class to describe, and parts."""
    return lambda digest, value: (add if type(value) is kind else add_instance)(digest, value)


def _add_set(digest: Digest, value: set[Any] | frozenset[Any]) -> None:
    """Describe a set, whose order is another in each process."""
    members = []
    for member in value:
        own = Digest(digest.kinds, digest.add_instance)
        own.add(member)
        members.append(own.hexdigest())
    digest.add_each("set", sorted(members))


def _add_reference(digest: Digest, reference: weakref.ref[Any]) -> None:
    digest.write("reference")
    digest.add(reference())


def _add_member(digest: Digest, member: Enum) -> None:
    digest.add(type(member))
    digest.add(member.value)


KINDS_OF_VALUES: Kinds = {
    Enum: _add_member,
    dict: _unless_subclassed(dict, lambda digest, value: digest.add_pairs("dict", value.items())),
    list: _unless_subclassed(list, lambda digest, value: digest.add_each("list", value)),
    set: _unless_subclassed(set, _add_set),
    frozenset: _unless_subclassed(frozenset, _add_set),
    Tensor: add_tensor,
    (np.ndarray, np.generic): add_array,
    nn.Module: add_layers,
    weakref.ref: _add_reference,
    PurePath: lambda digest, path: digest.write("path", os.fspath(path)),
    logging.Logger: lambda digest, logger: digest.write("logger", logger.name),  # never read
    (types.GenericAlias, types.UnionType, type(Iterable[int]), type(Any | None)): (
        lambda digest, hint: digest.write("hint", hint)
    ),
}
