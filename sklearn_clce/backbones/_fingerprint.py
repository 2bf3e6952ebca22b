"""What makes two things the same: one digest of all that running them reads.

Tensors, settings and a user's code are described by content, code of installed packages by
its release. What can't be described has no fingerprint, so that nothing is taken for the same.
"""

from __future__ import annotations

import builtins
import copyreg
import dis
import functools
import hashlib
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from ._releases import find, release_of, release_of_module

PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), range),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
TIMMS_NOTES = {"pretrained_cfg", "default_cfg", "factory_args", "_traits"}  # of where it is from
NOT_READ = {  # what each class or module has in addition to what its code reads
    *("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__"),
    *("__annotate_func__", "__annotations_cache__", "__conditional_annotations__"),
    *("__firstlineno__", "__static_attributes__", "__slotnames__", "__parameters__", "_abc_impl"),
    *("__orig_bases__", "__dataclass_fields__", "__dataclass_params__", "__builtins__"),
    *("__file__", "__cached__", "__loader__", "__spec__", "__name__", "__package__", "__path__"),
}
READ_ANYTHING = (eval, exec, compile, globals, input, open, __import__)
READERS = {  # names of functions of packages that read files or surroundings
    *("open", "load", "load_file", "safe_open", "fromfile", "from_file", "loadtxt", "genfromtxt"),
    *("memmap", "read_text", "read_bytes", "read_csv", "imread", "read_image", "urlopen"),
    *("environ", "getenv", "import_module", "load_state_dict_from_url"),
}
MADE_IN_C = (
    *(types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType),
    types.ClassMethodDescriptorType,
)
CACHED = type(functools.lru_cache(len))
WRAPPERS = property, staticmethod, classmethod, types.MethodType, functools.cached_property, CACHED
WRAPPED = (
    *("__func__", "__self__", "__wrapped__", "func", "args", "keywords", "fget", "fset", "fdel"),
)
PICKLING = {"__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__"}


class UndescribableError(Exception):
    """A thing has no fingerprint, so it is the same as nothing."""


def fingerprint(value: object) -> str:
    """Return a digest that two things share, in any process, only if they are the same."""
    digest = _Digest()
    try:
        digest.add(value)
    except RecursionError as error:
        raise UndescribableError("it is nested too deeply") from error
    except UndescribableError:
        raise
    except Exception as error:  # objects may do anything when they are read
        raise digest.error(f"it raised {type(error).__name__}: {error}") from error
    return digest.sha256.hexdigest()


class _Digest:
    """A digest of things and of all that they refer to; each word is written with its length."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.seen: dict[int, tuple[int, object]] = {}
        self.place: list[str] = []

    def add(self, value: Any, name: object = "") -> None:
        """Describe a thing, and all that it refers to; the name is for messages."""
        if type(value) in PLAIN:
            self.write(type(value).__qualname__, repr(value))
        elif type(value) is tuple:  # may be one object or several equal ones, by chance
            self.add_members("tuple", enumerate(value))
        elif id(value) in self.seen:
            self.write("seen", self.seen[id(value)][0])
        else:
            self.seen[id(value)] = len(self.seen), value  # kept, so that no other gets its id
            self.place.append(str(name).strip("_"))
            add = CONTAINERS.get(type(value)) or next(
                add for kind, add in KINDS.items() if isinstance(value, kind)
            )
            add(self, value)
            self.place.pop()

    def write(self, *words: object) -> None:
        """Describe words."""
        for word in words:
            if isinstance(word, (bytes, memoryview)):
                self.sha256.update(b"%d:" % len(word))
                self.sha256.update(word)
            else:
                content = str(word).encode(errors="surrogatepass")
                self.sha256.update(b"%d:%b" % (len(content), content))

    def add_members(self, kind: str, members: Iterable[tuple[Any, Any]]) -> None:
        """Describe names or indices and what they refer to, in this order."""
        members = list(members)
        self.write(kind, len(members))
        for name, value in members:
            self.add(name)
            self.add(value, name)

    def error(self, what: str) -> UndescribableError:
        """Say what has no fingerprint, and where it is."""
        place = ".".join(part for part in self.place if part)
        return UndescribableError(f"{what} ({place})" if place else what)


def _add_tensor(digest: _Digest, tensor: Tensor) -> None:
    """Describe a tensor to the bit, on any device and in any memory format."""
    if type(tensor) not in (Tensor, nn.Parameter):
        digest.add(type(tensor))
    try:
        if tensor.is_quantized:
            raise TypeError("its scale is not among its numbers")
        flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
        content = flat.view(torch.uint8).numpy().data
    except Exception as error:  # sparse, without memory, of a subclass
        raise digest.error(f"a tensor of {type(tensor).__name__} can't be read") from error
    digest.write("tensor", tensor.dtype, tuple(tensor.shape), tensor.requires_grad, content)
    digest.add(vars(tensor))


def _add_array(digest: _Digest, array: np.ndarray | np.generic) -> None:
    digest.write("array", array.dtype.str, array.dtype, array.shape)
    if array.dtype.hasobject:
        digest.add(array.ravel().tolist())
    else:
        digest.write(np.ascontiguousarray(array).tobytes())
    if type(array) not in (np.ndarray, array.dtype.type):
        digest.add((type(array), getattr(array, "__dict__", None)))


def _add_layers(digest: _Digest, module: nn.Module) -> None:
    """Describe layers, weights, buffers, attributes and hooks."""
    notes = TIMMS_NOTES if type(module).__module__.startswith("timm.") else ()
    state = {name: value for name, value in vars(module).items() if name not in notes}
    for name in [name for name in state if "_hooks" in name]:
        hooks = state.pop(name)
        if hooks and "state_dict" not in name:
            state[name] = _without_numbers(name, hooks, module)
    everywhere = global_hooks._global_forward_pre_hooks, global_hooks._global_forward_hooks
    digest.add((type(module), *(list(hooks.values()) for hooks in everywhere)))
    digest.add_members("layers", sorted(state.items()))


def _without_numbers(name: str, hooks: dict[int, Any], module: nn.Module) -> list[Any]:
    """Return hooks, or marks of them, in order: their numbers differ between processes."""
    marked = name.removesuffix("_with_kwargs").removesuffix("_always_called")
    return list(hooks.values()) if marked == name else [n in hooks for n in vars(module)[marked]]


def _add_set(digest: _Digest, members: set[Any] | frozenset[Any]) -> None:
    """Describe a set, whose order differs between processes."""
    digest.write("set", len(members), *sorted(map(fingerprint, members)))


def _add_object(digest: _Digest, value: Any) -> None:
    """Describe what a pickle would make an object from; a name has to be that of a release."""
    cls: Any = type(value)
    reduce = copyreg.dispatch_table.get(cls, lambda value: cls.__reduce_ex__(value, 4))
    users = [base for base in cls.__mro__ if not release_of(base)]
    own = [vars(base)[name] for base in users for name in PICKLING & vars(base).keys()]
    if not all(map(release_of, (reduce, *own))):
        raise digest.error(f"a pickle of {cls.__name__} may leave something out")
    try:
        parts = reduce(value)
    except Exception as error:
        raise digest.error(f"{cls.__name__} has no description") from error
    if not isinstance(parts, str):
        digest.add(tuple(list(part) if isinstance(part, Iterator) else part for part in parts))
        return
    module = "numpy" if isinstance(value, np.ufunc) else getattr(value, "__module__", None)
    if find(module, parts) is not value or not (release := release_of_module(module)):
        raise digest.error(f"{parts} is not written in Python")
    digest.write("named", module, parts, release)


def _add_function(digest: _Digest, function: types.FunctionType) -> None:
    """Describe code, defaults, closure and patches; of a user's function all that it refers to."""
    release = release_of(function)
    digest.write("function", function.__qualname__, release, release and function.__module__)
    _add_code(digest, function.__code__)
    cells = map(_content, function.__closure__ or ())
    digest.add_members("closure", zip(function.__code__.co_freevars, cells, strict=True))
    digest.add_members("defaults", [("", function.__defaults__), ("*", function.__kwdefaults__)])
    digest.add_members("patches", _patches(function))
    if not release:
        digest.add(vars(function))
        for code in _all_code(function.__code__):
            digest.add_members("globals", _referred(digest, function.__globals__, code))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # not yet filled


def _add_code(digest: _Digest, code: types.CodeType) -> None:
    """Describe bytecode, without the lines where it is."""
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    digest.write("code", code.co_code, code.co_exceptiontable, names, counts)
    digest.add_members("constants", enumerate(code.co_consts))


def _all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code of a function, and of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_code(constant)


def _referred(
    digest: _Digest, scope: dict[str, Any], code: types.CodeType
) -> Iterator[tuple[str, Any]]:
    """Yield the globals and imports that code names, and of a user's module what is taken of it."""
    readers = READERS.intersection(code.co_names)
    if readers and code.co_name != "__init__":  # which has run
        raise digest.error(f"it calls {min(readers)}, which may read anything")
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for step, second, third in zip_longest(steps, steps[1:], steps[2:]):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            name, value = step.argval, scope.get(step.argval, vars(builtins).get(step.argval))
            release = None
            if isinstance(value, types.ModuleType) and second.opname in (
                "LOAD_ATTR",
                "LOAD_METHOD",
            ):
                release = release_of(value)
                name, value = f"{name}.{second.argval}", getattr(value, second.argval, None)
            if any(value is reader for reader in READ_ANYTHING):
                raise digest.error(f"it calls {name}, which may read anything")
            yield name, release or value
        elif third is not None and third.opname == "IMPORT_NAME":
            yield third.argval, __import__(third.argval, scope, None, second.argval, step.argval)


def _add_class(digest: _Digest, cls: type) -> None:
    """Describe the members of a class; of a package's class only what a user put there."""
    release = release_of(cls)
    digest.write("class", cls.__qualname__, release, release and cls.__module__)
    digest.add((None if type(cls) is type else type(cls), cls.__bases__))
    _add_namespace(digest, cls, release)
    if release:
        parts = (part for member in vars(cls).values() for part in _inside(member))
        functions = [part for part in parts if isinstance(part, types.FunctionType)]
        digest.add_members("patches", chain.from_iterable(map(_patches, functions)))


def _add_module(digest: _Digest, module: types.ModuleType) -> None:
    """Describe all that a user's module holds; of a package's only what a user put there."""
    release = release_of(module)
    digest.write("module", module.__name__, release)
    digest.add(type(module))
    _add_namespace(digest, module, release)


def _add_namespace(digest: _Digest, owner: Any, release: str | None) -> None:
    members = {name: m for name, m in vars(owner).items() if name not in NOT_READ}
    if release:
        members = {name: m for name, m in members.items() if _is_patch(m)}
    for name, member in members.items():
        if isinstance(member, MADE_IN_C) and member.__objclass__ is owner:
            raise digest.error(f"{owner.__qualname__}.{name} is not written in Python")
    digest.add_members("members", sorted(members.items()))


def _patches(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a user put into the packages in which a function finds what it names."""
    names = sorted({name for code in _all_code(function.__code__) for name in code.co_names})
    scope = function.__globals__
    modules = [scope[name] for name in names if isinstance(scope.get(name), types.ModuleType)]
    spaces = [vars(module) for module in modules if release_of(module)]
    for space in [scope, *spaces] if release_of(function) else spaces:
        yield from ((name, space[name]) for name in names if _is_patch(space.get(name)))


def _is_patch(member: Any) -> bool:
    return any(map(_is_users, _inside(member)))


def _is_users(part: Any) -> bool:
    """Check whether a function or module, or the class of an object, is in no package."""
    if type(part) in (types.FunctionType, types.ModuleType):
        return not release_of(part)
    return not release_of_module((part if isinstance(part, type) else type(part)).__module__)


def _inside(member: Any) -> Iterator[Any]:
    """Yield a member of a class or module, and what it wraps."""
    parts, seen = [member], set()
    while parts:
        part = parts.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            parts += _wrapped(part)


def _wrapped(wrapper: Any) -> list[Any]:
    """Return what closures, decorators of Python, methods and partial functions consist of."""
    if isinstance(wrapper, types.FunctionType):
        return list(map(_content, wrapper.__closure__ or ()))
    if not isinstance(wrapper, (*WRAPPERS, functools.partial)):
        return []
    return [getattr(wrapper, name, None) for name in WRAPPED]


CONTAINERS: Mapping[Any, Callable[[_Digest, Any], None]] = {
    dict: lambda digest, value: digest.add_members("dict", value.items()),
    list: lambda digest, value: digest.add_members("list", enumerate(value)),
    set: _add_set,
    frozenset: _add_set,
}
KINDS: Mapping[Any, Callable[[_Digest, Any], None]] = {
    Tensor: _add_tensor,
    (np.ndarray, np.generic): _add_array,
    nn.Module: _add_layers,
    weakref.ref: lambda digest, reference: digest.add((weakref.ref, reference())),
    types.FunctionType: _add_function,
    types.CodeType: _add_code,
    type: _add_class,
    types.ModuleType: _add_module,
    WRAPPERS: lambda digest, wrapper: digest.add((type(wrapper), *_wrapped(wrapper))),
    object: _add_object,
}
