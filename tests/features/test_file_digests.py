"""Digests of image files: each file is read once while nothing about it changes."""

import os
import time

import pytest

from sklearn_clce._system import digest_file
from sklearn_clce.features import _computing
from sklearn_clce.features._computing import digest_of_file


@pytest.fixture
def digested(monkeypatch):
    """Paths whose content was read."""
    paths = []
    monkeypatch.setattr(
        _computing, "digest_file", lambda path: paths.append(path) or digest_file(path)
    )
    return paths


def write(path, content, *, age=60):
    path.write_bytes(content)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_file_is_read_once_while_size_and_time_stay(tmp_path, digested):
    path = write(tmp_path / "image", b"content")
    first = digest_of_file(path)
    assert [digest_of_file(same) for same in (str(path), path)] == [first] * 2
    assert digested == [str(path)]


def test_equal_files_have_one_digest(tmp_path):
    one, other, third = (
        write(tmp_path / name, content) for name, content in [("a", b"1"), ("b", b"1"), ("c", b"2")]
    )
    digests = list(map(digest_of_file, (one, other, third)))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("content", "age"), [(b"longer content", 60), (b"CONTENT", 30)])
def test_changed_size_or_time_is_read_again(tmp_path, content, age):
    path = write(tmp_path / "image", b"content", age=60)
    before = digest_of_file(path)
    write(path, content, age=age)
    assert digest_of_file(path) != before


def test_young_file_is_read_each_time(tmp_path):
    path = write(tmp_path / "image", b"content", age=0)
    stat = path.stat()
    before = digest_of_file(path)
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest_of_file(path) != before


def test_file_with_its_time_set_back_is_read_again(tmp_path):
    path = write(tmp_path / "image", b"content")
    stat = path.stat()
    before = digest_of_file(path)
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest_of_file(path) != before


def test_exchanged_files_of_one_archive_are_read_again(tmp_path):
    one, other = (write(tmp_path / name, name.encode()) for name in "ab")
    os.utime(other, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))  # as unpacked
    before = list(map(digest_of_file, (one, other)))
    for old, new in [(one, tmp_path / "c"), (other, one), (tmp_path / "c", other)]:
        os.rename(old, new)
    assert list(map(digest_of_file, (one, other))) == before[::-1]


def test_file_name_that_is_not_text_is_digested(tmp_path):
    path = write(tmp_path / os.fsdecode(b"\xff.png"), b"content")
    assert digest_of_file(path) == digest_of_file(path)


def test_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        digest_of_file(tmp_path / "none")
