"""`make run`: the commands that it prints work, its data stays, and no process is left."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from flaskapp_deploy.shell import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"XDG_DATA_HOME": str(tmp_path / "data"), "PORT": str(free_port())}


def run(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flaskapp_deploy", "run"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_all(pid: int) -> None:
    """Kill a process and its descendants, which hold its output open: a reader would wait for them."""
    parent = psutil.Process(pid)
    for process in (*parent.children(recursive=True), parent):
        process.kill()


def curl_lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield the printed commands, up to the end of their block."""
    assert process.stdout
    printed = False
    for line in process.stdout:
        if line.startswith("  curl "):
            printed = True
            while line.endswith("\\\n"):
                line += next(process.stdout)
            yield line.strip()
        elif printed:
            return
    raise AssertionError("no curl lines were printed")


def test_printed_lines_work_and_data_stays(environment: dict[str, str]) -> None:
    for times in (1, 2):
        process = run(environment)
        watchdog = threading.Timer(120, kill_all, [process.pid])
        watchdog.start()
        try:
            answers = [
                subprocess.run(["bash", "-c", f"{line} --fail"], capture_output=True, text=True, check=True).stdout
                for line in curl_lines(process)
            ]
            children = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            watchdog.cancel()
        assert len(answers) == 4
        assert answers[2].count('"version":"1.0.0"') == times
        assert psutil.wait_procs(children, timeout=10)[1] == []


def test_busy_port_is_one_line(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environment["PORT"]))):
        process = run(environment)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert output == f"error: port {environment['PORT']} is in use; free it, or choose another: PORT=8001 make run\n"


def test_help_starts_nothing(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "flaskapp_deploy", "run", "--help"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Usage: flaskapp-deploy run")
    assert not Path(environment["XDG_DATA_HOME"]).exists()
