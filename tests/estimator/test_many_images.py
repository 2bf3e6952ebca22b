"""Blocks of paths on Dask, streams, and processes from a notebook: the lines of the pages work."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_files import tiny
from sklearn_clce import CLCEClassifier

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS, LINES, LOOP, RESUME = range(1, 5)  # code on the page of many images


def code_of(page, number):
    """Return a block of code of a page, by its number from 1."""
    lines = (DOCS / page).read_text("utf-8").split(".. code-block:: python\n")[number].splitlines()
    end = next((n for n, line in enumerate(lines) if line and not line.startswith(" ")), None)
    return textwrap.dedent("\n".join(lines[:end]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask, about the worker that is killed
def test_blocks_lose_nothing_when_a_worker_is_killed(tmp_path):
    pytest.importorskip("distributed")
    pytest.importorskip("pyarrow")
    from benchmarks import dask_blocks

    dask_blocks.make_files(tmp_path / "images", 600)
    dask_blocks.save_model(tmp_path / "model.safetensors")
    paths = sorted(map(str, (tmp_path / "images").iterdir()))
    tables = tmp_path / "tables"
    model = tmp_path / "model.safetensors"
    dask_blocks.predict(paths, model, tables, 2, kills=True, block=20)
    dask_blocks.check(paths, tables)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lines_of_the_page_predict_blocks_and_leave_out_tables_that_exist(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    from benchmarks import dask_blocks

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("blocks.py").write_text(code_of("many_images.rst", BLOCKS))
    Path("tables").mkdir()
    dask_blocks.make_files(Path("images"), 30)
    dask_blocks.save_model("model.safetensors")
    lines = code_of("many_images.rst", LINES).replace("+ 1000", "+ 10").replace(", 1000)", ", 10)")
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with cluster:
        lines = lines.replace("scheduler-address:8786", cluster.scheduler_address)
        first: dict = {}
        exec(lines, first)
        assert len(first["left"]) == 3
        Path(first["left"][1]).unlink()
        again: dict = {}
        exec(lines, again)
        assert again["left"] == [first["left"][1]]
        for names in (first, again):
            names["client"].close()
    found = pd.read_parquet("tables")
    assert sorted(found["path"]) == sorted(first["paths"])
    assert found["error"].notna().sum() == dask_blocks.N_BROKEN


@pytest.fixture(scope="module")
def stream(colour_images, colour_labels):
    return [
        (colour_images[start : start + 4], colour_labels[start : start + 4]) for start in (0, 4, 8)
    ]


def test_stream_trains_and_predicts_in_batches(stream, colour_images):
    names = {"clf": tiny(batch_size=4), "batches": stream, "classes": ["left", "none"]}
    training, predicting = code_of("many_images.rst", LOOP).split("\n\n")
    exec(training.replace('["cat", "dog"]', "classes"), names)
    expected = tiny(batch_size=4)
    for images, labels in stream:
        expected.partial_fit(images, labels, classes=["left", "none"])
    probabilities = expected.predict_proba(colour_images)
    np.testing.assert_array_equal(names["clf"].predict_proba(colour_images), probabilities)
    names["batches"] = (images for images, _ in stream)
    exec(predicting, names)
    np.testing.assert_allclose(names["probabilities"], probabilities[8:], rtol=1e-5)


def test_killed_stream_continues_from_its_count(stream, colour_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tables").mkdir()
    clf = tiny(max_epochs=1).fit(colour_images, ["left", "none"] * 6)

    def broken():
        yield stream[0][0]
        raise ConnectionError

    names = {"clf": clf, "np": np, "os": os, "Path": Path, "batches": broken()}
    with pytest.raises(ConnectionError):
        exec(code_of("many_images.rst", RESUME), names)
    names["batches"] = (images for images, _ in stream)
    monkeypatch.setattr(clf, "predict_proba", counting := Counting(clf.predict_proba))
    exec(code_of("many_images.rst", RESUME), names)
    assert counting.n_calls == 2
    tables = [np.load(path) for path in sorted(Path("tables").glob("*.npy"))]
    np.testing.assert_allclose(np.concatenate(tables), clf.predict_proba(colour_images), rtol=1e-5)


class Counting:
    def __init__(self, method):
        self.method, self.n_calls = method, 0

    def __call__(self, *args):
        self.n_calls += 1
        return self.method(*args)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="gloo")
def test_processes_from_a_notebook_train_together(tmp_path, colour_images, colour_labels):
    for index, image in enumerate(colour_images):
        Image.fromarray(image).save(tmp_path / f"{index:02}.png")
    paths = sorted(map(str, tmp_path.glob("*.png")))
    code = code_of("large_batches.rst", 3)
    small = {"trainable": "head", "pretrained": False, "image_size": 32}
    small |= {"random_state": 0, "batch_size": 6}
    written = ", ".join(f"{name}={value!r}" for name, value in small.items())
    code = code.replace('"beit", batch_size=256', f'"test_vit", {written}')
    (tmp_path / "train.py").write_text(code)
    spawn, _ = code_of("large_batches.rst", 4).split("clf = CLCEClassifier.load")
    spawn = spawn.replace("(4, paths, labels), nprocs=4", "(2, paths, labels), nprocs=2")
    call = f"paths, labels = {paths!r}, {colour_labels.tolist()!r}\n{spawn}"
    done = subprocess.run(  # as a notebook: nothing but train.py can be imported
        [sys.executable, "-c", call], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    together = CLCEClassifier.load(tmp_path / "model.safetensors").predict_proba(paths)
    alone = CLCEClassifier("test_vit", **small).fit(paths, colour_labels)
    np.testing.assert_allclose(together, alone.predict_proba(paths), atol=1e-4)
