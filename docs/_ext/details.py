"""Sphinx extension: ``.. details:: TITLE`` folds its content until a reader opens it."""

from html import escape

from docutils import nodes
from docutils.parsers.rst import Directive


class Details(Directive):
    """A part of a page that is closed at first."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        content = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, content)
        begin = f"<details><summary>{escape(self.arguments[0])}</summary>"
        return [
            nodes.raw("", begin, format="html"),
            *content.children,
            nodes.raw("", "</details>", format="html"),
        ]


def setup(app):
    app.add_directive("details", Details)
    return {"parallel_read_safe": True}
