"""The built documentation: its links resolve, and a browser shows it without errors.

Skipped where it has not been built, ``make -C docs html``, or there is no Chromium.
"""

import json
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import sklearn_clce
from browser import CHROMIUM, Browser

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = [
    "index.html",
    "user_guide.html",
    "criterion.html",
    "grid_search.html",
    "contributing.html",
    "auto_examples/index.html",
    "auto_examples/plot_embeddings.html",
    "generated/sklearn_clce.CLCEClassifier.html",
]

HTML = [path.resolve() for path in SITE.rglob("*.html") if "_static" not in path.parts]

pytestmark = pytest.mark.skipif(
    not (SITE / "index.html").exists(), reason="no site is built: make -C docs html"
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


class Page(HTMLParser):
    """Anchors of a page and what it refers to."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.references = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        self.references |= {attrs[key] for key in ("href", "src") if attrs.get(key)}


def test_internal_links_resolve():
    pages = {path: Page(path) for path in HTML}
    assert len(pages) > 20
    broken = []
    for path, page in pages.items():
        for reference in page.references:
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            missing = not target.exists()
            fragment = unquote(parts.fragment).split(":~:")[0]  # a text fragment is for the browser
            if target in pages and fragment:
                missing |= fragment not in pages[target].anchors
            if missing:
                broken.append(f"{path.relative_to(SITE)}: {reference}")
    assert broken == []


def test_pages_load_no_external_resources():
    loaded = [
        f"{path.relative_to(SITE)}: {source}"
        for path in HTML
        for source in Sources(path).found
        if urlsplit(source).netloc
    ]
    assert loaded == []


class Sources(HTMLParser):
    """Scripts, style sheets and images that a page loads."""

    def __init__(self, path):
        super().__init__()
        self.found = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ("script", "img") and attrs.get("src"):
            self.found.append(attrs["src"])
        if tag == "link" and "stylesheet" in (attrs.get("rel") or ""):
            self.found.append(attrs["href"])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    """Serve the site to this machine alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_pages_render_without_errors_and_fit_width(address, browser, width, scheme):
    for page in PAGES:
        browser.open(f"{address}/{page}", width=width, scheme=scheme)
        assert browser.errors == [], page
        assert browser.evaluate("document.documentElement.dataset.theme") == scheme
        seen = browser.evaluate("document.documentElement.scrollWidth")
        assert seen <= width, f"{page} is {seen} pixels wide"
        assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)"), page


@needs_browser
def test_every_page_fits_phone_width(address, browser):
    wide = {}
    for path in sorted(SITE.glob("*.html")):
        browser.open(f"{address}/{path.name}", width=390)
        article = "document.querySelector('article, main').scrollWidth"
        wide[path.name] = browser.evaluate(article)
    assert {page: width for page, width in wide.items() if width > 390} == {}


@needs_browser
@pytest.mark.parametrize("page", ["index.html", "backbones.html", "training.html", "faq.html"])
def test_code_fits_next_to_navigation(address, browser, page):
    browser.open(f"{address}/{page}", width=1440)
    wide = "[...document.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    assert browser.evaluate(f"{wide}.map(e => e.textContent.slice(0, 80))") == []


@needs_browser
@pytest.mark.parametrize(
    "name", ["CLCEClassifier", "BackboneFeatures", "ClassBalancedBatchSampler"]
)
def test_api_page_fits_phone_width(address, browser, name):
    browser.open(f"{address}/generated/sklearn_clce.{name}.html", width=390)
    title = "document.querySelector('h1')"
    assert browser.evaluate(f"{title}.scrollWidth <= {title}.clientWidth")
    outside = (
        "[...document.querySelectorAll('dl.py dt, dl.py dd, dl.py p')]"
        ".filter(e => e.getBoundingClientRect().right > 391).map(e => e.textContent.slice(0, 80))"
    )
    assert browser.evaluate(outside) == []


@needs_browser
def test_api_list_fits_phone_width(address, browser):
    browser.open(f"{address}/api.html", width=390)
    cut = "[...document.querySelectorAll('table')].filter(e => e.parentElement.scrollWidth > 358)"
    assert browser.evaluate(f"{cut}.map(e => e.textContent.slice(0, 80))") == []


@needs_browser
def test_changelog_has_sections(address, browser):
    browser.open(f"{address}/changelog.html")
    titles = browser.evaluate("[...document.querySelectorAll('h2')].map(e => e.textContent)")
    assert titles[0].startswith("Unreleased")
    assert browser.evaluate("document.querySelectorAll('article pre').length") == 0


@needs_browser
def test_page_names_version(address, browser):
    browser.open(f"{address}/index.html")
    bar = browser.evaluate("document.querySelector('.navbar-brand').textContent")
    assert sklearn_clce.__version__ in bar


def test_estimator_diagram_links_to_its_page():
    page = SITE / "auto_examples" / "plot_pipeline_calibration.html"
    assert 'href="../generated/sklearn_clce.CLCEClassifier.html"' in page.read_text("utf-8")


def test_notebooks_install_missing_packages():
    notebooks = list(SITE.rglob("*.ipynb"))
    assert len(notebooks) > 8
    for path in notebooks:
        first = "".join(json.loads(path.read_text("utf-8"))["cells"][0]["source"])
        assert "%pip install --quiet sklearn_clce-*.whl" in first, path.name


@needs_browser
def test_sum_limits_are_below_sign(address, browser):
    browser.open(f"{address}/criterion.html")
    below = (
        "(() => { const sum = [...document.querySelectorAll('div.math munder')]"
        ".find(e => e.textContent.includes('\\u2211'));"
        "const [sign, limit] = [...sum.children].map(e => e.getBoundingClientRect());"
        "return limit.top >= sign.bottom - 2 })()"
    )
    assert browser.evaluate(below) is True


@needs_browser
def test_formulas_render_without_script(address, browser):
    browser.open(f"{address}/criterion.html")
    height = "document.querySelector('div.math mfrac').getBoundingClientRect().height"
    assert browser.evaluate(height) > 20


@needs_browser
def test_search_finds_the_classifier(address, browser):
    browser.open(f"{address}/search.html?q=CLCEClassifier")
    browser.wait_for("document.querySelectorAll('#search-results li a').length > 0")
    links = browser.evaluate("[...document.querySelectorAll('#search-results a')].map(a => a.href)")
    assert any("generated/sklearn_clce.CLCEClassifier.html" in link for link in links)
    assert browser.errors == []
