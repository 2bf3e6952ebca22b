"""The README and the page of backbones match the package and continuous integration."""

import re
from pathlib import Path

from sklearn_clce import backbone_aliases

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_backbone_table_matches_registry():
    page = (ROOT / "docs" / "backbones.rst").read_text()
    rows = re.findall(r"^``(\w+)`` +``([\w.]+)``$", page, re.M)
    assert dict(rows) == backbone_aliases()


def test_readme_names_the_backbones():
    line = README[README.index("- [Backbones]") :].partition("\n- ")[0]
    assert set(re.findall(r"`(\w+)`", line)) == set(backbone_aliases())


def test_ci_runs_commands_of_readme():
    commands = re.findall(r"```console\n(.*?)\n```", README)
    assert len(commands) == 3
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    for command in commands:
        assert command in script
