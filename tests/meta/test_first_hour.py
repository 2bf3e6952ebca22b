"""What a newcomer runs first: the code of the README, as printed, in a terminal."""

import os
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terminal_session import run_in_terminal, screen_of

ROOT = Path(__file__).parents[2]
MAX_SILENCE = 2.0  # seconds

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a terminal is needed")


def run(code, folder):
    """Return how many images passed a backbone, what was left on the screen, and the silence."""
    (folder / "script.py").write_text(code)
    counted = ROOT / "tests" / "helpers" / "counted_session.py"
    status, writes = run_in_terminal([sys.executable, str(counted), "script.py", "count"], folder)
    screen = screen_of("".join(text for _, text in writes))
    assert status == 0, "\n".join(screen)
    moments = [moment for moment, _ in writes]  # the first one ends the imports
    silence = max(later - earlier for earlier, later in pairwise(moments))
    return int((folder / "count").read_text()), screen, silence


@pytest.fixture
def images(tmp_path):
    """A folder with 40 images of two classes, and one with 8 new ones."""
    rng = np.random.default_rng(0)
    folders = {"images/warm": 20, "images/cold": 20, "new": 8}
    for folder, n in folders.items():
        (tmp_path / folder).mkdir(parents=True)
        for number in range(1, n + 1):
            pixels = rng.integers(0, 120, size=(80, 80, 3), dtype=np.uint8)
            pixels[..., 0 if folder == "images/warm" else 2] += 100
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.jpg")
    return tmp_path


@pytest.mark.slow
def test_first_code_of_readme_runs_the_backbone_once_and_is_never_silent(images):
    pytest.importorskip("pandas")
    code = re.search(r"```python\n(from .*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    n_passed, screen, silence = run(code, images)
    assert "verbose=1" in code
    assert n_passed <= 40 + 8
    assert screen[0].startswith("trains a head on features of efficientnet_lite0: 40 samples")
    assert any(
        re.fullmatch(r"accuracy on images it has not seen: [\d.]+%", line) for line in screen
    )
    assert (images / "model.safetensors").exists()
    assert len((images / "table.csv").read_text().splitlines()) == 9
    assert silence <= MAX_SILENCE


@pytest.mark.slow
def test_tutorial_runs_as_printed(tmp_path):
    pytest.importorskip("skimage")
    code = (ROOT / "examples" / "plot_tutorial.py").read_text()
    first = f"import sys\nsys.path.append({str(ROOT / 'examples')!r})\n"
    _, screen, _ = run(f"{first}import matplotlib\nmatplotlib.use('Agg')\n{code}", tmp_path)
    assert "same predictions: True" in screen
