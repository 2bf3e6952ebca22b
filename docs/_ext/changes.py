"""Sphinx extension: the changelog, which is written in Markdown, as a page."""

import re
from pathlib import Path

UNDERLINES = {"##": "-", "###": "~"}


def as_rst(markdown):
    """Turn headings, code and links into reStructuredText, the rest is the same in both."""
    text = re.sub(r"`([^`]+)`", r"``\1``", markdown)
    text = re.sub(r"\[([^]]+)\]\((\S+?)\)", r"`\1 <\2>`__", text)
    return "\n".join(map(_heading_or_line, text.splitlines())) + "\n"


def _heading_or_line(line):
    marks, _, title = line.partition(" ")
    if marks not in UNDERLINES:
        return "" if marks == "#" else line  # the page has a title
    title = re.sub(r"[][]", "", title)
    return f"{title}\n{UNDERLINES[marks] * len(title)}"


def write(app):
    source = Path(app.srcdir)
    target = source / "generated" / "changelog.inc"
    target.parent.mkdir(exist_ok=True)
    markdown = (source.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    target.write_text(as_rst(markdown), encoding="utf-8")


def setup(app):
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
