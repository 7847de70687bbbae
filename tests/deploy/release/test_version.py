"""Which version a commit is, in real git repositories."""

import subprocess
from pathlib import Path

import pytest
import yaml

from flaskapp_deploy.release import version
from flaskapp_deploy.shell import DeployError


@pytest.fixture(autouse=True)
def no_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CODEBUILD_WEBHOOK_HEAD_REF", "CODEBUILD_SOURCE_REPO_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    chart = tmp_path / "chart"
    chart.mkdir()
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, "1.2.0", "1.2.0")
    return tmp_path


def git(repository: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    result = subprocess.run(["git", *who, *arguments], cwd=repository, check=True, capture_output=True, text=True)
    return result.stdout.strip()


def commit(repository: Path, chart_version: str, app_version: str) -> None:
    content = yaml.safe_dump({"name": "chart", "version": chart_version, "appVersion": app_version})
    (repository / "chart/Chart.yaml").write_text(content)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "Change")


def versions(repository: Path) -> tuple[str, str]:
    release = version.read(repository, repository / "chart")
    return release.version, release.chart_version


def test_a_commit_is_a_prerelease_of_its_charts_versions(repository: Path) -> None:
    commit(repository, "2.0.0-rc.1", "1.2.0")
    sha = git(repository, "rev-parse", "HEAD")[:12]
    assert versions(repository) == (f"1.2.0-g{sha}", f"2.0.0-rc.1.g{sha}")


def test_a_commit_of_digits_is_still_a_version() -> None:
    assert version.SEMVER.fullmatch(version.prerelease("1.2.0", "0" * 40))
    assert not version.SEMVER.fullmatch("1.2.0-000000000000")


def test_a_tag_is_the_version(repository: Path) -> None:
    git(repository, "tag", "v1.2.0")
    assert versions(repository) == ("1.2.0", "1.2.0")


def test_the_pushed_branch_wins_over_a_tag_on_the_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(repository, "tag", "v1.2.0")
    monkeypatch.setenv("CODEBUILD_WEBHOOK_HEAD_REF", "refs/heads/main")
    assert versions(repository)[0].startswith("1.2.0-g")
    monkeypatch.setenv("CODEBUILD_WEBHOOK_HEAD_REF", "refs/tags/v1.2.0")
    assert versions(repository) == ("1.2.0", "1.2.0")


@pytest.mark.parametrize(
    ("chart_version", "app_version", "tag", "message"),
    [
        ("1.2.0", "1.3.0", "v1.2.0", "appVersion 1.3.0"),
        ("1.3.0", "1.2.0", "v1.2.0", "version 1.3.0"),
        ("1.2.0+build", "1.2.0", "", "without `\\+`"),
        ("1.2", "1.2.0", "", "'1.2' is no semantic version"),
        ("1.2.0", "1.2.0", "vnext", "vX.Y.Z"),
    ],
)
def test_disagreement_is_named(repository: Path, chart_version: str, app_version: str, tag: str, message: str) -> None:
    commit(repository, chart_version, app_version)
    if tag:
        git(repository, "tag", tag)
    with pytest.raises(DeployError, match=message):
        versions(repository)


def test_uncommitted_changes_are_refused(repository: Path) -> None:
    (repository / "forgotten.py").touch()
    with pytest.raises(DeployError, match=r"uncommitted changes \(forgotten.py"):
        versions(repository)


def test_a_folder_without_git(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="no git checkout"):
        version.read(tmp_path, tmp_path)


def test_no_login_in_the_source(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://user:secret@example.org/shop.git")
    assert version.read(repository, repository / "chart").source == "https://example.org/shop.git"
