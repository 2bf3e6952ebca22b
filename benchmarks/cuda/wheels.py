"""Make a folder of wheels for a CUDA machine without a network, in a size that can be carried.

The machine has Python 3.12 on x86-64, torch and what scientific images of it hold
(``--has``); everything else that ``python -m benchmarks.cuda`` imports goes into the
folder. There: ``python -m pip install --no-index --no-deps FOLDER/*.whl``.

Run ``python -m benchmarks.cuda.wheels FOLDER [--has NAME ...] [--limit 60]``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
HAS = ("torch", "torchvision", "numpy", "scipy", "pillow")
BESIDE = ("pytorch-metric-learning", "pytest", "pandas")  # what is imported beside the package
TARGET = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux"}
TARGET |= {"platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
TARGET |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
OWN_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")  # not of what a wheel holds copies of
GLIBC = ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")  # pip wants each by name


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda.wheels", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="made; must be empty")
    parser.add_argument("--has", nargs="*", default=HAS, help="what the machine has")
    parser.add_argument("--limit", type=float, default=60, help="size of all wheels, in MiB")
    options = parser.parse_args(arguments)
    if options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"{options.folder}: the folder is not empty; choose another one")
    with tempfile.TemporaryDirectory() as found:
        build(Path(found))
        collect(roots(), options.has, Path(found))
        wheels = sorted(Path(found).glob("*.whl"))
        sizes = {wheel.name: wheel.stat().st_size / 2**20 for wheel in wheels}
        for name, size in sizes.items():
            print(f"{size:7.1f} MiB  {name}")
        total = sum(sizes.values())
        print(f"{total:7.1f} MiB  in all, of {options.limit:g}")
        if total > options.limit:
            largest = max(sizes, key=sizes.__getitem__)
            raise SystemExit(
                f"{total:.1f} MiB are more than --limit {options.limit:g}: name more of what the "
                f"machine has in --has; the largest is {largest}"
            )
        shutil.copytree(found, options.folder, dirs_exist_ok=True)


def build(folder: Path) -> None:
    """Build this package, whose version must be installed where it runs from a clone."""
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))


def roots() -> list[Requirement]:
    """Return what the package, its benchmarks and its tests of CUDA ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    beside = map(Requirement, extras["benchmarks"] + extras["test"])
    return [
        *map(Requirement, project["dependencies"]),
        *(one for one in beside if one.name in BESIDE),
    ]


def collect(wanted: Iterable[Requirement], has: Iterable[str], folder: Path) -> None:
    """Download wheels, then those that they ask for, until nothing is missing."""
    known = set(map(canonicalize_name, has))
    missing = {canonicalize_name(one.name): one for one in wanted}
    while missing := {name: one for name, one in missing.items() if name not in known}:
        known |= missing.keys()
        download(missing.values(), folder)
        missing = {
            canonicalize_name(one.name): one
            for wheel in folder.glob("*.whl")
            for one in needs(wheel)
        }


def needs(wheel: Path) -> list[Requirement]:
    """Return what a wheel asks for on the machine, without its extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if OWN_METADATA.fullmatch(n))
        metadata = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    requirements = map(Requirement, metadata.get_all("Requires-Dist", []))
    return [
        one
        for one in requirements
        if one.marker is None or one.marker.evaluate(TARGET | {"extra": ""})
    ]


def download(requirements: Iterable[Requirement], folder: Path) -> None:
    """Fetch wheels for the machine, whatever this one is."""
    pip(
        *("download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)),
        *("--python-version=3.12", "--implementation=cp", "--platform=manylinux2014_x86_64"),
        *(f"--platform=manylinux_{glibc}_x86_64" for glibc in GLIBC),
        *(f"{one.name}{one.specifier}" for one in requirements),
    )


def pip(command: str, *arguments: str) -> None:
    """Run pip quietly."""
    subprocess.run([sys.executable, "-m", "pip", command, "--quiet", *arguments], check=True)


if __name__ == "__main__":
    main()
