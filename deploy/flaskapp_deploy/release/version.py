"""Which version a commit is: Chart.yaml says it, a release tag must agree, and any other commit is a pre-release."""

import os
import re
from pathlib import Path

import yaml

from flaskapp_deploy import shell
from flaskapp_deploy.release import state
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.state import ReleaseState
from flaskapp_deploy.resources import PROJECT
from flaskapp_deploy.shell import DeployError

# https://semver.org, without build metadata: `+` can't be part of a tag in a registry.
SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
)


def begin(config: ReleaseConfig) -> None:
    """Begin release.json with the version of the commit that is checked out."""
    release = read(PROJECT, config.chart)
    state.begin(release)
    shell.say(f"{config.name} {release.version} ({release.tag or 'no release tag'}), chart {release.chart_version}")


def read(repository: Path, chart: Path) -> ReleaseState:
    """Return commit, tag (empty for no release tag), versions and source of what is checked out in `repository`.

    Uncommitted changes, and a tag that Chart.yaml disagrees with, are refused.
    """
    if changed := git(repository, "status", "--porcelain"):
        first = changed.splitlines()[0].split(maxsplit=1)[1]
        raise DeployError(f"there are uncommitted changes ({first}, …): commit or stash them, a release is a commit")
    versions = yaml.safe_load((chart / "Chart.yaml").read_text())
    commit, committed_at = git(repository, "show", "--no-patch", "--format=%H %cI").split()
    tag = release_tag(repository)

    def version_of(key: str) -> str:
        version = str(versions.get(key, ""))
        if not SEMVER.fullmatch(version):
            raise DeployError(f"{chart.name}/Chart.yaml: {key} {version!r} is no semantic version without `+`")
        if tag and tag != f"v{version}":
            raise DeployError(
                f"the tag is {tag}, but {chart.name}/Chart.yaml has {key} {version}: make them equal, then tag"
            )
        return version if tag else prerelease(version, commit)

    address = os.environ.get("CODEBUILD_SOURCE_REPO_URL") or git(repository, "remote", "get-url", "origin", check=False)
    source = re.sub(r"//[^/@]*@", "//", address)  # without a login
    return ReleaseState(version_of("appVersion"), version_of("version"), commit, committed_at, tag, source)


def prerelease(version: str, commit: str) -> str:
    """Name `1.2.0` as of a commit. The `g` keeps one of digits only from being a number with leading zeros."""
    return f"{version}{'.' if '-' in version else '-'}g{commit[:12]}"


def release_tag(repository: Path) -> str:
    """Return the tag `vX.Y.Z` that is built: the one whose push started the build; by hand, one on this commit."""
    pushed = os.environ.get("CODEBUILD_WEBHOOK_HEAD_REF", "")
    tag = pushed.removeprefix("refs/tags/") if pushed else git(repository, "tag", "--points-at", "HEAD", "--list", "v*")
    tag = "" if tag.startswith("refs/") else tag.partition("\n")[0]
    if tag and not SEMVER.fullmatch(tag.removeprefix("v")):
        raise DeployError(f"the tag {tag!r} is no version: release tags are called vX.Y.Z")
    return tag


def git(repository: Path, *arguments: str, check: bool = True) -> str:
    """Run git in a checkout and return what it prints; nothing where it fails and `check` is off."""
    # CodeBuild checks out as another user than the one who builds.
    safe = f"safe.directory={repository.resolve()}"
    result = shell.run("git", "-c", safe, "-C", repository, *arguments, check=False)
    if result.returncode and check:
        raise DeployError(f"{repository} is no git checkout that can be read: {result.stderr.strip()}")
    return result.stdout.strip() if result.returncode == 0 else ""
