"""The diagrams of docs/architecture.md name what is there, and the release's steps are those that run."""

import re

import pytest

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import config, steps
from tests.docs.pages import BLOCKS, PAGES, ROOT, Page

DIAGRAMS = [block for block in BLOCKS if block.kind == "mermaid"]
NODE = re.compile(r"\b([A-Za-z]+)(?:\(\[(.*?)\]\)|\[\((.*?)\)\]|\[(.*?)\])")
FILE = re.compile(r"[\w./-]+\.(?:py|yaml|yml|tpl)|(?:src|charts|infra|deploy|reliability)/[\w/]+")


def components(text: str) -> dict[str, str]:
    """Each node of a diagram with what it says."""
    return {name: "".join(parts).strip('"') for name, *parts in NODE.findall(text)}


def missing(text: str) -> list[str]:
    """Files that a diagram names and that are not there; a chart's templates go by their short name."""
    places = (ROOT, ROOT / "charts/flaskapp", ROOT / "charts/flaskapp/templates")
    return [name for name in FILE.findall(text) if not any((place / name).exists() for place in places)]


def loose(text: str) -> set[str]:
    """Ends of arrows that are no node and no group."""
    ends = re.findall(r"^ *(\w+)(?:[\[(].*?[\])])? --.*?> ?(?:\|.*?\| )?(\w+)", text, re.MULTILINE)
    return {end for pair in ends for end in pair} - components(text).keys() - set(re.findall(r"subgraph (\w+)", text))


@pytest.mark.parametrize("block", DIAGRAMS, ids=str)
def test_what_a_diagram_names_is_there(block: object) -> None:
    text = block.text  # type: ignore[attr-defined]
    assert text.startswith("flowchart ")
    assert len(components(text)) > 8
    assert not missing(text)
    assert not loose(text)
    assert len(re.findall(r"^ *subgraph ", text, re.MULTILINE)) == len(re.findall(r"^ *end$", text, re.MULTILINE))


def test_mistakes_are_seen() -> None:
    assert missing('a["x<br>src/flaskapp/nothing.py"]') == ["src/flaskapp/nothing.py"]
    assert loose('a["x"] --> b\n') == {"b"}


def test_the_release_has_the_steps_that_it_runs() -> None:
    names = [name for name, _ in steps.steps(config.load(), Cluster(None, "", ""))]
    drawn = [step for block in DIAGRAMS for step in re.findall(r"\w\[\"([^\"<,:]+)[^\"]*release/\w+\.py", block.text)]
    assert drawn == [*names, "record"]


def test_every_decision_is_listed() -> None:
    listed = Page(ROOT / "docs/adr/README.md").links
    assert sorted(listed) == sorted(path.name for path in ROOT.glob("docs/adr/[0-9]*.md"))
    numbers = [int(name[:4]) for name in sorted(listed)]
    assert numbers == list(range(1, len(numbers) + 1))
    for page in PAGES:
        if page.path.parent.name == "adr":
            assert len(page.path.read_text().splitlines()) <= 45, f"{page} is longer than a page"
