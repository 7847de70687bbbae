"""release.json: it comes back as it was written, and one that this command did not write is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flaskapp_deploy.release import state
from flaskapp_deploy.release.state import Artifact, Base, Image, Outcome, ReleaseState
from flaskapp_deploy.shell import DeployError

BEGUN = ReleaseState("1.0.0", "1.1.0", "0" * 40, "2026-11-28T00:00:00Z", "", "https://example.org/shop.git")
IMAGE = Image(
    repository="host/shop",
    digest="sha256:1",
    platforms={"linux/arm64": "sha256:2"},
    bases=(Base("python:3.13", "sha256:4", "linux/arm64", stand_in=True),),
)
CHART = Artifact("host/charts/shop", "sha256:5")
OUTCOME = Outcome("rolled_back", "staging", "2026-11-28T00:01:00Z", "2026-11-28T00:02:00Z")
WHOLE = replace(BEGUN, build=IMAGE, scan="not checked", image=IMAGE, chart=CHART)
WHOLE = replace(WHOLE, outcome=OUTCOME, pending_records=("{}",))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "FOLDER", tmp_path / "release")
    return tmp_path / "release"


@pytest.mark.parametrize("release", [BEGUN, WHOLE], ids=["begun", "whole"])
def test_it_comes_back_as_it_was_written(release: ReleaseState) -> None:
    state.save(release)
    assert state.load() == release


def test_it_has_what_steps_left_under_their_names_and_no_more(folder: Path) -> None:
    state.save(replace(BEGUN, build=IMAGE))
    content = json.loads((folder / "release.json").read_text())
    assert content.keys() == {"version", "chart_version", "commit", "committed_at", "tag", "source", "build",
                              "pending_records"}  # fmt: skip
    assert content["build"]["platforms"] == {"linux/arm64": "sha256:2"}
    assert content["build"]["bases"][0]["reference"] == "python:3.13"


def test_another_release_begins_anew(folder: Path) -> None:
    state.save(WHOLE)
    (folder / "scan.json").write_text("{}")
    state.begin(BEGUN)
    assert state.load() == BEGUN
    assert [path.name for path in folder.iterdir()] == ["release.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "release.json is no JSON: "),
        ("[]", "release.json: 'the file' must be a table of keys"),
        ({"chart": {"reference": "x"}}, "'chart.repository' is missing"),
        ({"untold": []}, "'untold' is unknown"),
        ({"pending_record": []}, "'pending_record' is unknown, did you mean 'pending_records'"),
        ({"scan": "fine"}, "'scan' "),
        ({"outcome": {"status": "ended", "environment": "x", "started_at": "x"}}, "'outcome.status' "),
    ],
    ids=str,
)
def test_one_of_another_kind_is_refused(folder: Path, content: str | dict[str, object], message: str) -> None:
    state.save(BEGUN)
    file = folder / "release.json"
    file.write_text(content if isinstance(content, str) else json.dumps(json.loads(file.read_text()) | content))
    with pytest.raises(DeployError) as refused:
        state.load()
    assert message.rstrip("' ") in str(refused.value)
    assert str(refused.value).endswith("; `deploy/flaskapp-deploy version` begins a new one")
    assert "\n" not in str(refused.value)


def test_what_the_shell_exports() -> None:
    assert state.exports() == [
        f"export {name}=''" for name in ("VERSION", "CHART_VERSION", "IMAGE_DIGEST", "CHART_DIGEST")
    ]
    state.save(WHOLE)
    assert state.exports() == [
        "export VERSION=1.0.0",
        "export CHART_VERSION=1.1.0",
        "export IMAGE_DIGEST=sha256:1",
        "export CHART_DIGEST=sha256:5",
    ]
