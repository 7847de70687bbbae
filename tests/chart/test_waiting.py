"""The commands with which pods wait for the database, its schema or the Service."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chart.render import WITHOUT_CLUSTER, merged, one, render


@pytest.fixture(scope="module")
def waiting() -> list[str]:
    """Return the init container's command, up to the one that it repeats."""
    deployment: dict[str, Any] = one(render("flaskapp", WITHOUT_CLUSTER), "Deployment")
    command = deployment["spec"]["template"]["spec"]["initContainers"][0]["command"]
    assert command[3:] == ["python", "-m", "flaskapp", "db", "wait"]
    return [sys.executable, *command[1:3]]


def test_a_check_is_repeated_until_it_succeeds(waiting: list[str], tmp_path: Path) -> None:
    flag = tmp_path / "schema"
    with subprocess.Popen([*waiting, "test", "-e", str(flag)]) as process:
        time.sleep(1)
        assert process.poll() is None
        flag.touch()
        assert process.wait(timeout=10) == 0


def test_a_pod_that_waits_ends_at_once(waiting: list[str], tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with subprocess.Popen([*waiting, "sh", "-c", f"touch {flag}; exit 1"]) as process:
        while not flag.exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=2) == 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def waiting_for_port() -> list[str]:
    """Return the init container's command, up to the host and the port."""
    values = merged(WITHOUT_CLUSTER, {"migrations": {"mode": "none"}})
    spec = one(render("flaskapp", values), "Deployment")["spec"]["template"]["spec"]
    command = spec["initContainers"][0]["command"]
    assert command[3:] == ["web-postgresql", "5432"]
    return [sys.executable, *command[1:3]]


def test_a_pod_waits_for_the_port(waiting_for_port: list[str]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        host, port = server.getsockname()
        with subprocess.Popen([*waiting_for_port, host, str(port)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"waiting for the database at {host}:{port}: ")
            server.listen()
            assert process.wait(timeout=10) == 0


def test_a_pod_that_waits_for_the_port_ends_at_once(waiting_for_port: list[str]) -> None:
    with subprocess.Popen([*waiting_for_port, "127.0.0.1", "1"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 128 + signal.SIGTERM


def test_the_test_of_a_release_waits_for_the_service() -> None:
    """A node learns of a new Service some seconds after the pods are ready."""
    pod = one(render("flaskapp", WITHOUT_CLUSTER), "Pod", "test-http")
    python, *command, url = pod["spec"]["containers"][0]["command"]
    assert (python, url) == ("python", "http://web-flaskapp:80/readyz")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        url = "http://{}:{}/readyz".format(*server.getsockname())
        with subprocess.Popen([sys.executable, *command, url], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "Connection refused" in process.stdout.readline()
            server.listen()
            asking, _ = server.accept()
            asking.recv(4096)
            asking.sendall(b"HTTP/1.0 200 OK\r\n\r\nready")
            asking.close()
            assert process.wait(timeout=10) == 0
