"""The page of the examples classifies an image in Chromium, by onnxruntime-web from npm."""

import functools
import http.server
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import browser
from sklearn_clce import CLCEClassifier

pytest.importorskip("onnxscript")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm"),
]
PAGE = Path(__file__).parents[2] / "examples" / "browser.html"
RUNTIME = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """Files of onnxruntime-web."""
    folder = tmp_path_factory.mktemp("npm")
    packed = subprocess.run(
        ["npm", "pack", "onnxruntime-web"], cwd=folder, capture_output=True, text=True
    )
    if packed.returncode:
        pytest.skip("npm has no onnxruntime-web")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / "package" / "dist"


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path, runtime):
    """A folder with the page, and its address."""
    shutil.copy(PAGE, tmp_path / "index.html")
    for name in RUNTIME:
        shutil.copy(runtime / name, tmp_path)
    handler = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def crops(photos, n, side=200):
    rng = np.random.default_rng(0)
    for name, photo in zip(["temple", "flower"], photos, strict=True):
        for _ in range(n):
            top, left = rng.integers(0, 427 - side), rng.integers(0, 640 - side)
            yield Image.fromarray(photo[top : top + side, left : left + side]), name


def choose(page, path):
    """Choose a file in the page, and return what it says."""
    page.evaluate("document.querySelector('output').value = ''")
    found = page.call("Runtime.evaluate", expression="document.querySelector('input')")["result"]
    page.call("DOM.setFileInputFiles", files=[str(path)], objectId=found["objectId"])
    page.wait_for("document.querySelector('output').value != ''")
    return page.evaluate("document.querySelector('output').value")


def test_page_shows_label_or_none_of_these(served, photos, tmp_path):
    folder, address = served
    images, labels = zip(*crops(photos, 40), strict=True)
    clf = CLCEClassifier(trainable="head", image_size=64, random_state=0)
    clf.fit(images[::2], labels[::2]).calibrate_offset(images[1::2], contamination=0.1)
    clf.export_onnx(folder / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    files = {"temple": images[1], "flower": images[41], "none of these": Image.fromarray(pixels)}
    for name, image in files.items():
        image.save(tmp_path / f"{name}.png")
    with browser.Browser() as page:
        page.open(address)
        page.wait_for("!document.querySelector('input').disabled")
        for name in files:
            path = tmp_path / f"{name}.png"
            frame = clf.predict_frame([path])
            decided = "none of these" if frame["none_of_these"][0] else frame["label"][0]
            assert decided == name
            shown = choose(page, path)
            assert shown.startswith(name)
            if name != "none of these":
                probability = frame[f"probability_{name}"][0]
                assert abs(int(shown.split("(")[1].split()[0]) - 100 * probability) < 5
        assert page.errors == []
