"""Images before a fit: those of a folder for each class, and those that can't be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from .._system import bar, count, warn
from ._kinds import as_images
from ._sequences import Images

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
NOT_DECODED = {"MPEG"}  # formats that Pillow names and can't decode
# of files and folders that systems and archives leave, in lower case
SYSTEM_NAMES = {
    *("__macosx", "@eadir", "$recycle.bin", "#recycle", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "__pycache__"),
}


def load_image_folder(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """List the images of a folder that holds a folder for each class.

    Images are not opened: :class:`CLCEClassifier` reads the paths when it needs them.
    A file is an image if its suffix is one that Pillow reads here. Folders in a class's
    folder are searched, linked ones too, each once; links to another class, or to a folder
    that holds this one, are not followed. Hidden files and folders are left out, and those
    that systems and archives leave, such as ``__MACOSX``.

    Parameters
    ----------
    path : path
        The folder. Each folder in it is named after its class.

    Returns
    -------
    paths : ndarray of shape (n_images,), str
        Paths of the images, sorted by class and name.
    labels : ndarray of shape (n_images,), str
        Name of the class of each.

    Raises
    ------
    FileNotFoundError
        If this folder does not exist.
    ValueError
        If it holds no class folder, one without an image, or parts such as ``train``
        and ``test`` that hold the classes.
    OSError
        If a folder can't be listed.

    Warns
    -----
    UserWarning
        If other files were left out: how many, of which suffix, in which class.

    See Also
    --------
    list_images : Paths without labels, from any folder.
    find_unreadable : Find the files that can't be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sklearn_clce import load_image_folder
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ["cat/1.png", "cat/2.png", "dog/1.png"]:
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     Image.new("RGB", (8, 8)).save(folder / name)
    >>> paths, labels = load_image_folder(folder)
    >>> labels.tolist()
    ['cat', 'cat', 'dog']
    """
    root = _existing_folder(path)
    entries = sorted(entry for entry in root.iterdir() if not _is_left_out(entry.name))
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        raise ValueError(
            f"path={str(path)!r} holds no images by class: a folder for each class, with its "
            "images in it, is required; list_images(path) lists images without labels, for predict"
        )
    _reject_parts(root, classes)
    files = {folder.name: _files_of_class(folder, root) for folder in classes}
    images, others = _images_and_others(files)
    if empty := [name for name, found in images.items() if not found]:
        held = "; ".join(f"{name!r} holds {_counts(others[name])}" for name in empty)
        raise ValueError(
            f"path={str(path)!r}: a class has no image that Pillow reads ({held}); convert its "
            "files, install the Pillow plugin of their format, or move the folder away"
        )
    files_of_root = Counter(_suffix_of(entry) for entry in entries if not entry.is_dir())
    others |= {f"{root.name} itself, next to the classes": files_of_root}
    _warn_of_others(f"load_image_folder({str(root)!r})", others)
    paths = [str(file) for found in images.values() for file in found]
    labels = [name for name, found in images.items() for _ in found]
    return np.array(paths), np.array(labels)


def list_images(path: str | os.PathLike[str]) -> np.ndarray:
    """List all images of a folder and of the folders in it, without labels.

    The same files are images as for :func:`load_image_folder`, which finds labels too. Linked
    folders are searched, each once, but for those that hold this one.

    Parameters
    ----------
    path : path
        The folder, flat or nested.

    Returns
    -------
    ndarray of shape (n_images,), str
        Paths of the images, sorted.

    Raises
    ------
    FileNotFoundError
        If this folder does not exist.
    ValueError
        If it holds no image.
    OSError
        If a folder can't be listed.

    Warns
    -----
    UserWarning
        If other files were left out: how many, of which suffix.

    See Also
    --------
    CLCEClassifier.predict_frame : Predict all of them, into a data frame.
    load_image_folder : Paths and labels from a folder for each class.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sklearn_clce import list_images
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "march").mkdir()
    >>> for name in ["2.png", "march/1.png"]:
    ...     Image.new("RGB", (8, 8)).save(folder / name)
    >>> [Path(path).name for path in list_images(folder)]
    ['2.png', '1.png']
    """
    root = _existing_folder(path)
    images, others = _images_and_others({root.name: _files_below(root, root)})
    if not images[root.name]:
        raise ValueError(
            f"path={str(path)!r} holds no image that Pillow reads ({_counts(others[root.name])}); "
            "convert its files, or install the Pillow plugin of their format"
        )
    _warn_of_others(f"list_images({str(root)!r})", others)
    return np.array([str(file) for file in images[root.name]])


def _existing_folder(path: str | os.PathLike[str]) -> Path:
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: this folder does not exist")
    return root


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _images_and_others(
    files: dict[str, list[Path]],
) -> tuple[dict[str, list[Path]], dict[str, Counter]]:
    """Separate the images of each class from its other files, which are counted."""
    suffixes = _readable_suffixes()
    images: dict[str, list[Path]] = {name: [] for name in files}
    others: dict[str, Counter] = {name: Counter() for name in files}
    for name, found in files.items():
        for file in found:
            if file.suffix.lower() not in suffixes:
                others[name][_suffix_of(file)] += 1
            elif file.exists() and not file.is_file():
                others[name]["pipe or device"] += 1
            else:
                images[name].append(file)
    return images, others


def _suffix_of(file: Path) -> str:
    return file.suffix.lower() or "without a suffix"


def _readable_suffixes() -> set[str]:
    """List the suffixes of formats that Pillow, with its plugins, decodes."""
    from PIL import Image, ImageFile

    suffixes = set()
    for suffix, name in Image.registered_extensions().items():
        reader = Image.OPEN.get(name, (None,))[0]
        is_stub = isinstance(reader, type) and issubclass(reader, ImageFile.StubImageFile)
        if reader is not None and not is_stub and name not in NOT_DECODED:
            suffixes.add(suffix)
    return suffixes


def _files_of_class(folder: Path, root: Path) -> list[Path]:
    """List visible files of a class; none where it is a link to another class, or to all."""
    own, root = folder.resolve(), root.resolve()
    is_inside = own.is_relative_to(root)
    if root.is_relative_to(own) or (is_inside and own != root / folder.name):
        return []
    return _files_below(folder, root)


def _files_below(folder: Path, root: Path) -> list[Path]:
    """List visible files of a folder, entering each real folder once."""
    files: list[Path] = []
    entered: set[Path] = set()
    own, root = folder.resolve(), root.resolve()
    for parent, names, found in os.walk(folder, followlinks=True, onerror=_raise):
        real = Path(parent).resolve()
        if real in entered or (real != own and _is_outside(real, own, root)):
            names.clear()
            continue
        entered.add(real)
        names[:] = sorted(name for name in names if not _is_left_out(name))
        files += [Path(parent, name) for name in found if not _is_left_out(name)]
    return sorted(files)


def _is_outside(real: Path, own: Path, root: Path) -> bool:
    """Check for a folder that holds the own one or all classes, or belongs to another class."""
    holds = own.is_relative_to(real) or root.is_relative_to(real)
    return holds or (real.is_relative_to(root) and not real.is_relative_to(own))


def _raise(error: OSError) -> None:
    """Raise an error that os.walk would skip, and the folder with it."""
    raise error


def _reject_parts(root: Path, folders: list[Path]) -> None:
    """Raise a ValueError where the folders are parts of a data set, not its classes."""
    parts = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    holds_classes = [
        part
        for part in parts
        if any(entry.is_dir() and not _is_left_out(entry.name) for entry in part.iterdir())
    ]
    if not holds_classes or (len(parts) < 2 and len(folders) > 1):
        return
    lines = "\n".join(
        f"    X_{part.name.lower()}, y_{part.name.lower()} = load_image_folder({str(part)!r})"
        for part in holds_classes
    )
    raise ValueError(
        f"path={str(root)!r} holds the parts {', '.join(part.name for part in parts)} of a data "
        f"set and not its classes; load each part:\n{lines}"
    )


def _warn_of_others(call: str, others: dict[str, Counter]) -> None:
    total = sum((counter for counter in others.values()), Counter())
    if not total:
        return
    by_class = "; ".join(f"{name}: {_counts(found)}" for name, found in others.items() if found)
    n = total.total()
    are_no_images = "that is not an image" if n == 1 else "that are not images"
    warn(f"{call} left out {count(n, 'file')} {are_no_images}: {by_class}")


def _counts(suffixes: Counter) -> str:
    return ", ".join(f"{n} {suffix}" for suffix, n in suffixes.most_common()) or "nothing"


def find_unreadable(
    X: Any,
    *,
    image_shape: Sequence[int] | None = None,
    max_pixel_value: float | None = None,
    n_channels: int | None = None,
    verbose: int = 1,
) -> dict[int, str]:
    """Find all images that can't be read, in parallel.

    Every image is decoded, as ``fit`` and ``predict`` do. Pass the parameters that a
    classifier has for its images.

    Parameters
    ----------
    X : array-like of images
        Paths, or images of any kind that :class:`CLCEClassifier` takes.
    image_shape : tuple of int, default=None
        Shape of one image where X has two axes; as in :class:`CLCEClassifier`.
    max_pixel_value : float, default=None
        Value of white in images of integers; as in :class:`CLCEClassifier`.
    n_channels : int, default=None
        Channels of each image, all of which are kept; as in :class:`CLCEClassifier`.
    verbose : int, default=1
        0 prints nothing, 1 shows a line that moves.

    Returns
    -------
    dict of int to str
        Indices of the images that can't be read, in order, and what is wrong with each.

    Raises
    ------
    TypeError
        If X does not hold images.
    ValueError
        If X is empty.

    See Also
    --------
    load_image_folder : Paths and labels from a folder for each class.

    Examples
    --------
    Leave them out of a fit:

    >>> import numpy as np
    >>> from sklearn_clce import find_unreadable
    >>> X, y = np.array(["no_such.png", "missing.jpg"]), np.array(["cat", "dog"])
    >>> bad = find_unreadable(X, verbose=0)
    >>> bad[0]
    "X[0]: there is no file 'no_such.png'"
    >>> X, y = np.delete(X, list(bad)), np.delete(y, list(bad))
    """
    images = as_images(
        X,
        image_shape=image_shape,
        max_pixel_value=max_pixel_value,
        n_channels=n_channels,
        checked=False,
    )
    return read_errors(images, range(len(images)), verbose=verbose)


def read_errors(images: Images, indices: Sequence[int], *, verbose: int = 0) -> dict[int, str]:
    """Say, by index, what is wrong with each of some images that can't be read."""

    def complaint(index: int) -> str | None:
        try:
            images.decode(index)
        except (ValueError, TypeError, OSError) as error:
            return str(error)
        return None

    n_threads = joblib.cpu_count() if images.is_thread_safe else 1
    with ThreadPoolExecutor(n_threads) as pool:
        complaints = pool.map(complaint, indices)
        shown = bool(verbose)
        progress = bar(complaints, total=len(indices), unit="image", what="reading", shown=shown)
        found = zip(indices, progress, strict=True)
        return {index: message for index, message in found if message is not None}
