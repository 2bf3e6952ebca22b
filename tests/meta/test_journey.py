"""A newcomer's tasks, from the pages alone: their code runs as printed, in an empty folder."""

import doctest
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WAY = [  # a page and a heading, in the order in which a newcomer reads them
    ("index", "From a folder of images to a prediction"),
    ("images", "Load a folder for each class"),
    ("images", "Read labels from a table"),
    ("images", "Predict a folder without labels"),
    ("training", "Monitor training"),
    ("training", "Stop early, with a validation set"),
    ("training", "Continue training"),
    ("evaluation", "Evaluate a classifier"),
    ("evaluation", "Look at the errors"),
    ("evaluation", "Explain a prediction"),
    ("grid_search", "Search settings with one pass over the images"),
    ("cheat_sheet", "Evaluate"),
    ("novelty", "Reject unknown images"),
    ("new_classes", "Add classes"),
    ("persistence", "Save, load and security"),
]
ELSEWHERE = [("deployment", "Export"), ("deployment", "Run the file")]
DEADLINE = 1800  # seconds, on a busy machine

pytestmark = pytest.mark.slow


def section(page, heading):
    """Return the text below a heading of a page, up to the next heading."""
    text = (DOCS / f"{page}.rst").read_text("utf-8")
    found = re.search(rf"^{re.escape(heading)}\n([=~-])\1+\n", text, re.M)
    assert found, f"{page}: {heading}"
    rest = text[found.end() :]
    following = re.search(r"^.+\n(?:={4,}|-{4,}|~{4,})$", rest, re.M)
    return rest[: following.start()] if following else rest


def code(page, heading):
    """Return the code of a section, with and without prompts, in its order."""
    text = section(page, heading)
    blocks = {
        text[: found.start()].count("\n"): textwrap.dedent(found[1])
        for found in re.finditer(r"\.\. code-block:: python\n\n((?: +.*\n|\n)+)", text)
    }
    prompts = {one.lineno: one.source for one in doctest.DocTestParser().get_examples(text)}
    assert blocks or prompts, f"{page}: {heading} has no code"
    return "\n".join(source for _, source in sorted((blocks | prompts).items()))


def run(command, folder):
    """Run a command in a folder, with the Python of the tests, and return what it printed."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment():
    """Return variables with which "python" is the one of the tests, and no window opens."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "MPLBACKEND": "Agg"}


def run_code(source, folder):
    (folder / "script.py").write_text(source)
    return run([sys.executable, "script.py"], folder)


def make_images(folder, n):
    """Write n images of each of two classes, and new ones."""
    rng = np.random.default_rng(0)
    files = [f"images/{label}/{k}.jpg" for label in ("flower", "temple") for k in range(n)]
    for name in [*files, *(f"new/{k}.jpg" for k in range(3)), "new.jpg", "image.jpg"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120, size=(64, 64, 3), dtype=np.uint8)
        pixels[..., 2 if "temple" in name else 0] += 100
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("empty"), 8)


def test_code_and_commands_of_readme_make_a_table(folder):
    text = (ROOT / "README.md").read_text("utf-8")
    printed = run_code(re.search(r"```python\n(.*?)```", text, re.S)[1], folder)
    assert "accuracy on images it has not seen:" in printed
    (commands,) = re.findall(r"```sh\n(python -m sklearn_clce.*?)```", text, re.S)
    for made in ("table.csv", "model.safetensors"):
        (folder / made).rename(folder / f"first_{made}")
    for command in commands.splitlines():
        run(command.split(), folder)
    tables = [(folder / name).read_text().splitlines() for name in ("table.csv", "first_table.csv")]
    assert [len(table) for table in tables] == [4, 4]
    assert tables[0][0] == tables[1][0]


def test_code_of_guide_runs_in_reading_order(folder):
    pytest.importorskip("onnxscript")
    printed = run_code("\n".join(code(*step) for step in WAY), folder)
    assert "LogisticRegression" in printed  # in the table of compare
    assert (folder / "labels.csv").exists()
    assert (folder / "model.safetensors").exists()
    for step in ELSEWHERE:  # each in a process of its own
        run_code(code(*step), folder)
    assert (folder / "model.onnx").exists()


def test_killed_fit_resumes(tmp_path):
    folder = make_images(tmp_path, 3)
    (folder / "long.py").write_text(code("training", "Interrupt and resume"))
    command = [sys.executable, "long.py"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=pipe, stderr=pipe
    ) as killed:
        end = time.monotonic() + DEADLINE
        while not list(folder.glob("folder/**/checkpoint.pt")) and time.monotonic() < end:
            time.sleep(0.1)
        killed.kill()
    assert "continuing after epoch" in run(command, folder)
