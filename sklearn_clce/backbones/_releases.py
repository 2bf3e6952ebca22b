"""The releases that code comes from, as against code that a user may be editing."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import types
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

LIBRARIES = ("sklearn-clce", "torch", "torchvision", "timm", "pillow", "numpy")
OWN_PACKAGE = "sklearn_clce"
MADE_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE


@lru_cache
def libraries() -> str:
    """Return the releases that results depend on."""
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)


def release_of(value: Any) -> str | None:
    """Return the release of a function, class or module; None: it is the user's own."""
    if isinstance(value, types.FunctionType):
        return release_of_module(value.__globals__.get("__name__"))
    if isinstance(value, types.ModuleType) and sys.modules.get(value.__name__) is value:
        return release_of_module(value.__name__)
    if type(value) is types.ModuleType:
        return _release_of_file(value.__name__.partition(".")[0], _origin(value))
    cls = value if isinstance(value, type) else type(value)  # such as torch.ops
    if cls.__flags__ & MADE_IN_PYTHON and find(cls.__module__, cls.__qualname__) is not cls:
        return None  # a function made it
    return release_of_module(cls.__module__)


def find(module: Any, name: str) -> Any:
    """Return what has this dotted name in a module, or None."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def release_of_module(name: Any) -> str | None:
    """Return the release of the package that a module is of; None: it is the user's own."""
    if not isinstance(name, str):
        return None
    top = name.partition(".")[0]
    if top == OWN_PACKAGE:
        return f"sklearn-clce {version('sklearn-clce')}"
    return _release_of_file(top, _origin(sys.modules.get(name)) or _origin(sys.modules.get(top)))


def _origin(module: types.ModuleType | None) -> str | None:
    """Return the file of a module, or that it is a part of Python."""
    spec = getattr(module, "__spec__", None)
    return getattr(module, "__file__", None) or getattr(spec, "origin", None)


@lru_cache(4096)
def _release_of_file(top: str, origin: str | None) -> str | None:
    if origin is None:
        return None
    if not os.path.abspath(origin).startswith(_site_folders()):
        is_standard = top in sys.stdlib_module_names and _is_standard(origin)
        return f"Python {sys.version}" if is_standard else None
    with suppress(PackageNotFoundError):
        return f"{top} {version(top)}"
    packages = packages_distributions().get(top)  # slow, and hardly ever needed
    return None if packages is None else ", ".join(f"{name} {version(name)}" for name in packages)


@lru_cache
def _site_folders() -> tuple[str, ...]:
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(os.path.join(folder, "") for folder in folders)


def _is_standard(origin: str) -> bool:
    """Check that a module is of the standard library, not a user's of the same name."""
    folders = os.path.dirname(os.__file__), os.path.join(sys.base_exec_prefix, "DLLs")
    parts = ("built-in", "frozen", *(os.path.join(folder, "") for folder in folders))
    return origin.startswith(parts)
