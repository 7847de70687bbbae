"""The command's words: help that is quick and starts nothing, errors of one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flaskapp_deploy import cli

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ["flask", "sqlalchemy", "cryptography", "requests", "yaml", "flaskapp_deploy.release", "flaskapp_deploy.up"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command as people type it in a checkout."""
    command = [str(ROOT / "deploy/flaskapp-deploy"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)


def test_help_loads_no_room() -> None:
    code = "import sys; from flaskapp_deploy.cli import cli; cli.main(['--help'], standalone_mode=False); "
    environment = os.environ | {"PYTHONPATH": str(ROOT / "deploy")}
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout + result.stderr


@pytest.mark.parametrize("words", [[], ["run"], ["up"], ["cluster", "node", "add"], ["release"]], ids=" ".join)
def test_help_of_every_kind_of_word_starts_nothing(words: list[str]) -> None:
    result = run(*words, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Usage: {' '.join(['flaskapp-deploy', *words])}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["upp"], "No such command 'upp'"),
        (["up", "--app", "/nowhere"], "there is no directory /nowhere"),
        (["up", "--app", "/tmp", "--name", "1web"], "NAME='1web' can't name a release"),
        (["cluster", "status", "--name", "nowhere"], "there is no instance 'nowhere'"),
        (["run", "--port", "web"], "'web' is not a valid integer range"),
        (["programs", "nothing"], "there is no tool group 'nothing'"),
    ],
)
def test_an_error_says_what_is_wrong(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def fail(**_: object) -> None:
    """A word with a defect."""
    raise KeyError("key")


def test_a_traceback_goes_to_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    log = tmp_path / "flaskapp/traceback.log"
    assert ended.value.code == (
        f"error: KeyError: 'key'\n  This is a defect of flaskapp-deploy: please report it, with {log}"
    )
    assert log.read_text().startswith("Traceback")


def test_an_interruption_is_one_line() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    script = f"from flaskapp_deploy import cli; cli.cli.callback = lambda: exec({code!r}); cli.main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "deploy")}
    command = [sys.executable, "-c", script, "chart"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.stderr.strip() == "interrupted; what was finished is kept"
    assert result.returncode == 130
