"""The README says what is so."""

import re
from pathlib import Path

from sklearn_clce import backbone_aliases

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_table_of_backbones_is_the_registry():
    rows = re.findall(r"^\| `(\w+)`(?: \(bundled\))? \| `([\w.]+)` \|$", README, re.M)
    assert dict(rows) == backbone_aliases()


def test_continuous_integration_runs_the_readmes_commands():
    commands = re.findall(r"```console\n(.*?)\n```", README)
    assert len(commands) == 3
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    for command in commands:
        assert command in script
