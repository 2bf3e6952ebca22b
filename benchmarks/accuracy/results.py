"""The file of results: one JSON line for each run, never rewritten."""

import json
import os
from pathlib import Path

from .configuration import from_record


def read_lines(path):
    """Read the lines of a file of results.

    Parameters
    ----------
    path : path
        The file; it need not exist.

    Returns
    -------
    list of dict
        In the order of the file. A last line that a crash has cut is passed over.
    """
    path = Path(path)
    if not path.exists():
        return []
    texts = path.read_text(encoding="utf-8").splitlines()
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            if number < len(texts):
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    return lines


def finished(lines):
    """Find the runs that need not be done again.

    Parameters
    ----------
    lines : list of dict
        Lines of the file.

    Returns
    -------
    dict of str to dict
        The last line without an error of each configuration, by its key.
    """
    return {from_record(line["configuration"]).key: line for line in lines if "error" not in line}


def failed(lines):
    """Find the runs that have only failed.

    Parameters
    ----------
    lines : list of dict
        Lines of the file.

    Returns
    -------
    dict of str to dict
        The last line of each such configuration, by its key.
    """
    by_key = {from_record(line["configuration"]).key: line for line in lines if "error" in line}
    done = finished(lines)
    return {key: line for key, line in by_key.items() if key not in done}


def append(path, line):
    """Add a line in one write, and see that it reaches the disk.

    Parameters
    ----------
    path : path
        The file; made if it is missing.
    line : dict
        What to add.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
        cut = size > 0 and file.read(1) != b"\n"
        if cut:
            _drop_cut_line(file, size)
        file.write(json.dumps(line, sort_keys=True).encode() + b"\n")
        os.fsync(file.fileno())


def _drop_cut_line(file, size):
    """Remove what a crash left after the last whole line."""
    file.seek(0)
    file.truncate(file.read(size).rfind(b"\n") + 1)
