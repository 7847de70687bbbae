"""The loop of buildspecs against what AWS documents, case by case; REFERENCE and the others say where."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flaskapp_deploy.rehearsal import codebuild, rehearse
from flaskapp_deploy.rehearsal.codebuild import Build
from flaskapp_deploy.resources import ROOT
from flaskapp_deploy.shell import DeployError

GUIDE = "https://docs.aws.amazon.com/codebuild/latest/userguide"
REFERENCE = f"{GUIDE}/build-spec-ref.html"
TRANSITIONS = f"{GUIDE}/view-build-details-phases.html"
VARIABLES = f"{GUIDE}/build-env-ref-env-vars.html"
PROTECTION = f"{GUIDE}/data-protection.html"
OURS = ["buildspec.yml", "buildspec-pr.yml"]
OWN = ("Entering", "Phase complete", "Running", "the command", "build ", "not executed", "report ", "artifacts: ")


class Run:
    """A finished build of a buildspec's text."""

    def __init__(
        self,
        folder: Path,
        text: str,
        variables: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
        seconds: float = 60,
    ) -> None:
        (folder / "buildspec.yml").write_text(text)
        build = Build("buildspec.yml", folder, folder / "out", variables or {}, secrets or {}, seconds)
        self.succeeded = build.run()
        self.log = (folder / "out/build.log").read_text().splitlines()
        self.result: dict[str, Any] = json.loads((folder / "out/result.json").read_text())
        self.phases = self.result["phases"]

    @property
    def output(self) -> list[str]:
        """What commands printed, and nothing of the loop's own."""
        return [line for line in self.log if not line.startswith(OWN)]


def phases(**commands: str) -> str:
    """A buildspec whose phases have these lines, in bash."""
    text = "version: 0.2\nenv: {shell: bash}\nphases:\n"
    return text + "".join(f"  {name}: {value}\n" for name, value in commands.items())


# REFERENCE, phases: version 0.2 runs every command in one shell.
def test_what_a_command_changes_holds_for_those_after_it(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        phases(
            install="{commands: ['cd /usr', export A=1, B=2, 'f() { echo f; }', set -o pipefail]}",
            build="{commands: ['pwd; echo $A $B; f', 'env | grep -c ^B= || echo not exported', 'false | true']}",
        ),
    )
    assert run.output == ["/usr", "1 2", "f", "0", "not exported"]
    assert run.phases["build"] == "FAILED"


# REFERENCE, phases/*/finally: commands after the first failure are skipped, `finally` runs, and the phase fails.
def test_finally_runs_after_a_failure(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        phases(build="{on-failure: ABORT, commands: ['echo one', 'false', 'echo two'], finally: ['echo last']}"),
    )
    assert run.output == ["one", "last"]
    assert run.phases["build"] == "FAILED"
    assert not run.succeeded
    assert run.result["not_executed"] == ["build: echo two"]
    assert "not executed: build: echo two" in run.log
    assert "echo two" not in [command["command"] for command in run.result["commands"]]


# REFERENCE, phases/*/finally: "If any command in a phase fails, the phase fails."
def test_a_failing_finally_fails_the_phase(tmp_path: Path) -> None:
    run = Run(tmp_path, phases(build="{commands: ['echo one'], finally: ['false']}"))
    assert run.phases["build"] == "FAILED"


# TRANSITIONS: post_build follows a failed build; artifacts are always attempted.
def test_post_build_follows_a_failed_build(tmp_path: Path) -> None:
    lines = phases(
        build="{commands: ['echo x > a.txt; exit 7']}", post_build="{commands: ['echo $CODEBUILD_BUILD_SUCCEEDING']}"
    )
    run = Run(tmp_path, lines + "artifacts: {files: [a.txt]}\n")
    assert run.output == ["0"]
    assert run.phases == {
        "install": "SUCCEEDED", "pre_build": "SUCCEEDED", "build": "FAILED", "post_build": "SUCCEEDED",
    }  # fmt: skip
    assert (tmp_path / "out/artifacts/a.txt").read_text() == "x\n"
    assert not run.succeeded


# TRANSITIONS: install and pre_build that fail are followed by no other phase.
@pytest.mark.parametrize("failing", ["install", "pre_build"])
def test_an_earlier_failure_ends_the_build(tmp_path: Path, failing: str) -> None:
    run = Run(tmp_path, phases(**{failing: "{commands: ['false']}", "post_build": "{commands: ['echo post']}"}))
    assert run.output == []
    assert "post_build" not in run.phases


# REFERENCE, phases/*/on-failure: ABORT ends the build, so that post_build doesn't run either.
def test_a_build_that_aborts_is_not_followed_by_post_build(tmp_path: Path) -> None:
    lines = {"build": "{on-failure: ABORT, commands: ['false']}", "post_build": "{commands: ['echo post']}"}
    run = Run(tmp_path, phases(**lines))
    assert run.output == []
    assert run.result["not_executed"] == ["post_build: echo post"]
    assert not run.succeeded


def test_a_command_that_ends_the_shell_ends_its_phase_and_no_more(tmp_path: Path) -> None:
    run = Run(tmp_path, phases(build="{commands: [export A=1, exit 9], finally: ['echo $A']}"))
    assert run.output == ["1"]
    assert "the command ended with 9" in run.log


@pytest.mark.parametrize(("line", "passes"), [('PATH="$(false):$PATH"', False), ('export PATH="$(false):$PATH"', True)])
def test_an_assignment_fails_with_its_command_and_an_export_hides_it(tmp_path: Path, line: str, passes: bool) -> None:
    run = Run(tmp_path, phases(install=json.dumps({"commands": [line]})))
    assert run.succeeded is passes


# VARIABLES; and the project's own.
def test_variables(tmp_path: Path) -> None:
    line = "echo $CODEBUILD_SRC_DIR $CODEBUILD_BUILD_SUCCEEDING $CI $A"
    run = Run(tmp_path, phases(build=json.dumps({"commands": [line]})), variables={"A": "of the project"})
    assert run.output == [f"{tmp_path} 1 true of the project"]


# PROTECTION: values from Parameter Store and Secrets Manager are replaced in the log by ***.
def test_secrets_are_masked_wherever_they_appear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "-----BEGIN KEY-----\nc4nary\\1\n-----END KEY-----"
    run = Run(
        tmp_path,
        phases(build="{commands: ['echo \"$KEY\"; echo a-$WORD-b >&2; printf x$WORD', 'echo $WORD; false']}"),
        secrets={"KEY": secret, "WORD": "p4ssw0rd"},
    )
    text = "\n".join(run.log) + (tmp_path / "out/result.json").read_text() + capsys.readouterr().out
    assert "p4ssw0rd" not in text
    assert "c4nary" not in text
    assert "a-***-b" in run.log


# REFERENCE, env/exported-variables: what they are at the end of the build; secrets never.
def test_exported_variables(tmp_path: Path) -> None:
    text = """version: 0.2
env: {shell: bash, exported-variables: [A, B, C, KEY]}
phases:
  build: {commands: [export B=2 A=first C_=3]}
  post_build: {commands: ['true'], finally: [export A=last]}
"""
    run = Run(tmp_path, text, secrets={"KEY": "s"})
    assert run.result["exported_variables"] == {"A": "last", "B": "2"}


# REFERENCE, reports and artifacts.
def test_reports_and_artifacts(tmp_path: Path) -> None:
    for name in ("reports/a.xml", "release/one.json", "release/sub/two.json", "release/three.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    text = (
        phases(build="{commands: ['true']}")
        + """
reports:
  tests: {file-format: JUNITXML, base-directory: reports, files: ['*.xml']}
  none: {files: [nothing.xml]}
artifacts:
  base-directory: release
  files: ['**/*.json']
"""
    )
    run = Run(tmp_path, text)
    assert run.succeeded
    assert {"report tests: 1 files", "report none: 0 files"} <= set(run.log)
    out = tmp_path / "out/artifacts"
    copies = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert copies == {"one.json", "sub/two.json"}


def test_artifacts_that_are_not_there_fail_the_build(tmp_path: Path) -> None:
    run = Run(tmp_path, phases(build="{commands: ['true']}") + "artifacts: {files: [none.txt]}\n")
    assert run.phases["build"] == "SUCCEEDED"
    assert not run.succeeded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 0.1\nphases: {build: {commands: [a]}}\n", "line 1: must be 0.2"),
        ("version: 0.2\nphases:\n  build: {comands: [a]}\n", "line 3: 'commands' is missing"),
        ("version: 0.2\nphases:\n  build:\n    commands: [a]\n    comands: [a]\n", "line 5: 'comands' can't be run"),
        ("version: 0.2\nphases:\n  deploy: {commands: [a]}\n", "line 3: 'deploy' can't be run"),
        ("version: 0.2\nphases:\n  build: {on-failure: CONTINUE, commands: [a]}\n", "line 3: must be ABORT"),
        ("version: 0.2\nphases:\n  build: {run-as: user, commands: [a]}\n", "line 3: 'run-as' can't be run here"),
        ("version: 0.2\nbatch: {}\nphases: {build: {commands: [a]}}\n", "line 2: 'batch' can't be run here"),
        ("version: 0.2\nphases: {build: {commands: [a: b]}}\n", "line 2: must be a text"),
        ("version: 0.2\nphases: {build: {commands: a}}\n", "line 2: must be a list"),
        ("version: 0.2\nphases: [build]\n", "line 2: must be keys"),
        ("version: 0.2\n", "line 1: 'phases' is missing"),
        ("", "buildspec.yml: must be keys"),
        ("version: 0.2\nphases: [\n", "buildspec.yml: "),
        ("version: 0.2\nenv: {shell: zsh}\nphases: {build: {commands: [a]}}\n", "line 2: must be bash"),
    ],
)
def test_what_the_loop_does_not_do_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "buildspec.yml").write_text(text)
    with pytest.raises(DeployError) as refused:
        codebuild.load(tmp_path / "buildspec.yml")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_buildspec_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"buildspec\.yml: No such file"):
        codebuild.load(tmp_path / "buildspec.yml")


@pytest.mark.parametrize("name", OURS)
def test_our_own_are_buildspecs_that_hide_no_failure(name: str) -> None:
    spec = codebuild.load(ROOT / name)
    assert all(phase["on-failure"] == "ABORT" for phase in spec["phases"].values())
    for _, line in codebuild.lines(spec):
        assert len(line) < 120
        # None of these ends with the code of the command in it.
        assert not any(part in line for part in ("export ", 'eval "$(', " | ", ";"))


def test_an_interrupted_build_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "buildspec.yml").write_text(phases(build="{commands: ['sleep 1234 & sleep 1234']}"))
    code = "import sys; from pathlib import Path; from flaskapp_deploy.rehearsal.codebuild import Build; "
    code += "folder = Path(sys.argv[1]); Build('buildspec.yml', folder, folder / 'out', {}, {}).run()"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "deploy")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    build = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert build.stdout
    while "Running" not in build.stdout.readline():
        pass
    time.sleep(0.5)
    build.send_signal(signal.SIGINT)
    build.communicate(timeout=20)
    assert build.returncode
    result = subprocess.run(["pgrep", "-f", "sleep 1234"], capture_output=True, text=True)
    assert result.stdout == ""


def test_a_build_has_a_limit(tmp_path: Path) -> None:
    started = time.monotonic()
    run = Run(tmp_path, phases(build="{commands: [sleep 60]}"), seconds=1)
    assert run.phases["build"] == "FAILED"
    assert time.monotonic() - started < 20


def test_aws_answers_what_the_buildspec_asks_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text("clusters: []\n")
    kubeconfig = str(tmp_path / "kubeconfig")
    rehearse.install_aws(tmp_path / "bin", identity="arn:x", token="t0ken", kubeconfig=kubeconfig)
    good = [
        "aws sts get-caller-identity --query Arn --output text",
        "aws ecr get-login-password --region eu-central-1 | wc -c",
        'aws eks update-kubeconfig --name shop; cat "$KUBECONFIG"',
    ]
    bad = "aws s3 rm --recursive s3://bucket"
    variables = {"KUBECONFIG": f"{tmp_path}/config", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    run = Run(tmp_path, phases(build=json.dumps({"commands": [*good, bad]})), variables=variables)
    assert run.output == ["arn:x", "6", "clusters: []", f"aws: there is no answer here for `{bad}`"]
    assert "the command ended with 252" in run.log
