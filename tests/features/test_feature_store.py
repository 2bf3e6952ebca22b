"""FeatureStore: no wrong feature from a damaged file, bounded, shared by processes."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import joblib
import numpy as np
import pytest

from sklearn_clce.features import FeatureStore, _store, open_store, process_store

MEBIBYTE = 1024**2
by_fork = pytest.mark.skipif(sys.platform != "linux", reason="processes are forks")


def vector(number, width=8):
    """Features that identify the key that they belong to."""
    return np.full(width, number, dtype=np.float32) + np.arange(width, dtype=np.float32) / 64


def key(number):
    return b"key %d" % number


def vectors(numbers, width=8):
    return {key(number): vector(number, width) for number in numbers}


def assert_holds(store, numbers, width=8):
    kept = store.get([key(number) for number in numbers])
    assert set(kept) == {key(number) for number in numbers}
    for number in numbers:
        np.testing.assert_array_equal(kept[key(number)], vector(number, width))


def run_sql(store, statement, *values):
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute(statement, values)
        connection.commit()


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def limited(monkeypatch):
    """Let connections run a statement first, such as one that makes the disk small."""

    def limit(statement):
        connect = FeatureStore._connect

        def connect_limited(store):
            connection = connect(store)
            connection.execute(statement)
            return connection

        monkeypatch.setattr(FeatureStore, "_connect", connect_limited)

    return limit


def test_empty_store_has_nothing_and_leaves_no_file(store):
    assert store.get([b"one"]) == {}
    assert store.get([]) == {}
    assert not store.path.exists()


def test_any_subset_in_any_order_is_found_bit_for_bit(store):
    features = {key(n): np.random.default_rng(n).normal(size=5).astype("f4") for n in range(1200)}
    store.put(features)
    wanted = [key(n) for n in np.random.default_rng(0).permutation(2000)[:1500]]
    kept = store.get(wanted)
    assert set(kept) == set(wanted) & set(features)
    assert all(kept[name].tobytes() == features[name].tobytes() for name in kept)


def test_special_values_survive(store):
    values = np.array([np.nan, np.inf, -0.0, 1e-45, 3.4e38], dtype=np.float32)
    store.put({b"special": values})
    assert store.get([b"special"])[b"special"].tobytes() == values.tobytes()


def test_later_put_replaces(store):
    store.put({key(1): vector(2)})
    store.put(vectors([1]))
    assert_holds(store, [1])


def test_another_process_finds_what_was_put(store):
    store.put(vectors(range(3)))
    code = (
        "import sys; from sklearn_clce.features import FeatureStore;"
        f"print(FeatureStore({store.folder!r}).get([b'key 2'])[b'key 2'].tolist())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == str(vector(2).tolist()), result.stderr


def put_in_steps(folder, numbers):
    for start in range(0, len(numbers), 10):
        FeatureStore(folder).put(vectors(numbers[start : start + 10]))
        assert_holds(FeatureStore(folder), numbers[: start + 10])


@by_fork
def test_many_processes_write_into_one_folder(store):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=put_in_steps, args=(store.folder, range(30 * i, 30 * i + 60)))
        for i in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 6
    assert_holds(store, range(210))


def put_forever(folder, ready):
    """Stop within a transaction whose pages no longer fit SQLite's memory."""

    class Endless(dict):
        def items(self):
            yield from vectors(range(5, 5000), width=1024).items()
            ready.set()
            time.sleep(600)

    FeatureStore(folder).put(Endless())


@by_fork
def test_process_killed_while_writing_leaves_what_was_there(store):
    store.put(vectors(range(10), width=1024))
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=put_forever, args=(store.folder, ready))
    process.start()
    assert ready.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    journal = store.path.with_name(store.path.name + "-journal")
    assert journal.exists()
    assert store.path.stat().st_size > 5 * MEBIBYTE  # half of the transaction is in the file
    assert_holds(store, range(10), width=1024)
    assert store.get([key(n) for n in range(10, 5000)]) == {}
    store.put(vectors(range(10, 20), width=1024))
    assert_holds(store, range(20), width=1024)


def foreign_bytes(path):
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


def foreign_database(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE features (mine TEXT)")


def newer_database(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def truncated(path):
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def truncated_within_a_page(path):
    os.truncate(path, 5000)


def overwritten_in_the_middle(path):
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(np.random.default_rng(0).bytes(path.stat().st_size - 8192))


DAMAGE = [
    foreign_bytes,
    foreign_database,
    newer_database,
    truncated,
    truncated_within_a_page,
    overwritten_in_the_middle,
]


def get_put_get(store, numbers):
    kept = store.get([key(number) for number in numbers])
    store.put(vectors(numbers, width=64))
    store.get([key(numbers[0])])
    return kept


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_gives_a_warning_and_no_wrong_feature(store, damage):
    store.put(vectors(range(500), width=64))
    damage(store.path)
    content = store.path.read_bytes()
    with pytest.warns(UserWarning, match=r"memory=.*computed without it.*clear\(\)") as warned:
        kept = get_put_get(store, range(500))
    assert len(warned) == 1
    for name, features in kept.items():
        np.testing.assert_array_equal(features, vector(int(name[4:]), width=64))
    assert store.path.read_bytes() == content


@pytest.mark.parametrize("damage", DAMAGE)
def test_clear_starts_a_damaged_store_again(store, damage):
    store.put(vectors(range(500), width=64))
    damage(store.path)
    store.clear()
    store.put(vectors(range(20)))
    assert_holds(store, range(20))


def test_file_cut_to_nothing_is_an_empty_store(store):
    store.put(vectors(range(5)))
    os.truncate(store.path, 0)
    assert store.get([key(1)]) == {}
    store.put(vectors(range(5)))
    assert_holds(store, range(5))


@pytest.mark.parametrize(
    ("column", "value"),
    [("vector", vector(7).tobytes()), ("vector", "text"), ("vector", None), ("checksum", b"")],
)
def test_damaged_row_is_not_returned(store, column, value):
    store.put(vectors(range(3)))
    run_sql(store, f"UPDATE features SET {column} = ? WHERE key = ?", value, key(1))
    with pytest.warns(UserWarning, match="1 kept features are damaged; they are computed again"):
        assert set(store.get([key(n) for n in range(3)])) == {key(0), key(2)}
    store.put(vectors([1]))
    assert_holds(store, range(3))


def test_row_of_another_key_is_not_returned(store):
    store.put(vectors([1]))
    run_sql(store, "UPDATE features SET key = ?", key(2))
    with pytest.warns(UserWarning, match="damaged"):
        assert store.get([key(2)]) == {}


def test_full_disk_gives_one_warning_and_keeps_what_was_there(store, limited):
    store.put(vectors(range(10)))
    limited("PRAGMA max_page_count = 12")
    with pytest.warns(UserWarning, match="database or disk is full") as warned:
        get_put_get(store, range(10, 2000))
    assert len(warned) == 1
    again = FeatureStore(store.folder)
    assert_holds(again, range(10))
    assert again.get([key(n) for n in range(10, 2000)]) == {}


def test_read_only_folder_still_gives_features(store, monkeypatch):
    store.put(vectors(range(10)))
    read_only = f"file:{store.path}?mode=ro"
    monkeypatch.setattr(
        store, "_connect", lambda: sqlite3.connect(read_only, uri=True, isolation_level=None)
    )
    assert_holds(store, range(10))
    with pytest.warns(UserWarning, match="readonly database"):
        store.put(vectors([11]))


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0,
    reason="root may write everywhere",
)
def test_folder_without_permission_gives_a_warning(store, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.warns(UserWarning, match="Permission denied"):
        store.put(vectors([1]))


def test_folder_that_is_a_file_gives_a_warning(tmp_path):
    (tmp_path / "file").write_text("mine")
    store = FeatureStore(tmp_path / "file" / "store")
    with pytest.warns(UserWarning, match="Not a directory"):
        store.put(vectors([1]))
    assert store.get([key(1)]) == {}
    assert (tmp_path / "file").read_text() == "mine"


def test_locked_store_gives_a_warning(tmp_path):
    store = FeatureStore(tmp_path, timeout=0.05)
    store.put(vectors([1]))
    with closing(sqlite3.connect(store.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.warns(UserWarning, match="database is locked"):
            assert store.get([key(1)]) == {}


def test_size_limit_drops_what_was_not_used_for_longest(tmp_path):
    store = FeatureStore(tmp_path, size_limit=MEBIBYTE)
    store.put(vectors([0], width=1024))
    for number in range(0, 1000, 20):  # 4 KiB a row: 4 MiB
        run_sql(store, "UPDATE features SET used = used - 7200")  # two hours pass
        store.put(vectors(range(number, number + 20), width=1024))
        assert_holds(store, range(20), width=1024)
    assert_holds(store, range(980, 1000), width=1024)
    assert store.get([key(n) for n in range(20, 500)]) == {}
    assert store.path.stat().st_size < 1.3 * MEBIBYTE


def test_one_put_above_the_limit_keeps_nothing_beyond_it(tmp_path):
    store = FeatureStore(tmp_path, size_limit=MEBIBYTE // 4)
    store.put(vectors(range(200), width=1024))
    assert 0 < len(store.get([key(n) for n in range(200)])) < 64


def test_limit_below_an_empty_database_keeps_nothing(tmp_path):
    store = FeatureStore(tmp_path, size_limit=1)
    store.put(vectors(range(3)))
    assert store.get([key(1)]) == {}


def test_use_is_noted_once_an_hour(store):
    store.put(vectors([1, 2]))
    run_sql(store, "UPDATE features SET used = used - 7200 WHERE key = ?", key(1))
    content = store.path.read_bytes()
    store.get([key(2)])
    assert store.path.read_bytes() == content
    store.get([key(1)])
    assert store.path.read_bytes() != content


def test_clear_empties_store_and_gives_the_disk_back(store):
    store.put(vectors(range(500), width=1024))
    store.clear()
    assert store.get([key(1)]) == {}
    assert store.path.stat().st_size < 100_000


def test_clear_of_nothing_does_nothing(store):
    store.clear()
    assert not store.path.exists()


def test_store_of_an_older_version_is_empty_and_filled_again(store):
    store.put(vectors(range(3)))
    run_sql(store, "ALTER TABLE features RENAME COLUMN used TO other")
    run_sql(store, "CREATE TABLE files (path BLOB PRIMARY KEY, state TEXT, digest BLOB)")
    run_sql(store, "PRAGMA user_version = 2")
    assert store.get([key(1)]) == {}
    store.clear()
    run_sql(store, "PRAGMA user_version = 2")
    store.put(vectors(range(2)))
    assert_holds(store, range(2))


def test_read_only_store_gives_features_without_a_warning(store, monkeypatch):
    store.put(vectors(range(3)))
    hours_ago = time.time() - 2 * _store.USED_EVERY_SECONDS
    run_sql(store, "UPDATE features SET used = ?", hours_ago)
    monkeypatch.setattr(
        store,
        "_connect",
        lambda: sqlite3.connect(f"file:{store.path}?mode=ro", uri=True, isolation_level=None),
    )
    for _ in range(2):
        assert_holds(store, range(3))
    with pytest.warns(UserWarning, match="readonly database"):
        store.put(vectors([4]))


def test_memory_is_a_folder_or_knows_one(tmp_path):
    limited = FeatureStore(tmp_path, size_limit=MEBIBYTE, timeout=7.0)
    assert open_store(None) is process_store
    assert open_store(joblib.Memory(None)) is None
    for memory in (tmp_path, str(tmp_path), joblib.Memory(tmp_path, verbose=0), limited):
        assert open_store(memory).folder == str(tmp_path)
    assert (open_store(limited).size_limit, open_store(limited).timeout) == (MEBIBYTE, 7.0)
    with pytest.raises(ValueError, match="memory"):
        open_store(3)


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    monkeypatch.chdir(tmp_path)
    for memory in ("~/features", Path("~/features"), joblib.Memory("~/features", verbose=0)):
        assert open_store(memory).folder == str(tmp_path / "features")
    store = FeatureStore("~/features")
    store.put(vectors([1]))
    assert (tmp_path / "features" / store.path.name).exists()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("size_limit", [0, -1])
def test_size_limit_must_be_above_zero(tmp_path, size_limit):
    with pytest.raises(ValueError, match=f"size_limit={size_limit}: bytes, so a number > 0"):
        FeatureStore(tmp_path, size_limit=size_limit)
