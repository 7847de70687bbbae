"""Rules for every file: pinned requirements without URLs, valid YAML, one newline at the end."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()
    if (ROOT / name).is_file()
]  # fmt: skip


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_requirement_has_a_version_and_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text()
    requirements = re.findall(r"^[A-Za-z0-9](?:\\\n|[^\n])*", text, re.MULTILINE)
    assert len(requirements) > 15
    for requirement in requirements:
        assert "==" in requirement, requirement
        assert "--hash=sha256:" in requirement, requirement
    assert "://" not in text


def test_the_development_lock_holds_the_runtime_one() -> None:
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^([A-Za-z0-9._-]+==[^ ]+)", (ROOT / lock).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def test_locks_follow_pyproject() -> None:
    """Every direct dependency is locked."""
    text = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'^  "([a-z0-9-]+)(?:\[[a-z]+\])?[>=]', text, re.MULTILINE)
    locked = (ROOT / "requirements-dev.lock").read_text()
    assert len(wanted) > 20
    for name in wanted:
        assert re.search(rf"^{name}==", locked, re.MULTILINE), f"{name} is not locked: compile the locks again"


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.suffix in (".yaml", ".yml") and "templates" not in p.parts],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_yaml_parses(path: Path) -> None:
    assert list(yaml.safe_load_all(path.read_text()))


def test_text_ends_in_one_newline() -> None:
    for path in FILES:
        text = path.read_bytes()
        if b"\0" not in text and text:
            assert text.endswith(b"\n"), f"{path.relative_to(ROOT)} does not end in a newline"
            assert not text.endswith(b"\n\n"), f"{path.relative_to(ROOT)} ends in empty lines"


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_pin_actions_and_have_no_rights(path: Path) -> None:
    """A tag of an action can be moved, by its owner or by an attacker; a commit can't."""
    text = path.read_text()
    uses = re.findall(r"uses: *(\S+)(.*)", text)
    assert uses
    for action, comment in uses:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), f"{action} is not pinned by a commit"
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"say which version {action} is"
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job and "permissions" not in job for job in workflow["jobs"].values())
    assert "pull_request_target" not in text
