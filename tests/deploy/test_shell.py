"""What every room of the command uses: errors of one line, files that are whole, waits that end."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from flaskapp_deploy import shell
from flaskapp_deploy.shell import DeployError

PRINTED = [("", "", "it ended with 3 and printed nothing"), ("a\n", "", "a"), ("a\n", "b\nc\n\n", "c")]


@pytest.mark.parametrize(("stdout", "stderr", "reason"), PRINTED)
def test_the_reason_of_a_failure_is_one_line(stdout: str, stderr: str, reason: str) -> None:
    code = f"import sys; print({stdout!r}, end=''); print({stderr!r}, end='', file=sys.stderr); sys.exit(3)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shell.reason(result) == reason


def test_a_program_runs_to_its_end() -> None:
    read = "import os, sys; print(os.environ['GREETING'], sys.stdin.read())"
    result = shell.run(sys.executable, "-c", read, env={"GREETING": "hello"}, stdin="you")
    assert (result.stdout, result.returncode) == ("hello you\n", 0)
    assert shell.run("false", check=False).returncode == 1


FAILING = [
    (["no-such-program"], "no-such-program is not there: install it, or add its directory to PATH"),
    (["ls", "/nowhere"], "ls /nowhere failed: ls: cannot access '/nowhere': No such file or directory"),
    (["sleep", "10"], "sleep 10 took more than 1 s"),
]


@pytest.mark.parametrize(("command", "message"), FAILING)
def test_a_program_that_fails_is_one_line(command: list[str], message: str) -> None:
    with pytest.raises(DeployError) as error:
        shell.run(*command, timeout=1, env={"LC_ALL": "C"})
    assert error.value.message == message


@pytest.mark.parametrize("ignored", ["", "trap '' TERM; "])
def test_a_process_is_stopped_politely_then_by_force(ignored: str) -> None:
    process = subprocess.Popen(
        ["bash", "-c", f"{ignored}echo ready; while :; do sleep 0.1; done"], stdout=subprocess.PIPE
    )
    assert process.stdout
    with process.stdout:
        process.stdout.readline()
        shell.stop(process, grace=0.5)
    assert process.returncode == (-9 if ignored else -15)


def test_a_file_is_private_from_its_first_byte_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    shell.write_atomic(path, "one", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        shell.write_atomic(path, 1)  # type: ignore[arg-type]
    assert path.read_text() == "one"


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    assert shell.write_changed(path, "one")
    written = path.stat().st_mtime_ns
    assert not shell.write_changed(path, "one")
    assert path.stat().st_mtime_ns == written
    assert shell.write_changed(path, "two")


def test_a_wait_ends_with_what_it_waits_for(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("".join(f"line {number}\n" for number in range(20)) + "no such option\n")
    with pytest.raises(DeployError, match="the server ended while starting") as error:
        shell.wait_until(lambda: False, 60, "the server", [tmp_path / "absent.log", log], lambda: False)
    assert str(error.value).endswith("  no such option")
    assert f"last lines of {log}:" in str(error.value)
    assert "line 1\n" not in str(error.value)
    assert shell.tail("line 1\nline 2\nline 3\n", 2) == "line 2\nline 3"
    with pytest.raises(DeployError, match=r"the server is not ready after 0 s; it wrote no log"):
        shell.wait_until(lambda: False, 0, "the server", [tmp_path / "absent.log"])
    answers = iter([False, True])
    assert 0.3 <= shell.wait_until(lambda: next(answers), 60, "the server", every=0.3) < 60


def test_slow_machines_have_longer_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell.seconds(90) == 90
    for factor, limit in (("3", 270), ("0.1", 90)):
        monkeypatch.setenv("TIMEOUT_FACTOR", factor)
        assert shell.seconds(90) == limit
    monkeypatch.setenv("TIMEOUT_FACTOR", "fast")
    with pytest.raises(DeployError, match="TIMEOUT_FACTOR='fast' is not a number"):
        shell.seconds(90)


# A program that ends in an orderly way when it is told to; its caller, which waits for it.
ORDERLY = "trap 'echo ended > $1/ended; exit' TERM; echo $$ > $1/pid; while :; do sleep 0.1; done"
CALLER = """
import signal, sys
from flaskapp_deploy import shell
shell.end_with_make()
shell.run("bash", "-c", sys.argv[1], "bash", sys.argv[2], survives=len(sys.argv) > 3)
"""


def ended(folder: Path, sent: signal.Signals, *options: str) -> bool:
    """Send a signal to the caller of a program; return whether the program ended in an orderly way."""
    caller = subprocess.Popen([sys.executable, "-c", CALLER, ORDERLY, str(folder), *options], stderr=subprocess.PIPE)
    shell.wait_until((folder / "pid").exists, 30, "the program")
    time.sleep(0.2)
    caller.send_signal(sent)
    caller.communicate(timeout=30)
    with suppress(DeployError):
        shell.wait_until((folder / "ended").exists, 2, "its end")
    if not (folder / "ended").exists():
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    return (folder / "ended").exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_program_ends_with_its_caller(tmp_path: Path, sent: signal.Signals) -> None:
    assert ended(tmp_path, sent)


def test_a_package_manager_does_not(tmp_path: Path) -> None:
    assert not ended(tmp_path, signal.SIGKILL, "survives")


def test_a_command_ends_with_its_make(tmp_path: Path) -> None:
    """make is killed, which tells nobody: the command that it started ends all the same, and what that one started."""
    (tmp_path / "caller.py").write_text(CALLER)
    script = f'{sys.executable} {tmp_path}/caller.py "$ORDERLY" {tmp_path}'
    (tmp_path / "Makefile").write_text(f"SHELL := bash\nup:\n\t@{script.replace('$', '$$')}\n")
    variables = os.environ | {"ORDERLY": ORDERLY, "PYTHONPATH": str(Path(shell.__file__).parents[1])}
    with subprocess.Popen(["make", "up"], cwd=tmp_path, env=variables, stderr=subprocess.DEVNULL) as make:
        shell.wait_until((tmp_path / "pid").exists, 30, "the program")
        time.sleep(0.2)
        make.kill()
    shell.wait_until((tmp_path / "ended").exists, 20, "its end")


def test_a_strict_umask_is_not_handed_on(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert shell.start(["sh", "-c", "umask"], tmp_path / "log").wait(10) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "log").read_text() == "0022\n"
