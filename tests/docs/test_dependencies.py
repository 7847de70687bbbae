"""docs/dependencies.md has a line for each direct dependency, and none for anything else."""

import re
import tomllib

from flaskapp_deploy import programs
from flaskapp_deploy.programs import go, wheel
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/dependencies.md").read_text()


def named() -> set[str]:
    rows = re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`/]+)`", row)}


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    listed += [each for extra in project["project"]["optional-dependencies"].values() for each in extra]
    for path in ROOT.glob("tests/*/requirements.txt"):
        listed += path.read_text().splitlines()
    for lock in (go.LOCK, wheel.LOCK):
        listed += re.findall(r"^\w\S+==", lock.read_text(), re.MULTILINE)
    packages = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in listed if not line.startswith("#")}
    return packages | {tool.name for group in programs.groups() for tool in programs.tools_of(group)}


def test_each_dependency_is_justified() -> None:
    assert len(declared()) > 40
    assert declared() - named() == set(), "say in docs/dependencies.md why"
    assert named() - declared() == set(), "these are no dependencies any more"


def test_each_line_says_why_and_when() -> None:
    for row in re.findall(r"^\| `.*$", PAGE, re.MULTILINE):
        _, why, _, released, _ = (cell.strip() for cell in row.removeprefix("|").removesuffix("|").split("|"))
        assert why, row
        assert re.fullmatch(r"20\d\d-\d\d(, 20\d\d-\d\d)*", released), row
