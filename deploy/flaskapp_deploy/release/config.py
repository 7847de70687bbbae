"""release.toml: which application, image, chart, values and namespace this repository releases."""

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from flaskapp_deploy.release import checked
from flaskapp_deploy.resources import CHART, PROJECT, ROOT
from flaskapp_deploy.shell import DeployError

NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclass(frozen=True)
class ReleaseConfig(checked.Part):
    """What is released, under which name, where to. Paths are relative to the current directory or absolute."""

    application: Path
    name: str
    namespace: str
    chart: Path
    values: tuple[Path, ...]
    environment: str
    release_values: tuple[Path, ...]
    checks: tuple[str, ...]

    @property
    def is_ledger(self) -> bool:
        """Whether it is this repository's own service."""
        return self.application.resolve() == ROOT

    def with_application(self, application: Path, name: str = "") -> "ReleaseConfig":
        """Return the same steps for a directory, named after it; values of another application are not for it."""
        values = self.values if application.resolve() == self.application.resolve() else DEVELOPMENT
        other = replace(self, application=application, values=values)
        if name:
            return other.with_name(name)
        name = re.sub(r"[^a-z0-9]+", "-", application.resolve().name.lower()).strip("-")
        if not NAME.fullmatch(name):
            directory = application.resolve().name
            raise DeployError(f"the directory's name {directory!r} can't name a release; choose one with NAME=web")
        return replace(other, name=name, namespace=name)

    def with_name(self, name: str) -> "ReleaseConfig":
        """Return the same release under another name, that Kubernetes allows, in a namespace of that name."""
        if not NAME.fullmatch(name):
            raise DeployError(
                f"NAME={name!r} can't name a release; use up to 40 of a-z, 0-9 and -, beginning with a letter"
            )
        return replace(self, name=name, namespace=name)


FILE = PROJECT / "release.toml"
DEVELOPMENT = (ROOT / "environments/dev.yaml",)  # what `up` installs any application with


def project() -> ReleaseConfig:
    """Return the project's release.toml; without one, the directory itself by the command's own chart, for `up`."""
    if FILE.exists():
        return load()
    return ReleaseConfig(PROJECT, PROJECT.name, PROJECT.name, CHART, DEVELOPMENT, "development", (), ())


def load(path: Path = FILE) -> ReleaseConfig:
    """Read release.toml; refuse one that lacks a key, has an unknown one, or names a file that isn't there."""
    if not path.exists():
        raise DeployError(f"there is no {path.name} in {path.parent}, which says what to release")
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DeployError(f"{path.name}: {error}") from error
    config, home = checked.read(ReleaseConfig, content, path.name), path.parent
    config = replace(
        config,
        application=home / config.application,
        chart=home / config.chart,
        values=tuple(home / file for file in config.values),
        release_values=tuple(home / file for file in config.release_values),
    )
    check(config)
    return config


def check(config: ReleaseConfig) -> None:
    """Fail when a directory or file that the release names isn't there."""
    if not config.application.is_dir():
        raise DeployError(f"there is no directory {config.application}; set APP=dir or `application` in release.toml")
    if not (config.chart / "Chart.yaml").is_file():
        raise DeployError(f"there is no chart in {config.chart}; set `chart` in release.toml")
    for file in (*config.values, *config.release_values):
        if not file.is_file():
            raise DeployError(f"there is no values file {file}; set VALUES=file or the values in release.toml")
