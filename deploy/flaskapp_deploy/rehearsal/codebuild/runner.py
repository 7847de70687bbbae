"""The phases of a build, in CodeBuild's order and with its rules for what follows a failure."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from flaskapp_deploy.rehearsal.codebuild.buildspec import Buildspec, BuildspecError, Phase
from flaskapp_deploy.rehearsal.codebuild.outputs import OutputError, artifacts, report
from flaskapp_deploy.rehearsal.codebuild.shell import Shell

MASK = "***"
# What can't leave a build, by the reference of exported-variables.
NEVER_EXPORTED = ("AWS_",)


@dataclass
class Build:
    """One run of a buildspec. `secrets` are variables whose values are never shown."""

    spec: Buildspec
    source: Path
    output: Path
    variables: Mapping[str, str]
    secrets: Mapping[str, str]
    show: Callable[[str], None]
    minutes: float = 60
    succeeding: bool = True
    stopped: str = ""
    executed: list[tuple[str, str]] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    phases: list[dict[str, Any]] = field(default_factory=list)
    exported: dict[str, str] = field(default_factory=dict)

    def run(self) -> bool:
        """Run it whole; return whether it succeeded. `result.json` and the artifacts are left in `output`."""
        self.output.mkdir(parents=True, exist_ok=True)
        self.shell = Shell(self.spec.shell, self.source, self._environment(), self.output / ".state", self.say)
        watchdog = threading.Timer(self.minutes * 60, self.stop, ["TIMED_OUT"])
        watchdog.daemon = True
        watchdog.start()
        try:
            self._phases()
        finally:
            watchdog.cancel()
            self.shell.close()
            (self.output / ".state").unlink(missing_ok=True)
        self._timed("UPLOAD_ARTIFACTS", self._upload)
        self._result()
        return self.succeeding

    def stop(self, status: str = "STOPPED") -> None:
        """End the build: what runs now is ended, and nothing further is run."""
        self.stopped = self.stopped or status
        self.shell.interrupt()

    def say(self, line: str) -> None:
        """Show a line without the secrets in it."""
        for secret in self._masked:
            line = line.replace(secret, MASK)
        self.show(line)

    @property
    def _masked(self) -> list[str]:
        """Secret values, the longest first; one of several lines is hidden line by line."""
        parts = {part.strip() for value in self.secrets.values() for part in value.splitlines()}
        return sorted(filter(None, parts), key=len, reverse=True)

    @property
    def not_executed(self) -> list[str]:
        left = list(self.spec.lines)
        for line in self.executed:
            left.remove(line)
        return [f"{phase}: {line}" for phase, line in left]

    def _phases(self) -> None:
        for name, version in self.spec.runtimes.items():
            self.say(f"runtime-versions: {name} {version} on CodeBuild; here whatever is on the PATH")
        aborted = False
        for phase in self.spec.phases:
            # A failed build phase is still followed by post_build; any other failure ends the build.
            if aborted or self.stopped:
                break
            before = self.succeeding
            self._timed(phase.name.upper(), partial(self._phase, phase))
            failed = before and not self.succeeding
            aborted = failed and (phase.on_failure == "ABORT" or (not phase.on_failure and phase.name != "build"))
        values = self.shell.variables
        names = [
            name for name in self.spec.exported if name not in self.secrets and not name.startswith(NEVER_EXPORTED)
        ]
        self.exported = {name: values[name] for name in names if name in values}

    def _phase(self, phase: Phase) -> str:
        status = "SUCCEEDED"
        for lines in (phase.commands, phase.last):
            for line in lines:
                if self.stopped:
                    return self.stopped
                if code := self._command(phase.name, line):
                    self.say(f"the command ended with {code}")
                    status, self.succeeding = self.stopped or "FAILED", False
                    break
        return status

    def _command(self, phase: str, line: str) -> int:
        self.say(f"Running command {line}")
        self.executed.append((phase, line))
        started = time.monotonic()
        # Part of the command's own line, so that a running shell has it, too.
        code = self.shell.run(f"export CODEBUILD_BUILD_SUCCEEDING={int(self.succeeding)}\n{line}")
        seconds = round(time.monotonic() - started, 1)
        self.commands.append({"phase": phase, "command": line, "code": code, "seconds": seconds})
        return code

    def _timed(self, name: str, work: Callable[[], str]) -> None:
        self.say(f"Entering phase {name}")
        started = time.monotonic()
        status = work()
        self.phases.append({"name": name, "status": status, "seconds": round(time.monotonic() - started, 1)})
        self.say(f"Phase complete: {name} State: {status}")

    def _upload(self) -> str:
        """Attempted whatever came before."""
        status = "SUCCEEDED"
        for name, found in self.spec.reports.items():
            try:
                self.say(f"report {name}: {report(self.source, found)}")
            except OutputError as error:
                self.say(f"report {name}: {error}")
        for name, found in self.spec.artifacts.items():
            target = self.output / "artifacts" / name
            shutil.rmtree(target, ignore_errors=True)
            try:
                self.say(f"artifacts {name or 'of the build'}: {len(artifacts(self.source, found, target))} files")
            except OutputError as error:
                self.say(f"artifacts {name or 'of the build'}: {error}")
                status, self.succeeding = "FAILED", False
        return status

    def _result(self) -> None:
        succeeded = "SUCCEEDED" if self.succeeding else self.stopped or "FAILED"
        result: dict[str, Any] = {"status": succeeded, "phases": self.phases, "commands": self.commands}
        result |= {"exported_variables": self.exported, "not_executed": self.not_executed}
        (self.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
        self.say("")
        for phase in self.phases:
            self.say(f"{phase['name']:18}{phase['seconds']:8.1f} s  {phase['status']}")
        for line in self.not_executed:
            self.say(f"not executed: {line}")
        if not self.not_executed:
            self.say("every line of the buildspec was executed")
        self.say(f"build {succeeded}")

    def _environment(self) -> dict[str, str]:
        """The machine's, then the buildspec's, then the project's, which wins; and CodeBuild's own."""
        identity = str(uuid4())
        commit = _git(self.source, "rev-parse", "HEAD")
        own = {
            "CI": "true",
            "CODEBUILD_BUILD_ID": f"local:{identity}",
            "CODEBUILD_BUILD_ARN": f"arn:aws:codebuild:local:000000000000:build/local:{identity}",
            "CODEBUILD_BUILD_NUMBER": "1",
            "CODEBUILD_INITIATOR": os.environ.get("USER", "local"),
            "CODEBUILD_RESOLVED_SOURCE_VERSION": commit,
            "CODEBUILD_SOURCE_VERSION": commit,
            "CODEBUILD_SOURCE_REPO_URL": _git(self.source, "remote", "get-url", "origin"),
            "CODEBUILD_SRC_DIR": str(self.source),
            "CODEBUILD_START_TIME": str(int(time.time() * 1000)),
        }
        machine = {name: value for name, value in os.environ.items() if not name.startswith("CODEBUILD_")}
        return machine | own | self.spec.variables | dict(self.variables) | dict(self.secrets)


def secrets_of(wanted: Mapping[str, str], kept: Mapping[str, Any]) -> dict[str, str]:
    """Values of secrets by their variables' names.

    Args:
        wanted: `NAME: secret-id` or `NAME: secret-id:json-key`, with stage and version ignored.
        kept: What a store holds, by id; a mapping where keys are asked for.

    Raises:
        BuildspecError: the store has no such secret.
    """
    found = {}
    for name, reference in wanted.items():
        identity, _, rest = reference.partition(":")
        key = rest.partition(":")[0]
        value = kept.get(identity)
        if key and isinstance(value, dict):
            value = value.get(key)
        if value is None or (key and not isinstance(kept.get(identity), dict)):
            raise BuildspecError(f"env: {name}: there is no secret {reference!r}; the build does not start")
        found[name] = value if isinstance(value, str) else json.dumps(value)
    return found


def _git(source: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(source), *arguments], capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else ""


def pairs(given: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping."""
    return {name: value for name, _, value in (text.partition("=") for text in given)}
