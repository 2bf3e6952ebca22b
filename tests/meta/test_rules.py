"""House rules: lint, format, import directions, docstrings, import costs."""

import inspect
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from numpydoc.validate import validate

import sklearn_clce

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
# Extended summary, See Also, Examples (ES01, SA01, EX01) and two on layout are not required
# of every object; private sections such as References are numpydoc's own.
NOT_ASKED = {"ES01", "SA01", "EX01", "GL01", "YD01"}


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["lint-imports"],
        ["deptry", "."],
        ["codespell"],
        ["mypy"],
        ["mypy", "--strict", "--follow-imports=silent", "tests/helpers/typed_user.py"],
        ["basedpyright"],
    ],
    ids=" ".join,
)
def test_house_rule(command):
    program = SCRIPTS / command[0]
    result = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def public_names():
    for name in sklearn_clce.__all__:
        yield name
        member = getattr(sklearn_clce, name)
        if inspect.isclass(member):
            own = [key for base in member.__mro__ for key in vars(base) if in_package(base)]
            public = {key for key in own if not key.startswith("_")}
            # set_fit_request and the like are scikit-learn's, docstrings included
            yield from sorted(f"{name}.{key}" for key in public if not key.endswith("_request"))


def in_package(cls):
    return cls.__module__.startswith("sklearn_clce")


@pytest.mark.parametrize("name", list(public_names()))
def test_docstring(name):
    errors = [
        f"{code}: {text}"
        for code, text in validate(f"sklearn_clce.{name}")["errors"]
        if code not in NOT_ASKED and not is_about_headings(text)
    ]
    assert errors == []


def is_about_headings(text):
    """Return whether an error names nothing but headings within the parameters."""
    named = re.findall(r"""['"](.+?)['"]""", text)
    return bool(named) and all(re.match("[A-Z][a-z]", name) for name in named)


@pytest.mark.parametrize("name", sklearn_clce.__all__)
def test_public_object_has_an_example(name):
    assert ">>>" in getattr(sklearn_clce, name).__doc__


def test_import_does_not_load_heavy_packages():
    code = (
        "import sys, sklearn_clce;"
        "heavy = 'timm', 'torchvision', 'matplotlib', 'PIL.Image', 'onnx', 'onnxscript';"
        "print([m for m in heavy if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


@pytest.mark.parametrize("name", ["CLCEClassifier", "BackboneFeatures"])
def test_parameters_are_documented_in_order(name):
    estimator = getattr(sklearn_clce, name)
    documented = re.findall(r"^    (\w+) : ", estimator.__doc__.split("Attributes\n")[0], re.M)
    assert documented == list(inspect.signature(estimator).parameters)


def test_version_is_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"[{sklearn_clce.__version__}]" in changelog
    assert "[Unreleased]" in changelog
