"""Project files are consistent: workflows, hooks, templates, declared dependencies."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TESTS = sorted((ROOT / "tests").rglob("*.py"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir() if path.stem != "config"]


def parsed(name):
    return yaml.safe_load((ROOT / name).read_text())


def distribution_of(requirement):
    return re.match(r"[\w-]+", requirement)[0]


def tools_of_tests():
    project = PROJECT["project"]
    requirements = project["dependencies"] + project["optional-dependencies"]["test"]
    return {distribution_of(requirement) for requirement in requirements}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_tests_import_only_helpers_and_declared_packages():
    helpers = {path.stem for path in TESTS if path.parent.name == "helpers"}
    extensions = {path.stem for path in (ROOT / "docs" / "_ext").glob("*.py")}
    own = helpers | extensions | {"sklearn_clce", "benchmarks"}
    imported = {name for path in TESTS for name in imported_modules(path)}
    installed = packages_distributions()
    needed = {
        distribution.lower().replace("_", "-")
        for module in imported - own - sys.stdlib_module_names
        for distribution in installed.get(module, [module])
    }
    assert needed <= tools_of_tests()


def test_requirements_have_a_lower_bound():
    extras = PROJECT["project"]["optional-dependencies"].values()
    requirements = PROJECT["project"]["dependencies"] + [name for extra in extras for name in extra]
    assert [name for name in requirements if ">=" not in name] == []


def test_declared_python_versions_are_tested_on_three_systems():
    (matrix,) = [
        job["strategy"]["matrix"]
        for path in WORKFLOWS
        for job in parsed(path)["jobs"].values()
        if "strategy" in job
    ]
    prefix = "Programming Language :: Python :: 3."
    named = [name for name in PROJECT["project"]["classifiers"] if name.startswith(prefix)]
    assert matrix["python"] == [name.split(" :: ")[-1] for name in named]
    assert PROJECT["project"]["requires-python"] == f">={matrix['python'][0]}"
    assert len(matrix["os"]) == 3


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_steps_name_existing_extras_and_files(path):
    steps = [step for job in parsed(path)["jobs"].values() for step in job["steps"]]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    commands = "\n".join(step.get("run", "") for step in steps)
    extras = {
        name for found in re.findall(r"\.\[([\w,]+)\]", commands) for name in found.split(",")
    }
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()
    files = re.findall(r"\btests/[\w/]+\.py", commands)
    assert all((ROOT / name).exists() for name in files)


def test_hooks_use_test_tools():
    (repository,) = parsed(".pre-commit-config.yaml")["repos"]
    tools = tools_of_tests() | {"lint-imports"}  # the program of import-linter
    for hook in repository["hooks"]:
        assert hook["entry"].split()[0] in tools
        assert hook["language"] == "system"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_form_asks_questions(path):
    form = parsed(path)
    assert form.keys() >= {"name", "description", "body"}
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in questions}) == len(questions) > 0
    assert all(part["attributes"]["label"] for part in questions)


def test_citation_matches_version():
    citation, project = parsed("CITATION.cff"), PROJECT["project"]
    version = (ROOT / PROJECT["tool"]["hatch"]["version"]["path"]).read_text()
    assert f'__version__ = "{citation["version"]}"' in version
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])
    assert citation.keys() >= {"cff-version", "message", "authors", "references"}


def test_sdist_includes_existing_files():
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [name for name in included if not (ROOT / name).exists()] == []
