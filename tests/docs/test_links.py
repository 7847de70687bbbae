"""Links lead to files and headings of this repository, or look like a URL; no request is sent."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, Page

EXTERNAL = re.compile(r"https://[a-z0-9.-]+\.[a-z]{2,}(/[^\s]*)?|http://127\.0\.0\.1(:\d+)?(/[^\s]*)?|mailto:\S+@\S+")
BY_PATH = {page.path: page for page in PAGES}


def fault(page: Page, link: str) -> str:
    """Return what is wrong with a link, or an empty string."""
    if ":" in link.partition("/")[0]:
        return "" if EXTERNAL.fullmatch(link) else f"{link}: not an https address"
    path, _, anchor = link.partition("#")
    target = (page.path.parent / path).resolve() if path else page.path
    if not target.exists():
        return f"{link}: no such file"
    if anchor and (target not in BY_PATH or anchor not in BY_PATH[target].anchors):
        return f"{link}: no such heading"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Page) -> None:
    assert not list(filter(None, (fault(page, link) for link in page.links)))


def test_mistakes_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# A `title`, twice\n\n# A title, twice\n")
    page = Page(path)
    BY_PATH[path] = page
    assert page.anchors == {"a-title-twice", "a-title-twice-1"}
    for link in ("page.md", "#a-title-twice-1", "https://example.org/a", "page.md#a-title-twice"):
        assert fault(page, link) == "", link
    for link in ("other.md", "#a-title", "http://example.org", "https://example", "page.md#b"):
        assert fault(page, link), link
    del BY_PATH[path]
