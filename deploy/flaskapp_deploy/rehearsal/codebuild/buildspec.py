"""A buildspec file, read and checked: unknown keys, and those that mean nothing here, are refused."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from flaskapp_deploy.shell import DeployError

PHASES = ("install", "pre_build", "build", "post_build")
SCHEMA = json.loads(Path(__file__).with_name("buildspec.schema.json").read_text())
# Documented, but not to be had without CodeBuild.
ELSEWHERE = ("batch", "proxy", "run-as")


class BuildspecError(DeployError):
    """The file isn't one that can be run; the message names the place."""


@dataclass(frozen=True)
class Phase:
    """One phase. `commands` and `last` (those of `finally`) are run in order."""

    name: str
    commands: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    on_failure: str = ""


@dataclass(frozen=True)
class Buildspec:
    """What the file says. Mappings are as in the file, with texts for values."""

    shell: str
    variables: dict[str, str]
    secrets: dict[str, str]
    exported: tuple[str, ...]
    runtimes: dict[str, str]
    phases: tuple[Phase, ...]
    reports: dict[str, dict[str, Any]]
    artifacts: dict[str, dict[str, Any]]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(phase, command) of every command in the file."""
        return [(phase.name, line) for phase in self.phases for line in (*phase.commands, *phase.last)]


def load(path: Path) -> Buildspec:
    """Read a file.

    Raises:
        BuildspecError: it is not there, is no YAML, has unknown keys, or keys that only CodeBuild itself can honor.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BuildspecError(f"{path.name}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise BuildspecError(f"{path.name}: " + " ".join(str(error).split())) from error
    _check(path.name, document)
    env, phases = document.get("env", {}), document["phases"]
    artifacts = dict(document.get("artifacts", {}))
    secondary = artifacts.pop("secondary-artifacts", {})
    return Buildspec(
        shell=env.get("shell", "/bin/sh"),
        variables=_texts(env.get("variables", {})),
        secrets=_texts(env.get("parameter-store", {}) | env.get("secrets-manager", {})),
        exported=tuple(env.get("exported-variables", [])),
        runtimes=_texts(phases.get("install", {}).get("runtime-versions", {})),
        phases=tuple(_phase(name, phases.get(name) or {}) for name in PHASES),
        reports=document.get("reports", {}),
        artifacts=({"": artifacts} if artifacts else {}) | secondary,
    )


def _check(name: str, found: Any) -> None:
    if isinstance(found, dict):
        places = {"": found} | {f"phases/{key}/": value for key, value in (found.get("phases") or {}).items()}
        for place, value in places.items():
            for key in ELSEWHERE:
                if isinstance(value, dict) and key in value:
                    raise BuildspecError(f"{name}: {place}{key} can't be run here, only on CodeBuild")
    for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(found):
        raise BuildspecError(f"{name}: {'/'.join(map(str, error.absolute_path)) or 'the file'}: {error.message}")


def _phase(name: str, found: dict[str, Any]) -> Phase:
    return Phase(name, tuple(found.get("commands", [])), tuple(found.get("finally", [])), found.get("on-failure", ""))


def _texts(mapping: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in mapping.items()}
