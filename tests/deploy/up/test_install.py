"""The first requests after an installation: what is transient is retried, and what isn't is one line."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import DeployError
from flaskapp_deploy.up import install


@contextmanager
def server(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """A server that answers with these statuses, the last one for ever; its URL and the keys that it was sent."""
    remaining, keys = list(statuses), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(remaining.pop(0) if len(remaining) > 1 else remaining[0])
            self.end_headers()
            self.wfile.write(b"well")

        def do_GET(self) -> None:
            self.send_response(remaining.pop(0) if len(remaining) > 1 else remaining[0])
            self.end_headers()
            keys.append(self.path)
            self.wfile.write(b"well")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/api", keys
        finally:
            listening.shutdown()
            thread.join()


def test_a_busy_database_is_asked_again_with_the_same_key() -> None:
    with server(503, 409, 200) as (url, keys):
        assert install.fetch(url, {"a": 1}) == b"well"
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_refusal_is_one_line() -> None:
    with server(401) as (url, keys), pytest.raises(DeployError) as error:
        install.fetch(url, {"a": 1})
    assert error.value.message == f"{url} answered 401: well"
    assert len(keys) == 1


class Fake(Cluster):
    """A cluster whose Deployment has this readiness probe."""

    def __init__(self, **probe: Any) -> None:
        super().__init__(None, "", "shop")
        container = {"readinessProbe": probe} if probe else {}
        self.deployment = {"spec": {"template": {"spec": {"containers": [container]}}}}

    def kubectl(self, *_: str, **__: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess([], 0, json.dumps(self.deployment), "")


TCP: dict[str, Any] = {"tcpSocket": {"port": "http"}}


@pytest.mark.parametrize(
    ("probe", "status", "message"),
    [
        (TCP, 200, "GET /: well"),
        ({}, 200, "GET /: well"),
        (TCP, 302, "GET /: 302 Found"),
        (TCP, 401, "GET /: 401 Unauthorized"),
        (TCP, 404, "GET /: 404 Not Found"),
        ({"httpGet": {"path": "/healthz"}}, 200, "GET /healthz: well"),
    ],
)
def test_the_first_request(capfd: pytest.CaptureFixture[str], probe: dict[str, Any], status: int, message: str) -> None:
    """Goes to the path of the probe, or to `/`, where the application may have no page."""
    with server(status) as (url, _):
        root = url.removesuffix("/api")
        [line] = install.request(root, Fake(**probe), "shop")
    assert message in capfd.readouterr().err
    assert line == f"curl -s {root}{message.split()[1].rstrip(':')}"


@pytest.mark.parametrize(("probe", "status"), [(TCP, 500), ({"httpGet": {"path": "/healthz"}}, 404)])
def test_a_first_request_that_fails(probe: dict[str, Any], status: int) -> None:
    with server(status) as (url, _), pytest.raises(DeployError, match=f"answered {status}: well"):
        install.request(url.removesuffix("/api"), Fake(**probe), "shop")
