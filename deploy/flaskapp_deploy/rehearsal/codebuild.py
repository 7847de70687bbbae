"""CodeBuild's loop, as far as buildspec.yml and buildspec-pr.yml use it; all else is refused with its line.

https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from flaskapp_deploy.shell import DeployError

SECONDS = 60 * 60  # of a build, as infra/codebuild.yaml has it
# Keys and what may stand there: a mapping (`*` is any key), a list of texts, a text, or ANY text.
ANY = ""
PARTS = ("commands", "finally")
PHASE = {"on-failure": "ABORT", "commands": [ANY], "finally": [ANY]}
FILES = {"base-directory": ANY, "files": [ANY]}
PHASES = {"install": {**PHASE, "runtime-versions": {"*": ANY}}, "pre_build": PHASE, "build": PHASE, "post_build": PHASE}
SHAPE = {
    "version": "0.2",
    "env": {"shell": "bash", "exported-variables": [ANY]},
    "phases": PHASES,
    "reports": {"*": {**FILES, "file-format": ANY}},
    "artifacts": FILES,
    "cache": {"paths": [ANY]},
}
REQUIRED = {"version", "phases", "commands", "files"}
# What a command changes holds for those after it, even if it ends its shell: variables, functions, options, folder.
COMMAND = """
trap '{ declare -p; declare -f; set +o; printf "cd %q\\n" "$PWD"; } > "$0"' EXIT
. "$0" 2> /dev/null
export CODEBUILD_BUILD_SUCCEEDING=$1
eval "$2"
"""


@dataclass
class Build:
    """One run of a buildspec in the checkout `source`; log, result.json and artifacts are left in `output`.

    `secrets` are variables whose values are never shown.
    """

    file: str
    source: Path
    output: Path
    variables: Mapping[str, str]
    secrets: Mapping[str, str]
    seconds: float = SECONDS
    succeeding: bool = True
    commands: list[dict[str, object]] = field(default_factory=list)

    def run(self) -> bool:
        """Run it whole; return whether it succeeded."""
        spec = load(self.source / self.file)
        own = {
            "CI": "true",
            "CODEBUILD_BUILD_ARN": f"arn:aws:codebuild:local:000000000000:build/local:{uuid4()}",
            "CODEBUILD_INITIATOR": os.environ.get("USER", "local"),
            "CODEBUILD_SRC_DIR": str(self.source),
            "CODEBUILD_START_TIME": str(int(time.time() * 1000)),
        }
        self.environment = {**os.environ, **own, **self.variables, **self.secrets}
        self.deadline = time.monotonic() + self.seconds
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="codebuild-") as folder:
            self.state = Path(folder) / "state"
            phases = self._phases(spec["phases"])
            names = set(spec.get("env", {}).get("exported-variables", [])) - self.secrets.keys()
            values = self._bash('. "$0" 2> /dev/null; env -0').communicate()[0].split("\0")
        exported = {name: value for name, _, value in (item.partition("=") for item in values) if name in names}
        self._hand_over(spec)
        executed = [(command["phase"], command["command"]) for command in self.commands]
        skipped = [f"{phase}: {line}" for phase, line in lines(spec) if (phase, line) not in executed]
        status = "SUCCEEDED" if self.succeeding else "FAILED"
        result = {"status": status, "phases": phases, "commands": self.commands}
        result |= {"exported_variables": exported, "not_executed": skipped}
        (self.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
        self.say("\n".join([*(f"not executed: {line}" for line in skipped), f"build {status}"]))
        return self.succeeding

    def say(self, text: str) -> None:
        """Show and log a text without the secrets in it; one of several lines is hidden line by line."""
        parts = {part.strip() for value in self.secrets.values() for part in value.splitlines()}
        for part in sorted(filter(None, parts), key=len, reverse=True):
            text = text.replace(part, "***")
        print(text, flush=True)
        with (self.output / "build.log").open("a") as log:
            log.write(text + "\n")

    def _phases(self, phases: Mapping[str, Any]) -> dict[str, str]:
        """Run one phase after another; return how each ended that was entered."""
        ended = {}
        for name in PHASES:
            phase = phases.get(name, {})
            self.say(f"Entering phase {name.upper()}")
            # The first command that fails ends its part, and `finally` runs in any case.
            parts = [all(self._command(name, line) for line in phase.get(part, [])) for part in PARTS]
            ended[name] = "SUCCEEDED" if all(parts) else "FAILED"
            self.say(f"Phase complete: {name.upper()} State: {ended[name]}")
            # post_build follows a failed build, unless that says ABORT; nothing follows another phase that failed.
            if not all(parts) and (name != "build" or "on-failure" in phase):
                break
        return ended

    def _command(self, phase: str, line: str) -> bool:
        self.say(f"Running command {line}")
        started = time.monotonic()
        process = self._bash(COMMAND, str(int(self.succeeding)), line)
        try:
            for text in process.stdout or []:
                self.say(text.rstrip("\n"))
            code = process.wait()
        finally:  # what it started ends with it, also where this build is interrupted
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.communicate()
        seconds = round(time.monotonic() - started, 1)
        self.commands.append({"phase": phase, "command": line, "code": code, "seconds": seconds})
        if code:
            self.say(f"the command ended with {code}")
            self.succeeding = False
        return not code

    def _bash(self, script: str, *arguments: str) -> "subprocess.Popen[str]":
        limit = max(1, self.deadline - time.monotonic())  # 0 would be none
        return subprocess.Popen(
            ["timeout", f"{limit:.1f}", "bash", "-c", script, self.state, *arguments],
            cwd=self.source, env=self.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip

    def _hand_over(self, spec: Mapping[str, Any]) -> None:
        """Count reports and copy artifacts, whatever came before; missing artifacts fail the build."""
        for name, report in spec.get("reports", {}).items():
            self.say(f"report {name}: {len(self._files(report))} files")
        if artifacts := spec.get("artifacts"):
            files = self._files(artifacts)
            for file in files:
                copy = self.output / "artifacts" / file.relative_to(self.source / artifacts.get("base-directory", ""))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            self.say(f"artifacts: {len(files)} files")
            self.succeeding &= bool(files)

    def _files(self, block: Mapping[str, Any]) -> list[Path]:
        base = self.source / block.get("base-directory", "")
        return [path for pattern in block["files"] for path in sorted(base.glob(pattern)) if path.is_file()]


def load(path: Path) -> dict[str, Any]:
    """Read a buildspec; refuse what this loop does not do, with its line."""
    try:
        text = path.read_text()
        _check(path.name, yaml.compose(text, yaml.SafeLoader), SHAPE)
    except OSError as error:
        raise DeployError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise DeployError(f"{path.name}: " + " ".join(str(error).split())) from error
    return dict(yaml.safe_load(text))


def lines(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(phase, command) of every command of a buildspec."""
    parts = [(name, phase.get(part, [])) for name, phase in spec["phases"].items() for part in PARTS]
    return [(name, line) for name, part in parts for line in part]


def _check(file: str, node: yaml.Node | None, shape: object) -> None:
    """Fail at the first node that the shape does not have."""
    place = f"{file}, line {node.start_mark.line + 1}" if node else file
    if isinstance(node, yaml.MappingNode) and isinstance(shape, dict):
        if missing := (shape.keys() & REQUIRED) - {key.value for key, _ in node.value}:
            raise DeployError(f"{place}: {min(missing)!r} is missing")
        for key, value in node.value:
            if key.value not in shape and "*" not in shape:
                raise DeployError(f"{file}, line {key.start_mark.line + 1}: {key.value!r} can't be run here")
            _check(file, value, shape.get(key.value, shape.get("*")))
    elif isinstance(node, yaml.SequenceNode) and isinstance(shape, list):
        for item in node.value:
            _check(file, item, shape[0])
    elif not isinstance(node, yaml.ScalarNode) or shape not in (ANY, node.value):
        kind = "keys" if isinstance(shape, dict) else "a list" if isinstance(shape, list) else shape or "a text"
        raise DeployError(f"{place}: must be {kind}")
