"""The code on the documentation pages runs and gives the output shown."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from docutils.core import publish_doctree
from PIL import Image
from sklearn.datasets import load_sample_image

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [path.name for path in sorted(DOCS.glob("*.rst")) if ">>> " in path.read_text("utf-8")]
SIDE = 160


@pytest.fixture
def folder_with_pictures(tmp_path, monkeypatch):
    """Cut twelve images of each class, and a new one, out of scikit-learn's two."""
    rng = np.random.default_rng(0)
    for label, photo in {"flower": "flower.jpg", "temple": "china.jpg"}.items():
        (tmp_path / "pictures" / label).mkdir(parents=True)
        pixels = load_sample_image(photo)  # (427, 640, 3)
        for number in range(12):
            top, left = rng.integers(0, 427 - SIDE), rng.integers(0, 640 - SIDE)
            crop = pixels[top : top + SIDE, left : left + SIDE]
            Image.fromarray(crop).save(tmp_path / "pictures" / label / f"{number:02}.jpg")
    Image.fromarray(load_sample_image("flower.jpg")[80:400, 150:470]).save(tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)


def test_start_page_and_guide_contain_code():
    assert "index.rst" in PAGES
    assert len(PAGES) >= 9


@pytest.mark.parametrize("page", PAGES)
def test_page_code_runs(page, folder_with_pictures):
    result = doctest.testfile(
        str(DOCS / page), module_relative=False, encoding="utf-8", optionflags=doctest.ELLIPSIS
    )
    assert result.attempted > 0
    assert result.failed == 0


def test_changelog_converts_to_rst(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "_ext")
    from changes import as_rst

    written = as_rst(
        "# Changes\n\n## [1.0]\n\n### Added\n\n- `a=1`, see\n  [b c](https://d.e/f).\n"
    )
    assert "1.0\n---" in written
    assert "Added\n~~~~~" in written
    assert "- ``a=1``, see\n  `b c <https://d.e/f>`__." in written
    document = publish_doctree(as_rst((DOCS.parent / "CHANGELOG.md").read_text("utf-8")))
    assert not [node for node in document.findall() if node.tagname == "problematic"]
    assert "`" not in document.astext()
