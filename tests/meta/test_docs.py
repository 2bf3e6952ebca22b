"""The code on the documentation pages runs and gives the output shown."""

import ast
import doctest
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from docutils.core import publish_doctree
from docutils.utils.math.latex2mathml import tex2mathml

import prose
import sklearn_clce
from sklearn_clce import CLCEClassifier

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [path.name for path in sorted(DOCS.glob("*.rst")) if ">>> " in path.read_text("utf-8")]


@pytest.fixture
def folder_with_pictures(tmp_path, monkeypatch):
    """Work in a folder with the files that pages name."""
    monkeypatch.syspath_prepend(DOCS / "_ext")
    from page_files import write_files

    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


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


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.rst")))
def test_code_blocks_use_existing_names(page):
    for block in prose.code_blocks((DOCS / page).read_text("utf-8")):
        nodes = list(ast.walk(ast.parse(block)))
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        keywords = {
            keyword.arg
            for call in calls
            if getattr(call.func, "id", "") == "CLCEClassifier"
            for keyword in call.keywords
        }
        assert keywords <= CLCEClassifier().get_params().keys()
        imported = [node for node in nodes if getattr(node, "module", "") == "sklearn_clce"]
        names = {alias.name for node in imported for alias in node.names}
        assert names <= set(sklearn_clce.__all__)
        methods = {
            call.func.attr
            for call in calls
            if getattr(getattr(call.func, "value", None), "id", "") in ("clf", "CLCEClassifier")
        }
        assert all(hasattr(CLCEClassifier, method) for method in methods), methods


def test_sections_of_gallery_hold_every_example_once():
    examples = DOCS.parent / "examples"
    named = re.findall(r"examples/(plot_\w+\.py)", (examples / "README.rst").read_text("utf-8"))
    assert sorted(named) == sorted(path.name for path in examples.glob("plot_*.py"))


def test_formulas_convert_to_mathml():
    formulas = [
        formula.astext()
        for path in DOCS.glob("*.rst")
        for formula in prose.formulas(path.read_text("utf-8"))
    ]
    assert len(formulas) > 10
    assert all(tex2mathml(formula).startswith("<math") for formula in formulas)


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
