"""Base images out of a registry: what happens wherever one answers. Here the registry is on this machine."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flaskapp_deploy.images import baseimages, registry
from flaskapp_deploy.images.baseimages import DOCKERFILE, PYTHON
from flaskapp_deploy.images.buildkit import Builder
from flaskapp_deploy.images.image import build_image
from flaskapp_deploy.rehearsal.registry import distribution

TAG = "python:3.13-slim-trixie"


@pytest.fixture(scope="module")
def host(space: Path) -> Iterator[str]:
    (space / "registry").mkdir()
    with distribution(space / "registry") as address:
        yield address


def test_the_registrys_image_is_the_base(
    builder: Builder, host: str, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = baseimages.python(builder)
    if base.layout is None:
        pytest.skip("the registry answers: every other test builds this way")
    reference = f"{host}/{TAG}"
    assert registry.digest(reference) is None
    registry.digest.cache_clear()
    (space / "copy").mkdir()
    (space / "copy/Dockerfile").write_text(f"FROM {PYTHON}\n")
    pushed = builder.build(
        space / "copy", space / "pushed", what="pushing the base", bases={PYTHON: base.layout}, push=reference
    )
    assert registry.digest(reference) == pushed.digest

    monkeypatch.setattr(baseimages, "PYTHON", reference)
    hello = DOCKERFILE.parent / "examples/hello"
    built = build_image(hello, name="hello", output=space / "hello.tar", builder=builder)
    assert not built.base.stand_in
    assert built.base.digest == pushed.digest
    assert [digest for digest, _ in built.layers[:-3]] == [layer["digest"] for layer in pushed.layers]
    again = build_image(hello, name="hello", output=space / "hello.tar", fresh=True, builder=builder)
    assert again.digest == built.digest


def test_an_anonymous_token_is_fetched_where_asked_for() -> None:
    """As public registries do: a 401 that names where to get a token, and for what."""

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/token?service=here&scope=repository%3Alibrary%2Fpython%3Apull"
            body = json.dumps({"token": "anonymous"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            authorized = self.headers["Authorization"] == "Bearer anonymous"
            realm = f"http://127.0.0.1:{self.server.server_port}/token"  # type: ignore[attr-defined]
            challenge = f'Bearer realm="{realm}",service="here",scope="repository:library/python:pull"'
            self.send_response(200 if authorized else 401)
            self.send_header(*("Docker-Content-Digest", "sha256:1") if authorized else ("WWW-Authenticate", challenge))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert registry.digest(f"127.0.0.1:{server.server_port}/library/{TAG}") == "sha256:1"
        server.shutdown()


def test_no_registry(tmp_path: Path) -> None:
    assert registry.digest("127.0.0.1:1/library/python:3.13") is None
