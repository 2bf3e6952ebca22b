"""Descriptions of functions, classes and modules: of a user's by content, of others by release."""

from __future__ import annotations

import builtins
import importlib
import sys
import types
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from ..._system import digest_file
from .digest import Digest, Kinds, by_name
from .reading import LOGS, WRITING_MODES, Reads, reads_of
from .releases import release_of

# what a class or module holds beside what its code reads
NOT_READ = {
    *("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__"),
    *("__annotate_func__", "__annotations_cache__", "__conditional_annotations__"),
    *("__firstlineno__", "__static_attributes__", "__slotnames__", "__parameters__", "_abc_impl"),
    *("__orig_bases__", "__dataclass_fields__", "__dataclass_params__", "__builtins__"),
    *("__file__", "__cached__", "__loader__", "__spec__", "__name__", "__package__", "__path__"),
}
REACHES_OUT = (eval, exec, compile, globals, input, __import__)
OPERATORS = {"aten", "prim", "prims", "torchvision"}  # namespaces of torch.ops with a release
MADE_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE


def add_function(digest: Digest, function: types.FunctionType) -> None:
    """Describe code and what it reads: defaults, closure, globals; not its names and lines."""
    release = _release_of(function)
    digest.write("function", release)
    add_code(digest, function.__code__)
    cells = function.__closure__ or ()
    if release and not cells:
        digest.write(function.__module__, function.__qualname__)
        return
    digest.add(function.__defaults__, "defaults")
    digest.add(function.__kwdefaults__, "defaults")
    digest.add(vars(function))
    reads = reads_of(function.__code__)
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        if not reads.is_log(name, _content(cell)):
            digest.add(_content(cell), name)
    if not release:
        _add_imports(digest, reads, function.__globals__.get("__package__"))
        for name, *attributes in reads.globals:
            _add_global(digest, reads, function.__globals__, name, attributes)


def _add_imports(digest: Digest, reads: Reads, package: str | None) -> None:
    for module, level in reads.imports:
        name = "." * level + module
        try:
            digest.add(importlib.import_module(name, package), module)
        except ImportError as error:
            raise digest.refusal(f"{name} can't be imported") from error


def _add_global(
    digest: Digest, reads: Reads, namespace: dict[str, Any], name: str, attributes: list[str]
) -> None:
    """Describe what ``name.attribute.attribute`` is, as far as that is a matter of modules."""
    value: Any = namespace.get(name, vars(builtins).get(name))
    reaches_out = any(value is function for function in REACHES_OUT)
    if reaches_out or (value is open and not WRITING_MODES & reads.strings):
        raise digest.refusal(f"it calls {name}, which may read anything")
    digest.write(name)
    while attributes and isinstance(value, types.ModuleType):
        module, name = value, f".{attributes.pop(0)}"
        value = getattr(module, name[1:], None)
        release = isinstance(value, types.FunctionType) and _release_of(value)
        if release and release_of(module.__name__):  # packages wrap their own as they run
            digest.write(module.__name__, value.__module__, value.__qualname__, release)
            return
    if not reads.is_log(name, value):
        digest.add(value, name)
    while attributes and isinstance(value, type):
        value = getattr(value, attributes.pop(0), None)
        digest.add(value, name)


def add_code(digest: Digest, code: types.CodeType) -> None:
    """Describe bytecode, wherever it stands."""
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    digest.write("code", code.co_code, code.co_exceptiontable, names, counts)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            add_code(digest, constant)
        else:
            digest.add(constant)


def add_class(digest: Digest, cls: type) -> None:
    """Describe the members of a class; of a package's class only what a user put there."""
    release = release_of(cls.__module__) if _found_by_name(cls) else None
    digest.write("class", cls.__qualname__, release)
    if cls.__module__ == "builtins":
        return
    if type(cls) is not type:
        digest.add(type(cls))
    for base in cls.__bases__:
        digest.add(base)
    if release:
        own = {
            (name, f.__module__, f.__qualname__) for name, f in _functions(cls) if _release_of(f)
        }
        digest.write(cls.__module__, sorted(own))
        for name, function in _functions(cls):
            if not _release_of(function):
                digest.write(name)
                digest.add(function, name)
        return
    logs = _logs_of(cls)
    for name, member in by_name(vars(cls)):
        if name not in NOT_READ and not (name in logs and type(member) in LOGS):
            digest.write(name)
            digest.add(member, name)


def add_module(digest: Digest, module: types.ModuleType) -> None:
    """Describe all that a module holds, as it may be used in any way."""
    release = release_of(module.__name__)
    digest.write("module", module.__name__, release)
    if release:
        return
    file = getattr(module, "__file__", None) or ""
    if file and not file.endswith((".py", ".pyc", ".ipynb")):
        digest.write(digest_file(file))
    for name, value in by_name(vars(module)):
        if name not in NOT_READ:
            digest.write(name)
            digest.add(value, name)


def _add_builtin(digest: Digest, function: Any) -> None:
    """Describe a function that is written in C, and what it belongs to."""
    owner = getattr(function, "__objclass__", getattr(function, "__self__", None))
    if owner is None or type(owner).__name__ == "PyCapsule":
        digest.add_by_name(function, function.__name__)
        return
    if isinstance(owner, type) and not isinstance(function, types.MemberDescriptorType):
        digest.add_by_name(owner, owner.__qualname__)
    digest.write("builtin", function.__name__)
    digest.add(owner)


def _add_method(digest: Digest, method: types.MethodType) -> None:
    digest.write("method")
    digest.add(method.__func__)
    digest.add(method.__self__)


def _add_wrapper(digest: Digest, wrapper: Any) -> None:
    """Describe what stands around a function."""
    digest.write(type(wrapper).__qualname__)
    for part in ("__func__", "__wrapped__", "func", "fget", "fset", "fdel"):
        digest.add(getattr(wrapper, part, None))


def _add_ufunc(digest: Digest, function: np.ufunc) -> None:
    if getattr(np, function.__name__, None) is not function:
        raise digest.refusal(f"the ufunc {function.__name__} is not NumPy's own")
    digest.write("ufunc", function.__name__, np.__version__)


def _add_operator(digest: Digest, operator: Any) -> None:
    if str(operator).partition(".")[0] not in OPERATORS:
        raise digest.refusal(f"torch.ops.{operator} is not torch's own")
    digest.write("operator", operator, torch.__version__)


def _release_of(function: types.FunctionType) -> str | None:
    return release_of(function.__globals__.get("__name__"))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # not yet filled


def _functions(cls: type) -> Iterator[tuple[str, types.FunctionType]]:
    """Yield the functions of a class, also those in properties and under decorators."""
    for name, member in by_name(vars(cls)):
        parts = [member, *(getattr(member, part, None) for part in ("__func__", "fget", "func"))]
        found: list[types.FunctionType] = []
        while parts:
            part = parts.pop()
            if isinstance(part, types.FunctionType) and part not in found:
                found.append(part)
                parts += map(_content, part.__closure__ or ())
        yield from ((name, function) for function in found)


def _logs_of(cls: type) -> set[str]:
    """Name what the methods of a class only write to, such as ``Net.calls += 1``."""
    reads = [
        reads_of(function.__code__)
        for base in cls.__mro__
        if not release_of(base.__module__)
        for _, function in _functions(base)
    ]
    read = set().union(*({*each.names, *(f".{word}" for word in each.strings)} for each in reads))
    written = set().union(*(each.written for each in reads))
    return {name[1:] for name in written - read if name.startswith(".")}


def _found_by_name(cls: type) -> bool:
    """Tell a class of a package from one that a function of it made."""
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls or not cls.__flags__ & MADE_IN_PYTHON


KINDS_OF_CODE: Kinds = {
    types.FunctionType: add_function,
    types.CodeType: add_code,
    types.MethodType: _add_method,
    (
        *(types.BuiltinFunctionType, types.MethodWrapperType, types.MethodDescriptorType),
        *(types.WrapperDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType),
        types.ClassMethodDescriptorType,
    ): _add_builtin,
    (property, staticmethod, classmethod, cached_property, type(lru_cache(len))): _add_wrapper,
    type: add_class,
    types.ModuleType: add_module,
    np.ufunc: _add_ufunc,
    (torch._ops.OpOverload, torch._ops.OpOverloadPacket): _add_operator,
}
