"""Sphinx extension: the layers of the package as a picture, from import-linter's contract."""

import tomllib
from html import escape
from pathlib import Path

ROW, BOX, GAP, CHARACTER = 40, 28, 8, 7.4  # pixels


def draw(layers):
    """Return the SVG of layers, the highest first; ``|`` parts modules of one layer."""
    rows = [
        [name.strip().removeprefix("sklearn_clce.") for name in layer.split("|")]
        for layer in layers
    ]
    width = max(sum(map(box_width, row)) + GAP * (len(row) - 1) for row in rows)
    parts = []
    for number, row in enumerate(rows):
        left = (width - sum(map(box_width, row)) - GAP * (len(row) - 1)) / 2
        for name in row:
            parts.append(box(name, left, number * ROW))
            left += box_width(name) + GAP
    height = len(rows) * ROW - ROW + BOX
    return (
        f'<svg class="house" width="{width + 2:.0f}" viewBox="-1 -1 {width + 2:.0f} {height + 2}" '
        'role="img" '
        f'aria-label="Modules in layers; each imports only from layers below it">'
        f"{''.join(parts)}</svg>"
    )


def box_width(name):
    return len(name) * CHARACTER + 18


def box(name, left, top):
    kind = "private" if name.startswith("_") else "public"
    return (
        f'<g class="{kind}"><rect x="{left:.1f}" y="{top}" width="{box_width(name):.1f}" '
        f'height="{BOX}" rx="5"/><text x="{left + box_width(name) / 2:.1f}" y="{top + 18}">'
        f"{escape(name)}</text></g>"
    )


def write(app):
    source = Path(app.srcdir)
    project = tomllib.loads((source.parent / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["type"] == "layers")
    target = source / "generated" / "house.svg"
    target.parent.mkdir(exist_ok=True)
    target.write_text(draw(contract["layers"]))


def setup(app):
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
