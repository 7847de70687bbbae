"""What the commands say when something is missing or the registry refuses: one line, the cause and the way out."""

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import registry
from pipeline.config import ROOT
from pipeline.registry import Registry

Run = Callable[..., "subprocess.CompletedProcess[str]"]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry.serve(tmp_path_factory.mktemp("registry")) as running:
        running.create("flaskapp")
        running.create("charts/flaskapp", movable=())
        yield running


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The last commit, checked out."""
    command = ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", str(ROOT), str(tmp_path / "checkout")]
    subprocess.run(command, check=True)
    return tmp_path / "checkout"


@pytest.fixture
def run(checkout: Path, ecr: Registry, tmp_path: Path) -> Run:
    """Run a command of the pipeline there, logged in to the registry, and with no cluster."""

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {
            "REGISTRY": ecr.address,
            "IMAGE_REPOSITORY": "flaskapp",
            "CHART_REPOSITORY": "charts/flaskapp",
            "SSL_CERT_FILE": str(ecr.certificates),
            "DOCKER_CONFIG": str(ecr.docker_config(tmp_path / "docker")),
            "KUBECONFIG": str(tmp_path / "no-kubeconfig"),
        }
        environment |= variables
        command = [sys.executable, "-m", "pipeline", *arguments]
        return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120)

    return run


def built(checkout: Path, address: str, content: str) -> dict[str, object]:
    """Leave what `version` and `build` leave, with an image of one small layer."""
    folder = checkout / "build/release"
    blobs = folder / "image/blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    layer = blob(content.encode(), "application/vnd.oci.image.layer.v1.tar")
    config = blob(
        json.dumps({"architecture": "arm64", "os": "linux"}).encode(), "application/vnd.oci.image.config.v1+json"
    )
    image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    manifest = blob(json.dumps(image).encode(), MANIFEST)
    (folder / "image/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (folder / "image/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    known: dict[str, object] = {"version": "1.0.0", "chart_version": "1.0.0", "commit": "0" * 40, "committed_at": ""}
    repository = f"{address}/flaskapp"
    known["build"] = {
        "repository": repository,
        "tag": "1.0.0",
        "digest": manifest["digest"],
        "platforms": {},
        "bases": [],
    }
    (folder / "release.json").write_text(json.dumps(known))
    return known


def refused(done: "subprocess.CompletedProcess[str]", *said: str) -> None:
    """It failed, in one line that says this."""
    assert done.returncode != 0, done.stdout + done.stderr
    [line] = done.stderr.strip().splitlines()[-1:]
    assert line.startswith("Error: ")
    assert "Traceback" not in done.stderr
    for word in said:
        assert word in line, line


def test_a_step_left_out(run: Run) -> None:
    refused(run("push"), "run `python -m pipeline")
    refused(run("package"), "run `python -m pipeline")
    refused(run("release"), "run `python -m pipeline")


def test_uncommitted_changes(run: Run, checkout: Path) -> None:
    (checkout / "forgotten.py").touch()
    refused(run("version"), "forgotten.py", "commit or stash")


def test_variables(run: Run, checkout: Path, ecr: Registry) -> None:
    built(checkout, ecr.address, "variables")
    refused(run("build", REGISTRY=""), "REGISTRY is not set", "infra/codebuild.yaml")


def test_login(run: Run, checkout: Path, ecr: Registry, tmp_path: Path) -> None:
    built(checkout, ecr.address, "login")
    refused(run("push", DOCKER_CONFIG=str(tmp_path)), "log in")
    refused(run("push", DOCKER_CONFIG=str(ecr.docker_config(tmp_path / "expired", seconds=-1))), "log in again")


def test_repositories(run: Run, checkout: Path, ecr: Registry) -> None:
    known = built(checkout, ecr.address, "repositories")
    known["build"] |= {"repository": f"{ecr.address}/shop"}  # type: ignore[operator]
    (checkout / "build/release/release.json").write_text(json.dumps(known))
    refused(run("push"), "create the repository first", "infra/ecr.yaml")


def test_a_chart_that_is_not_called_like_its_repository(run: Run, checkout: Path, ecr: Registry) -> None:
    built(checkout, ecr.address, "chart")
    assert run("push").returncode == 0
    refused(run("package", CHART_REPOSITORY="charts/shop"), "charts/shop", "end it in /flaskapp")


def test_a_tag_does_not_move(run: Run, checkout: Path, ecr: Registry) -> None:
    built(checkout, ecr.address, "chart")  # the one of the test before, so it is there
    again = run("push")
    assert again.returncode == 0
    assert "nothing is pushed" in again.stderr
    built(checkout, ecr.address, "another")
    refused(run("push"), "immutable", "raise the version")


@pytest.mark.parametrize(("status", "said"), [(429, "limits requests"), (503, "run it again"), (403, "log in again")])
def test_a_registry_that_answers(run: Run, checkout: Path, status: int, said: str) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v2/" else status)
            self.end_headers()

        do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - named by the library

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        built(checkout, address, "status")
        refused(run("push", REGISTRY=address), str(status), said)
        server.shutdown()


def test_a_connection_that_breaks_amid_a_push(run: Run, checkout: Path, ecr: Registry) -> None:
    """The line is cut after a megabyte; what came is no image yet, and a second run completes it."""
    port = int(ecr.address.rpartition(":")[2])
    cutter = Cutter(port, after=2**20)
    content = "x" * 2**22
    built(checkout, f"127.0.0.1:{cutter.port}", content)
    config = checkout / "docker"
    ecr.docker_config(config)
    text = (config / "config.json").read_text()
    (config / "config.json").write_text(text.replace(ecr.address, f"127.0.0.1:{cutter.port}"))
    # Another tag than the other tests'.
    known = json.loads((checkout / "build/release/release.json").read_text())
    known["build"]["tag"] = "1.1.0"
    (checkout / "build/release/release.json").write_text(json.dumps(known))
    refused(run("push", DOCKER_CONFIG=str(config)), "run it again")
    cutter.after = 2**40
    again = run("push", DOCKER_CONFIG=str(config))
    assert again.returncode == 0, again.stderr
    assert "pushed" in again.stderr
    cutter.listener.close()


def test_no_cluster(run: Run, checkout: Path, ecr: Registry) -> None:
    known = built(checkout, ecr.address, "cluster")
    known |= {"image": known["build"], "chart": {"reference": "x", "version": "1.0.0"}}
    (checkout / "build/release/release.json").write_text(json.dumps(known))
    refused(run("release"), "cluster can't be reached", "update-kubeconfig")
    assert "outcome" not in json.loads((checkout / "build/release/release.json").read_text())


def test_record_without_a_release_tells_nothing(run: Run) -> None:
    done = run("record")
    assert done.returncode == 0
    assert "nothing was released" in done.stderr


class Cutter:
    """A TCP proxy that cuts each connection after so many bytes to the server."""

    def __init__(self, target: int, after: int) -> None:
        self.target, self.after = target, after
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, sink, limited in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, limited), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, limited: bool) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                passed += len(data)
                if limited and passed > self.after:
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()
