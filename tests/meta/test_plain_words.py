"""Pages, README and public docstrings use plain words, and sentences that are short."""

import re

import numpy as np
import pytest

import prose
import sklearn_clce

# A phrase, and what to write instead. Code, headings and tables do not count.
PLAIN = {
    r"tell(?:s|ing)?|told": "check, distinguish, report",
    r"hand(?:s|ed|ing)? (?:in|on|over) (?!hand)": "pass, re-export",
    r"settle[sd]?|settling": "resolve, decide, fixed",
    r"anew": "again, from scratch, refit",
    r"(?:go|goes|going|went) on": "resume, continue",
    r"of (?:before|earlier)": "older, previous",
    r"(?<!there )(?:is|are) no (?!longer|more|better|worse|faster|smaller|larger)": "is not a",
    r"what (?:trains|trained|is trained)": "trainable parameters",
    r"beside": "next to, in addition to",
    r"refuse[sd]?|refusing": "reject, raise",
    r"as a rule": "usually",
    r"stands? in": "is in",
    r"lets? go of": "release",
    r"whatever": "regardless of",
    r"(?:one|two|three|four|five|each|same|other|another|over|of|in) draws?": "random split",
    r"pictures?": "image",
}
EXCEPTIONS = {  # phrases that a page or docstring may have
    "glossary": {"tell"},
}
NOT_YET = {"criterion", "deployment", "grid_search", "index", "install", "performance", "results"}
DOCSTRINGS_NOT_YET = set()
EASE, WORDS, WORDS_OF_A_PAGE = 70, 30, 35  # reached: the mean of pages, the 95th percentiles
PAGES = sorted(path.stem for path in prose.DOCS.glob("*.rst") if path.stem != "changelog")


def phrases(paragraphs):
    """Return the phrases of the list in the text, and what to write instead."""
    text = "\n".join(paragraphs)
    return {
        found[0].lower().strip(): plain
        for pattern, plain in PLAIN.items()
        for found in re.finditer(rf"\b(?:{pattern})(?!\w)", text, re.IGNORECASE)
    }


@pytest.mark.parametrize("page", PAGES)
def test_page_uses_plain_words(page):
    found = phrases(prose.page(page)).keys() - EXCEPTIONS.get(page, set())
    assert bool(found) == (page in NOT_YET), found


def test_readme_uses_plain_words():
    readme = (prose.ROOT / "README.md").read_text(encoding="utf-8")
    assert phrases(prose.of_markdown(readme)) != {}


def test_public_docstrings_use_plain_words():
    found = {name: phrases(text) for name, text in prose.of_docstrings(sklearn_clce).items()}
    assert {name for name, old in found.items() if old} == DOCSTRINGS_NOT_YET, found


def test_guide_is_easy_to_read():
    eases = {name: prose.reading_ease(prose.page(name)) for name in prose.guide_pages()}
    assert np.mean(list(eases.values())) >= EASE, eases


def test_sentences_are_short():
    lengths = {name: prose.sentence_lengths(prose.page(name)) for name in prose.guide_pages()}
    longest = {name: np.percentile(words, 95) for name, words in lengths.items()}
    assert np.percentile(np.concatenate(list(lengths.values())), 95) <= WORDS, longest
    too_long = {name for name, words in longest.items() if words > WORDS_OF_A_PAGE}
    assert too_long <= NOT_YET, longest


def test_phrases_are_found_in_prose_alone():
    page = "Beside it, ``tell`` lies.\n\nTell\n----\n\n::\n\n    settle\n\nHe has no idea."
    assert phrases(prose.of_rst(page)) == {"beside": "next to, in addition to"}
