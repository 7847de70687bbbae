"""The runner of buildspecs against what AWS documents, case by case; REFERENCE and the others say where."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flaskapp_deploy.rehearsal.codebuild import buildspec, runner
from flaskapp_deploy.rehearsal.codebuild.buildspec import BuildspecError
from flaskapp_deploy.rehearsal.codebuild.runner import Build
from flaskapp_deploy.resources import ROOT

GUIDE = "https://docs.aws.amazon.com/codebuild/latest/userguide"
REFERENCE = f"{GUIDE}/build-spec-ref.html"
TRANSITIONS = f"{GUIDE}/view-build-details-phases.html"
VARIABLES = f"{GUIDE}/build-env-ref-env-vars.html"
PROTECTION = f"{GUIDE}/data-protection.html"


class Run:
    """A finished build of a buildspec's text."""

    def __init__(self, folder: Path, text: str, **options: Any) -> None:
        (folder / "buildspec.yml").write_text(text)
        spec = buildspec.load(folder / "buildspec.yml")
        self.shown: list[str] = []
        options = {"variables": {}, "secrets": {}} | options
        self.build = Build(spec, folder, folder / "out", show=self.shown.append, **options)
        self.succeeded = self.build.run()
        self.result = json.loads((folder / "out/result.json").read_text())

    @property
    def said(self) -> list[str]:
        """What commands printed, and nothing of the runner's own."""
        own = ("Entering", "Phase complete", "Running", "the command", "build ", "not executed", "every line", "report")
        return [line for line in self.shown if line and not line.startswith((*own, "artifacts", "runtime"))][
            : -self.tail
        ]

    @property
    def tail(self) -> int:
        return len(self.result["phases"])

    @property
    def states(self) -> dict[str, str]:
        return {phase["name"]: phase["status"] for phase in self.result["phases"]}


def phases(**commands: str) -> str:
    """A buildspec whose phases have these lines, in bash."""
    text = "version: 0.2\nenv: {shell: bash}\nphases:\n"
    return text + "".join(f"  {name}: {value}\n" for name, value in commands.items())


# REFERENCE, phases: version 0.2 runs every command in one shell.
def test_what_a_command_changes_holds_for_those_after_it(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        phases(
            install="{commands: ['cd /usr', export A=1, B=2, 'f() { echo f; }']}",
            build="{commands: ['pwd; echo $A $B; f']}",
        ),
    )
    assert run.succeeded
    assert run.said == ["/usr", "1 2", "f"]


# REFERENCE, phases/*/finally: commands after the first failure are skipped, `finally` runs, and the phase fails.
def test_finally_runs_after_a_failure(tmp_path: Path) -> None:
    run = Run(tmp_path, phases(build="{commands: ['echo one', 'false', 'echo two'], finally: ['echo last']}"))
    assert run.said == ["one", "last"]
    assert run.states["BUILD"] == "FAILED"
    assert not run.succeeded
    assert run.result["not_executed"] == ["build: echo two"]
    assert "echo two" not in [command["command"] for command in run.result["commands"]]


# REFERENCE, phases/*/finally: "If any command in a phase fails, the phase fails."
def test_a_failing_finally_fails_the_phase(tmp_path: Path) -> None:
    run = Run(tmp_path, phases(build="{commands: ['echo one'], finally: ['false']}"))
    assert run.states["BUILD"] == "FAILED"


# TRANSITIONS: post_build follows a failed build; artifacts are always attempted.
def test_post_build_follows_a_failed_build(tmp_path: Path) -> None:
    lines = phases(
        build="{commands: ['echo x > a.txt; exit 7']}", post_build="{commands: ['echo $CODEBUILD_BUILD_SUCCEEDING']}"
    )
    run = Run(tmp_path, lines + "artifacts: {files: [a.txt]}\n")
    assert run.said == ["0"]
    assert run.states == {
        "INSTALL": "SUCCEEDED", "PRE_BUILD": "SUCCEEDED", "BUILD": "FAILED", "POST_BUILD": "SUCCEEDED",
        "UPLOAD_ARTIFACTS": "SUCCEEDED",
    }  # fmt: skip
    assert (tmp_path / "out/artifacts/a.txt").read_text() == "x\n"
    assert not run.succeeded


# TRANSITIONS: install and pre_build that fail are followed by no other phase.
@pytest.mark.parametrize("failing", ["install", "pre_build"])
def test_an_earlier_failure_ends_the_build(tmp_path: Path, failing: str) -> None:
    run = Run(tmp_path, phases(**{failing: "{commands: ['false']}", "post_build": "{commands: ['echo post']}"}))
    assert run.said == []
    assert "POST_BUILD" not in run.states


# REFERENCE, phases/*/on-failure.
@pytest.mark.parametrize(
    ("phase", "action", "goes_on"),
    [("build", "ABORT", False), ("install", "CONTINUE", True), ("build", "CONTINUE", True)],
)
def test_on_failure(tmp_path: Path, phase: str, action: str, goes_on: bool) -> None:
    lines = {phase: f"{{on-failure: {action}, commands: ['false']}}", "post_build": "{commands: ['echo post']}"}
    run = Run(tmp_path, phases(**lines))
    assert run.said == (["post"] if goes_on else [])
    assert not run.succeeded


def test_a_command_that_ends_the_shell_ends_its_phase_and_no_more(tmp_path: Path) -> None:
    run = Run(tmp_path, phases(build="{commands: [export A=1, exit 9], finally: ['echo $A']}"))
    assert run.said == ["1"]
    assert "the command ended with 9" in run.shown


# REFERENCE, env: the project's value wins over the buildspec's; names with CODEBUILD_ are reserved.
def test_variables(tmp_path: Path) -> None:
    text = "version: 0.2\nenv: {variables: {A: spec, B: spec, C: '$A:x'}}\n"
    text += "phases: {build: {commands: ['echo $A $B $C']}}\n"
    run = Run(tmp_path, text, variables={"A": "project"})
    assert run.said == ["project spec $A:x"]
    with pytest.raises(BuildspecError, match="env/variables"):
        Run(tmp_path, "version: 0.2\nenv: {variables: {CODEBUILD_X: a}}\nphases: {build: {commands: [a]}}\n")


# VARIABLES.
def test_codebuilds_own_variables(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    run = Run(tmp_path, phases(build="{commands: ['echo $CODEBUILD_SRC_DIR $CODEBUILD_BUILD_SUCCEEDING $CI']}"))
    assert run.said == [f"{tmp_path} 1 true"]


# PROTECTION: values from Parameter Store and Secrets Manager are replaced in the log by ***.
def test_secrets_are_masked_wherever_they_appear(tmp_path: Path) -> None:
    secret = "-----BEGIN KEY-----\nc4nary\\1\n-----END KEY-----"
    run = Run(
        tmp_path,
        phases(build="{commands: ['echo \"$KEY\"; echo a-$WORD-b >&2; printf x$WORD', 'echo $WORD; false']}")
        + "artifacts: {files: [none]}\n",
        secrets={"KEY": secret, "WORD": "p4ssw0rd"},
    )
    text = "\n".join(run.shown) + (tmp_path / "out/result.json").read_text()
    assert "p4ssw0rd" not in text
    assert "c4nary" not in text
    assert "a-***-b" in run.shown


# REFERENCE, env/secrets-manager: id:json-key:stage:version; a missing one starts nothing.
def test_secrets_of_a_store() -> None:
    kept = {"plain": "one", "keys": {"a": "two", "b": {"c": 1}}}
    wanted = {"A": "plain", "B": "keys:a", "C": "keys:a:AWSCURRENT", "D": "keys"}
    found = runner.secrets_of(wanted, kept)
    assert [found["A"], found["B"], found["C"], json.loads(found["D"])] == ["one", "two", "two", kept["keys"]]
    for missing in ("nowhere", "keys:z", "plain:key"):
        with pytest.raises(BuildspecError, match="no secret"):
            runner.secrets_of({"A": missing}, kept)


# REFERENCE, env/exported-variables: what they are at the end of post_build; secrets and AWS_… never.
def test_exported_variables(tmp_path: Path) -> None:
    text = """version: 0.2
env: {shell: bash, variables: {A: first}, exported-variables: [A, B, C, KEY, AWS_X]}
phases:
  build: {commands: [export B=2 AWS_X=3]}
  post_build: {commands: ['true'], finally: [export A=last]}
"""
    run = Run(tmp_path, text, secrets={"KEY": "s"})
    assert run.result["exported_variables"] == {"A": "last", "B": "2"}


# REFERENCE, reports and artifacts.
def test_reports_and_artifacts(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/a.xml").write_text(
        '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1"/></testsuites>'
    )
    (tmp_path / "r/cov.xml").write_text('<coverage line-rate="0.5"/>')
    for name in ("my-1/file-1", "my-2/file-2", "my-2/sub/file-3", "my-2/sub/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    text = (
        phases(build="{commands: ['true']}")
        + """
reports:
  tests: {base-directory: r, files: ['a*.xml']}
  coverage: {file-format: CoberturaXml, files: [r/cov.xml]}
  none: {files: [nothing.xml]}
artifacts:
  base-directory: 'my-*'
  files: ['**/*']
  exclude-paths: ['**/.*']
  discard-paths: yes
  secondary-artifacts: {tree: {base-directory: my-2, files: ['**/*']}}
"""
    )
    run = Run(tmp_path, text)
    assert run.succeeded
    assert "report tests: 1 files, 3 tests, 1 failures, 0 errors, 1 skipped" in run.shown
    assert "report coverage: 50.0% of the lines" in run.shown
    assert "report none: no matching report files found: nothing.xml" in run.shown
    out = tmp_path / "out/artifacts"
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == {"file-1", "file-2", "file-3", "tree/file-2", "tree/sub/file-3", "tree/sub/.hidden"}


def test_artifacts_that_are_not_there_fail_the_build(tmp_path: Path) -> None:
    run = Run(tmp_path, phases(build="{commands: ['true']}") + "artifacts: {files: [none.txt]}\n")
    assert run.states["UPLOAD_ARTIFACTS"] == "FAILED"
    assert not run.succeeded


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 0.1\nphases: {build: {commands: [a]}}\n", "version"),
        ("version: 0.2\nphases: {build: {comands: [a]}}\n", "comands"),
        ("version: 0.2\nphases: {deploy: {commands: [a]}}\n", "deploy"),
        ("version: 0.2\nphases: {build: {on-failure: STOP, commands: [a]}}\n", "phases/build/on-failure"),
        ("version: 0.2\nphases: {build: {run-as: user, commands: [a]}}\n", "phases/build/run-as can't be run here"),
        ("version: 0.2\nbatch: {}\nphases: {build: {commands: [a]}}\n", "batch can't be run here"),
        ("version: 0.2\nphases: {build: {commands: [a: b]}}\n", "phases/build/commands/0"),
        ("version: 0.2\nphases: [\n", "buildspec.yml: "),
        ("version: 0.2\nenv: {shell: zsh}\nphases: {build: {commands: [a]}}\n", "env/shell"),
    ],
)
def test_what_is_no_buildspec_is_refused_by_its_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "buildspec.yml").write_text(text)
    with pytest.raises(BuildspecError) as refused:
        buildspec.load(tmp_path / "buildspec.yml")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["buildspec.yml", "buildspec-pr.yml"])
def test_our_own_are_buildspecs(name: str) -> None:
    spec = buildspec.load(ROOT / name)
    assert all(phase.on_failure == "ABORT" for phase in spec.phases if phase.commands)
    assert max(len(line) for _, line in spec.lines) < 120


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "flaskapp_deploy.rehearsal.codebuild",
        "run",
        "--source",
        str(folder),
        "--output",
        str(folder / "out"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "deploy")}
    return subprocess.Popen([*command, *arguments], env=environment, stdout=subprocess.PIPE, text=True)


def test_a_stopped_build_leaves_no_process(tmp_path: Path) -> None:
    lines = phases(
        build="{commands: ['sleep 1234 & sleep 1234'], finally: ['echo last']}", post_build="{commands: [a]}"
    )
    (tmp_path / "buildspec.yml").write_text(lines)
    build = start(tmp_path)
    assert build.stdout
    while "Running" not in build.stdout.readline():
        pass
    time.sleep(0.5)
    build.send_signal(signal.SIGINT)
    output, _ = build.communicate(timeout=20)
    assert build.returncode == 1
    assert "State: STOPPED" in output
    result = subprocess.run(["pgrep", "-f", "sleep 1234"], capture_output=True, text=True)
    assert result.stdout == ""


def test_a_build_has_a_limit(tmp_path: Path) -> None:
    run = Run(tmp_path, phases(build="{commands: [sleep 60]}"), minutes=0.01)
    assert run.states["BUILD"] == "TIMED_OUT"
    assert run.result["status"] == "TIMED_OUT"


def test_aws_answers_what_was_recorded_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text("clusters: []\n")
    answers = {
        "sts get-caller-identity": {"Account": "1", "Arn": "arn:x"},
        "ecr get-login-password": "t0ken",
        "eks update-kubeconfig": str(tmp_path / "kubeconfig"),
    }
    (tmp_path / "aws.json").write_text(json.dumps(answers))
    good = [
        "aws sts get-caller-identity --query Arn --output text",
        "aws ecr get-login-password --region eu-central-1 | wc -c",
        'aws eks update-kubeconfig --name shop; cat "$KUBECONFIG"',
    ]
    bad = "aws s3 rm --recursive s3://bucket"
    (tmp_path / "buildspec.yml").write_text(phases(build=json.dumps({"commands": [*good, bad]})))
    build = start(tmp_path, "--aws", str(tmp_path / "aws.json"), "--variable", f"KUBECONFIG={tmp_path}/k/config")
    output, _ = build.communicate(timeout=20)
    assert build.returncode == 1
    assert "\narn:x\n" in output
    assert "\n6\n" in output
    assert "\nclusters: []\n" in output
    assert "no recorded answer for `aws s3 rm" in output
    assert "the command ended with 252" in output
