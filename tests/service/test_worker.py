"""The thread worker: edge cases, under an application that can fail in the middle of an answer; what it overrides."""

import inspect
import os
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import pytest
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.version import Version

from flaskapp.worker import Worker
from flaskapp_deploy.shell import free_port
from tests.service.conftest import SOURCE

APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    yield b"o"
    if environ["PATH_INFO"] == "/broken":
        raise RuntimeError
    yield b"k"
"""
KEEP = 60  # seconds, longer than any test lasts


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run gunicorn with one worker; yield it and its port."""
    (tmp_path / "edges.py").write_text(APPLICATION)
    port = free_port()
    options = f"-k flaskapp.worker.Worker --threads 4 --worker-connections 64 --keep-alive {KEEP} --no-control-socket"
    command = [sys.executable, "-m", "gunicorn", *options.split(), "-b", f"127.0.0.1:{port}", "edges:app"]
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        while b"Booting worker" not in (tmp_path / "log").read_bytes():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield process, port
    finally:
        process.terminate()
        process.wait(30)
    assert b"Exception in worker process" not in (tmp_path / "log").read_bytes()


def ask(port: int, path: str = "/", headers: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (path.encode(), headers))
    return sock


def answered(sock: socket.socket) -> bool:
    answer = b""
    while part := sock.recv(4096):
        answer += part
    return answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\nok")


def test_an_answer_that_breaks_ends_its_connection_alone(worker: tuple[subprocess.Popen[bytes], int]) -> None:
    _, port = worker
    with ask(port, "/broken") as broken:
        assert not answered(broken)
    with ask(port, "/", b"Connection: close\r\n") as whole:
        assert answered(whole)


def test_who_reads_and_stays_takes_a_bounded_number_of_files(worker: tuple[subprocess.Popen[bytes], int]) -> None:
    process, port = worker
    with ExitStack() as stack:
        for _ in range(600):
            assert answered(stack.enter_context(ask(port, "/", b"Connection: close\r\n")))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(list(Path(f"/proc/{children[0]}/fd").iterdir())) < 550


def test_the_end_waits_for_nobody_who_says_nothing(worker: tuple[subprocess.Popen[bytes], int]) -> None:
    process, port = worker
    with ExitStack() as stack:
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert answered(stack.enter_context(ask(port, "/", b"Connection: close\r\n")))
        process.terminate()
        process.wait(15)  # far less than both KEEP and the grace period


# What the worker takes from gunicorn's own. A name that gunicorn drops would be overridden in vain; a helper that
# gunicorn gets would be overridden by accident.
OVERRIDDEN = {
    "__init__",
    "enqueue_req",
    "murder_pending",
    "finish_request",
    "handle_error",
    "_keepalive_after",
    "_cap_keepalive",
}


def test_it_overrides_what_gunicorn_has_and_nothing_else() -> None:
    own = {name: method for name, method in vars(Worker).items() if inspect.isfunction(method)}
    assert {name for name in own if hasattr(ThreadWorker, name)} == OVERRIDDEN
    for name in OVERRIDDEN - {"__init__"}:
        upstream = inspect.signature(getattr(ThreadWorker, name))
        assert len(inspect.signature(own[name]).parameters) == len(upstream.parameters), name


def test_gunicorn_has_an_upper_bound() -> None:
    """A new minor version may change what is overridden: it comes with a look at the worker, not by itself."""
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    [bound] = [one.specifier for one in map(Requirement, project["dependencies"]) if one.name == "gunicorn"]
    installed = Version(version("gunicorn"))
    assert installed in bound
    assert f"{installed.major}.{installed.minor + 1}" not in bound
    assert f"{installed.major + 1}.0" not in bound
