"""What the commands say when something is missing or the registry refuses: one line, the cause and the way out."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flaskapp_deploy.rehearsal.registry import Registry
from tests.deploy.release.steps import COMMIT, Run, built, docker_config, read, refused, write


def test_a_step_left_out(run: Run) -> None:
    for step in ("build", "scan", "push", "package", "verify", "release"):
        refused(run(step), "nothing of the step 'version': run `deploy/flaskapp-deploy version` first")


def test_steps_left_out_after_the_version(run: Run, checkout: Path, ecr: Registry) -> None:
    release = built(checkout, ecr.address, "left out")
    refused(run("package"), "nothing of the step 'push': run `deploy/flaskapp-deploy push` first")
    refused(run("scan", "--pushed"), "nothing of the step 'push'")
    refused(run("release"), "nothing of the step 'package'")
    write(checkout, {name: value for name, value in release.items() if name != "scan"})
    refused(run("push"), "nothing of the step 'scan'")


def test_uncommitted_changes(run: Run, checkout: Path) -> None:
    (checkout / "forgotten.py").touch()
    refused(run("version"), "forgotten.py", "commit or stash")


def test_variables(run: Run, checkout: Path, ecr: Registry) -> None:
    built(checkout, ecr.address, "variables")
    refused(run("build", REGISTRY=""), "REGISTRY is not set", "infra/codebuild.yaml")


def test_login(run: Run, checkout: Path, ecr: Registry, tmp_path: Path) -> None:
    built(checkout, ecr.address, "login")
    refused(run("push", DOCKER_CONFIG=str(tmp_path)), "log in")
    refused(run("push", DOCKER_CONFIG=str(docker_config(ecr, tmp_path / "expired", seconds=-1))), "log in again")


def test_repositories(run: Run, checkout: Path, ecr: Registry) -> None:
    release = built(checkout, ecr.address, "repositories")
    release["build"] |= {"repository": f"{ecr.address}/shop"}
    write(checkout, release)
    refused(run("push"), "create it first", "infra/ecr.yaml")


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


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "log in"),
        (403, "log in again"),
        (404, "create it first"),
        (429, "limits requests"),
        (500, "run it again"),
        (503, "run it again"),
    ],
)
def test_a_registry_that_answers(run: Run, checkout: Path, status: int, remedy: str) -> None:
    with answering(status) as address:
        built(checkout, address, "status")
        refused(run("push", REGISTRY=address), str(status), remedy)


def test_a_connection_that_breaks_amid_a_push(run: Run, checkout: Path, ecr: Registry) -> None:
    """The line is cut after a megabyte; what came is no image yet, and a second run completes it."""
    port = int(ecr.address.rpartition(":")[2])
    cutter = Cutter(port, after=2**20)
    content = "x" * 2**22
    built(checkout, f"127.0.0.1:{cutter.port}", content)
    config = checkout / "docker"
    docker_config(ecr, config)
    text = (config / "config.json").read_text()
    (config / "config.json").write_text(text.replace(ecr.address, f"127.0.0.1:{cutter.port}"))
    # Another tag than the other tests'.
    release = read(checkout)
    release["version"] = "1.1.0"
    write(checkout, release)
    refused(run("push", DOCKER_CONFIG=str(config)), "run it again")
    cutter.after = 2**40
    again = run("push", DOCKER_CONFIG=str(config))
    assert again.returncode == 0, again.stderr
    assert "pushed" in again.stderr
    cutter.listener.close()


def test_a_key_that_cannot_sign_leaves_no_tag(run: Run, checkout: Path, ecr: Registry) -> None:
    release = built(checkout, ecr.address, "key", COMMIT | {"version": "3.0.0"})
    refused(run("push", COSIGN_KEY=""), "COSIGN_KEY is not set")
    refused(run("push", COSIGN_PASSWORD="wrong"), "cosign sign failed", "COSIGN_PASSWORD")
    assert "image" not in read(checkout)
    result = run("push")
    assert result.returncode == 0, result.stderr
    assert "is there already" not in result.stderr
    assert read(checkout)["image"]["digest"] == release["build"]["digest"]


def test_a_digest_that_the_registry_does_not_have(run: Run, ecr: Registry, signing: Path) -> None:
    missing = f"{ecr.address}/charts/flaskapp@sha256:{'0' * 64}"
    refused(run("verify", missing, "--key", str(signing / "cosign.pub")), "carries no signature")


def test_a_login_to_the_cluster_that_has_ended(run: Run, checkout: Path, ecr: Registry, tmp_path: Path) -> None:
    packaged(checkout, built(checkout, ecr.address, "cluster"))
    with answering(401) as address:
        cluster = {"name": "c", "cluster": {"server": f"http://{address}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        user = {"name": "u", "user": {"token": "ended"}}
        kubeconfig = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}
        (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
        refused(run("release", KUBECONFIG=str(tmp_path / "kubeconfig")), "can't be reached", "update-kubeconfig")
    assert "outcome" not in read(checkout)


def test_no_cluster(run: Run, checkout: Path, ecr: Registry) -> None:
    packaged(checkout, built(checkout, ecr.address, "cluster"))
    refused(run("release"), "cluster can't be reached", "update-kubeconfig")
    assert "outcome" not in read(checkout)


def test_what_takes_seconds_is_looked_at_before_the_checks(run: Run, ecr: Registry, tmp_path: Path) -> None:
    wrong = [
        ({"REGISTRY": ""}, "REGISTRY is not set"),
        ({"CHART_REPOSITORY": "charts/shop"}, "end it in /flaskapp"),
        ({"COSIGN_KEY": ""}, "COSIGN_KEY is not set"),
        ({"IMAGE_REPOSITORY": "shop"}, "create it first"),
        ({"DOCKER_CONFIG": str(tmp_path)}, "log in"),
        ({}, "cluster can't be reached"),
    ]
    for variables, message in wrong:
        result = run("release-all", **variables)
        refused(result, "step preflight failed", message)
        assert "step check begins" not in result.stderr


def test_record_without_a_release_tells_nothing(run: Run) -> None:
    result = run("record")
    assert result.returncode == 0
    assert "nothing was released" in result.stderr


def packaged(checkout: Path, release: dict[str, Any]) -> None:
    """Leave what `push` and `package` leave."""
    chart = {"repository": "x", "digest": "sha256:0"}
    write(checkout, release | {"image": release["build"], "chart": chart})


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers everything but the registry's first question with this status."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v2/" else status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - named by the library

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


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
