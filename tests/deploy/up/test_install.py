"""The first requests after an installation: what is transient is retried, and what isn't is one line."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

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
