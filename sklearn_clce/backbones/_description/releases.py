"""The releases that code comes from, as against code that a user may be editing."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

LIBRARIES = ("sklearn-clce", "torch", "torchvision", "timm", "pillow", "numpy")
OWN_PACKAGE = "sklearn_clce"


@lru_cache
def libraries() -> str:
    """Return the releases that results depend on."""
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)


def release_of(module: Any) -> str | None:
    """Return the release of the package that a module is of; None: it is the user's own."""
    if not isinstance(module, str):
        return None
    top = module.partition(".")[0]
    if top == OWN_PACKAGE:
        return f"sklearn-clce {version('sklearn-clce')}"
    if top in sys.stdlib_module_names:
        return f"Python {sys.version}"
    file = getattr(sys.modules.get(module), "__file__", None)
    return _release_of_file(top, file or getattr(sys.modules.get(top), "__file__", None))


@lru_cache(4096)
def _release_of_file(top: str, file: str | None) -> str | None:
    if file is None or not os.path.abspath(file).startswith(_site_folders()):
        return None
    with suppress(PackageNotFoundError):
        return f"{top} {version(top)}"
    packages = packages_distributions().get(top)  # slow, and hardly ever needed
    return None if packages is None else ", ".join(f"{name} {version(name)}" for name in packages)


@lru_cache
def _site_folders() -> tuple[str, ...]:
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(os.path.join(folder, "") for folder in folders)
