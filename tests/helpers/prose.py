"""The prose of a page, without code and tables, and how easily it reads.

``python tests/helpers/prose.py`` prints the figures of each page of the guide.
"""

import inspect
import re
import textwrap
from pathlib import Path
from unittest.mock import patch

import numpy as np
from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, directives, roles

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE = "value"  # how a name in code counts: as one word of two syllables

ROLES = ["doc", "ref", "class", "func", "meth", "mod", "attr", "term", "download"]
SPHINX = ["autosummary", "currentmodule", "toctree", "plot", "include", "image", "figure"]
SPHINX += ["csv-table", "raw", "code-block", "grid", "dropdown"]
PROSE = (nodes.paragraph, nodes.term)
NOT_PROSE = (nodes.literal_block, nodes.doctest_block, nodes.table, nodes.comment)
NOT_PROSE += (nodes.system_message, nodes.math_block, nodes.Invisible)


class Nothing(Directive):
    """A directive that adds no prose."""

    has_content = True
    optional_arguments = 100
    final_argument_whitespace = True
    option_spec = None

    def run(self):
        return []


class Nested(Nothing):
    """A directive whose content is prose."""

    def run(self):
        parent = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, parent)
        return parent.children


def as_title(name, rawtext, text, lineno, inliner, options=None, content=None):
    """A role, which reads as its title, or as a word where it has none."""
    title = re.match(r"(.+?)\s*<[^>]+>$", text, re.S)
    return [nodes.Text(title[1]) if title else nodes.literal(text, text)], []


def _register():
    for name in ROLES:
        roles.register_local_role(name, as_title)
    for name in SPHINX:
        directives.register_directive(name, Nothing)
    for name in ("glossary", "details"):
        directives.register_directive(name, Nested)


def code_blocks(text):
    """Return the Python code of the blocks in reStructuredText that have no prompt."""
    found = re.finditer(
        r"^( *)\.\. code-block:: python\n(?:\1 +:.*\n)*\n((?:(?:\1 +.*)?\n)+)", text, re.M
    )
    return [textwrap.dedent(block[2]) for block in found]


def _tree(text):
    settings = {"report_level": 5, "halt_level": 5, "file_insertion_enabled": False}
    with patch.dict(roles._roles), patch.dict(directives._directives):
        _register()
        return publish_doctree(text, settings_overrides=settings)


def _paragraphs(node, kinds):
    if isinstance(node, NOT_PROSE):
        return
    if isinstance(node, kinds):
        yield "".join(_words(node))
    else:
        for child in node.children:
            yield from _paragraphs(child, kinds)


def _words(node):
    for child in node.children:
        if isinstance(child, (nodes.literal, nodes.math)):
            yield CODE
        elif isinstance(child, nodes.Text):
            yield child.astext()
        elif not isinstance(child, NOT_PROSE):
            yield from _words(child)


def of_rst(text, kinds=PROSE):
    """Return the paragraphs of reStructuredText, without headings, code as one word."""
    paragraphs = _paragraphs(_tree(text), kinds)
    return [" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip()]


def formulas(text):
    """Return the nodes of the formulas in reStructuredText."""
    return list(_tree(text).findall(lambda node: isinstance(node, (nodes.math, nodes.math_block))))


def of_markdown(text):
    """Return the paragraphs of Markdown, without code, tables and headings."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]+`", CODE, text))
    blocks = re.split(r"\n\s*\n|\n(?=- )", text)
    return [" ".join(block.split()) for block in blocks if block.strip()[:1] not in ("", "|", "#")]


def of_docstrings(package):
    """Return the paragraphs of the public docstrings of a package, by name of the object."""
    documented = {}
    for name in package.__all__:
        documented |= _docstrings(name, getattr(package, name))
    return {
        name: of_rst("\n".join(line for line in text.splitlines() if not re.fullmatch("-+", line)))
        for name, text in documented.items()
    }


def _docstrings(name, thing):
    found = {name: inspect.getdoc(thing) or ""}
    if inspect.isclass(thing):
        for member in dir(thing):
            value = getattr(thing, member, None)
            if member[0] != "_" and getattr(value, "__module__", "").startswith("sklearn_clce"):
                found[f"{name}.{member}"] = inspect.getdoc(value) or ""
    return found


def sentences(paragraphs):
    """Return the sentences: they end with a mark that a space or the end follows."""
    return [
        sentence
        for paragraph in paragraphs
        for sentence in re.split(r"(?<=[.!?])\s+|(?<=[.!?][\"')*])\s+", paragraph)
        if words(sentence)
    ]


def words(text):
    return re.findall(r"[^\W_][\w'.,-]*", text)


def syllables(word):
    """Return how many syllables a word has: its groups of vowels, without a silent e."""
    word = re.sub(r"[^a-z]", "", word.lower())
    if len(word) <= 3:
        return 1
    spoken = re.sub(r"(?<![aeiouyl])e$|(?<![aeioucgslxzh])es$|(?<![dt])ed$", "", word)
    return max(1, len(re.findall(r"[aeiouy]+", spoken)))


def reading_ease(paragraphs):
    """Return Flesch's reading ease: 100 is very easy, 0 very hard."""
    found = sentences(paragraphs)
    spoken = [word for sentence in found for word in words(sentence)]
    per_word = sum(map(syllables, spoken)) / len(spoken)
    return 206.835 - 1.015 * len(spoken) / len(found) - 84.6 * per_word


def sentence_lengths(paragraphs):
    return [len(words(sentence)) for sentence in sentences(paragraphs)]


def guide_pages():
    """Return the names of the pages that a user reads, without those that hold only lists."""
    left_out = {"api", "changelog", "index", "contributing", "results", "sg_execution_times"}
    return sorted(path.stem for path in DOCS.glob("*.rst") if path.stem not in left_out)


def page(name, kinds=PROSE):
    """Return the paragraphs of a page of the documentation."""
    return of_rst((DOCS / f"{name}.rst").read_text(encoding="utf-8"), kinds)


if __name__ == "__main__":
    eases, lengths = [], []
    for name in guide_pages():
        eases.append(reading_ease(page(name)))
        lengths += sentence_lengths(page(name))
        longest = np.percentile(sentence_lengths(page(name)), 95)
        print(
            f"{name:20} reading ease {eases[-1]:5.1f}   95 % of sentences up to {longest:.0f} words"
        )
    print(
        f"mean reading ease {np.mean(eases):.1f}, 95th percentile {np.percentile(lengths, 95):.0f}"
    )
