"""The documentation as a site: what it lists, that it builds without a warning, and that no link in it is broken."""

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "backbone", "proposals", "eval", "detect")


class Page(HTMLParser):
    """The anchors of a page, its links, and what a browser loads with it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attributes if value}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("next", "prev", "index", "search", "canonical"):
            self.loaded.append(values["href"])
        elif "src" in values:
            self.loaded.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does."""
    for package in ("sphinx", "furo", "numpydoc", "myst_nb", "sphinx_copybutton", "sphinx_design", "torch"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    (flags,) = re.findall(r"^SPHINX = \S+ (.*) --doctree-dir \S+$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    run = subprocess.run(
        [sys.executable, "-m", "sphinx", *flags.split(), "--doctree-dir", folder / "doctrees", ".", folder / "html"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    return folder / "html"


@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_lists_what_is_public_and_no_more(room: str) -> None:
    text = (ROOT / "docs" / "site" / "api" / f"{room}.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^\.\. py:data:: (\w+)", text, re.MULTILINE)
    for block in re.findall(r"^\.\. public::\n\n((?:   .*\n)+)", text, re.MULTILINE):
        listed += block.split()
    assert sorted(listed) == sorted(importlib.import_module(f"inception_rcnn.{room}").__all__)


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    assert len(pages) >= 20
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            ):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


@pytest.mark.slow
def test_the_site_needs_no_network(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = Page(path).loaded
        assert not [one for one in loaded if urlsplit(one).netloc], path
    for path in site.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", text), path


@pytest.mark.slow
def test_every_public_name_has_its_place_on_the_site(site: Path) -> None:
    for room in ROOMS:
        anchors = Page(site / "docs" / "site" / "api" / f"{room}.html").anchors
        for name in importlib.import_module(f"inception_rcnn.{room}").__all__:
            assert f"inception_rcnn.{room}.{name}" in anchors
