"""README and backbones page match the package and continuous integration."""

import re
from pathlib import Path

from sklearn_clce import backbone_aliases

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_backbone_table_matches_registry():
    page = (ROOT / "docs" / "backbones.rst").read_text()
    rows = re.findall(r"^``(\w+)`` +``([\w.]+)``$", page, re.M)
    assert dict(rows) == backbone_aliases()


def test_ci_runs_commands_of_readme():
    (block,) = re.findall(r"```console\n(.*?)\n```", README, re.S)
    commands = block.splitlines()
    assert len(commands) == 2
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    for command in commands:
        assert command in script


def test_readme_is_short():
    assert len(README.splitlines()) <= 80
    code = re.search(r"```python\n(.*?)```", README, re.S)[1]
    assert len([line for line in code.splitlines() if line]) <= 10
