"""buildspec.yml run whole on a directory that is not ours, by release.toml alone: pushed once, rolled back, recorded.

The tests of this module follow each other on one release; each leaves it as the next one needs it.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.rehearsal import codebuild, rehearse
from flaskapp_deploy.rehearsal.rehearse import Cloud
from flaskapp_deploy.release import config, release
from flaskapp_deploy.resources import ROOT
from flaskapp_deploy.shell import DeployError

INSTANCE = os.environ.get("INSTANCE", "test")
RELEASE = """
application = "examples/hello"
name = "hello"
namespace = "pipeline-hello"
chart = "charts/flaskapp"
values = []
checks = ["python -m compileall -q examples/hello"]
environment = "staging"
release_values = ["environments/staging.yaml", "examples/hello/values.yaml"]
"""
# What only a cluster shows: the smoke test passes, and no pod gets ready.
BREAKS_IN_A_CLUSTER = (
    '\nimport os\nif "KUBERNETES_SERVICE_HOST" in os.environ:\n    raise SystemExit("not in a cluster")\n'
)


class Build:
    """What a build left: its end, its log, the runner's result and release.json."""

    def __init__(self, succeeded: bool, output: Path) -> None:
        self.succeeded, self.output = succeeded, output
        self.log = (output / "build.log").read_text()
        self.result: dict[str, Any] = json.loads((output / "result.json").read_text())

    @property
    def release(self) -> dict[str, Any]:
        return dict(json.loads((self.output / "artifacts/release.json").read_text()))

    @property
    def pushed(self) -> int:
        """How many images and charts it pushed."""
        return self.log.count("\npushed ")


class Repository:
    """A clone of this repository whose release.toml names another application."""

    def __init__(self, path: Path, cloud: Cloud) -> None:
        self.path, self.cloud, self.builds = path, cloud, 0

    def commit(self, file: str, text: str) -> str:
        (self.path / file).write_text(text)
        who = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *who, "commit", "--quiet", "-am", f"Change {file}"], cwd=self.path, check=True)
        result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=self.path, check=True, capture_output=True, text=True)
        return result.stdout.strip()

    def build(self, **variables: str) -> Build:
        """Build in a fresh clone, as CodeBuild does."""
        source, output = self.clone()
        return Build(rehearse.build(self.cloud, source, output, variables), output)

    def build_pull_request(self) -> Build:
        """Build as the other project does, which knows no registry and has no secret."""
        source, output = self.clone()
        return Build(codebuild.Build("buildspec-pr.yml", source, output, {}, {}).run(), output)

    def clone(self) -> tuple[Path, Path]:
        """A checkout, and a folder for what a build leaves."""
        self.builds += 1
        source, output = self.path.with_name(f"source-{self.builds}"), self.path.with_name(f"output-{self.builds}")
        subprocess.run(["git", "clone", "--quiet", str(self.path), str(source)], check=True)
        return source, output


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Ledger"]:
    made = Ledger(tmp_path_factory.mktemp("ledger"))
    yield made
    made.stop()


class Ledger:
    """The release ledger on this machine, which is away until `start`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = "t" * 43
        (home / "flaskapp").mkdir(mode=0o700)
        (home / "flaskapp/admin-token").write_text(self.token)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {
            "XDG_DATA_HOME": str(self.home),
            "PORT": str(self.port),
            "PYTHONPATH": f"{ROOT}/src:{ROOT}/deploy:{ROOT}",
        }
        with (self.home / "log").open("wb") as log:
            command = [sys.executable, "-m", "flaskapp_deploy", "run"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        for _ in range(300):
            try:
                if requests.get(f"{self.url}/readyz", timeout=2).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.2)
        pytest.fail((self.home / "log").read_text())

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(30)

    def deployments(self) -> list[dict[str, Any]]:
        """Oldest first."""
        items = requests.get(f"{self.url}/api/v1/deployments", timeout=5).json()["items"]
        return list(reversed(items))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, ledger: Ledger) -> Iterator[Cloud]:
    file = tmp_path_factory.mktemp("release") / "release.toml"
    file.write_text(
        RELEASE.replace('"examples', f'"{ROOT}/examples')
        .replace('"charts', f'"{ROOT}/charts')
        .replace('"environments', f'"{ROOT}/environments')
    )
    os.environ |= {"LEDGER_URL": ledger.url, "LEDGER_TOKEN": ledger.token}
    with rehearse.make_cloud(config.load(file), INSTANCE) as made:
        yield made
    if not os.environ.get("KEEP"):
        lifecycle.down(INSTANCE)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, cloud: Cloud) -> Repository:
    path = tmp_path_factory.mktemp("repository") / "repository"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(path)], check=True)
    made = Repository(path, cloud)
    made.commit("release.toml", RELEASE)
    return made


@pytest.fixture(scope="module")
def cluster(cloud: Cloud) -> Cluster:
    return Cluster(cloud.kubeconfig, "", cloud.config.namespace)


def images(cluster: Cluster) -> set[str]:
    """What the web pods run, but for those that are ending."""
    document = json.loads(cluster.kubectl("get", "pods", "-l", "app.kubernetes.io/component=web", "-o", "json").stdout)
    staying = [pod for pod in document["items"] if "deletionTimestamp" not in pod["metadata"]]
    return {pod["spec"]["containers"][0]["image"] for pod in staying}


@pytest.fixture(scope="module")
def first(repository: Repository) -> Build:
    return repository.build()


def test_a_commit_becomes_a_release_by_digest(first: Build, cluster: Cluster) -> None:
    assert first.succeeded, first.log[-3000:]
    image, chart = first.release["image"], first.release["chart"]
    assert images(cluster) == {f"{image['repository']}@{image['digest']}"}
    assert image["digest"].startswith("sha256:")
    assert chart["digest"].startswith("sha256:")
    assert first.release["outcome"]["status"] == "succeeded"
    assert {base["digest"][:7] for base in image["bases"]} == {"sha256:"}
    assert first.pushed == 2


def test_every_line_was_executed(first: Build) -> None:
    assert first.result["not_executed"] == []
    assert "linux/arm64 answers" in first.log
    assert "linux/amd64 answers" in first.log


def test_exported_variables_and_artifacts(first: Build) -> None:
    assert first.result["exported_variables"]["IMAGE_DIGEST"] == first.release["image"]["digest"]
    assert first.result["exported_variables"]["CHART_DIGEST"] == first.release["chart"]["digest"]
    names = {path.name for path in (first.output / "artifacts").rglob("*") if path.is_file()}
    assert {"release.json", "rendered.yaml", "scan.json", "provenance.json"} <= names
    assert any(name.endswith(".tgz") for name in names)
    assert sum(name.endswith(".cdx.json") for name in names) == 2


def test_what_could_not_be_reported_is_kept_and_reported_next_time(
    first: Build, repository: Repository, ledger: Ledger
) -> None:
    assert len(first.release["pending_records"]) == 1
    ledger.start()
    again = repository.build()
    assert again.succeeded, again.log[-3000:]
    assert again.pushed == 0
    assert again.release["image"]["digest"] == first.release["image"]["digest"]
    assert again.release["chart"]["digest"] == first.release["chart"]["digest"]
    assert again.release["pending_records"] == []
    reported = ledger.deployments()
    assert [item["status"] for item in reported] == ["succeeded", "succeeded"]
    assert {item["digest"] for item in reported} == {first.release["image"]["digest"]}
    assert {item["service"] for item in reported} == {"hello"}


def test_a_namespace_that_is_not_there(cloud: Cloud) -> None:
    with pytest.raises(DeployError, match=r"no right to release into the namespace 'not-there': is it there"):
        release.preflight(Cluster(cloud.kubeconfig, "", "not-there"))


def test_a_pull_request_is_built_and_scanned_and_nothing_is_pushed(repository: Repository) -> None:
    build = repository.build_pull_request()
    assert build.succeeded, build.log[-3000:]
    assert build.result["not_executed"] == []
    assert build.pushed == 0
    assert [line for line in build.log.splitlines() if line.startswith("step ") and line.endswith(" begins")] == [
        f"step {name} begins" for name in ("version", "check", "build", "scan")
    ]


def test_a_failing_check_publishes_nothing(repository: Repository, cluster: Cluster, ledger: Ledger) -> None:
    before = images(cluster)
    good = (repository.path / "release.toml").read_text()
    repository.commit("release.toml", good.replace("python -m compileall -q examples/hello", "echo no; false"))
    failed = repository.build()
    assert not failed.succeeded
    assert failed.pushed == 0
    assert "step check failed: the check `echo no; false` ended with 1" in failed.log
    assert "step record begins" in failed.log
    assert images(cluster) == before
    assert len(ledger.deployments()) == 2
    repository.commit("release.toml", good)


def test_an_image_that_fails_in_the_cluster_is_rolled_back_and_recorded(
    repository: Repository, cluster: Cluster, ledger: Ledger
) -> None:
    before = images(cluster)
    good = (repository.path / "examples/hello/app.py").read_text()
    repository.commit("examples/hello/app.py", good + BREAKS_IN_A_CLUSTER)
    failed = repository.build(RELEASE_TIMEOUT="45s")
    assert not failed.succeeded
    assert failed.release["outcome"]["status"] == "rolled_back"
    assert images(cluster) == before
    assert "not in a cluster" in (failed.output / "artifacts/diagnosis.txt").read_text()
    assert [item["status"] for item in ledger.deployments()] == ["succeeded", "succeeded", "rolled_back"]
    repository.commit("examples/hello/app.py", good)


def test_no_secret_is_in_a_log(cloud: Cloud, repository: Repository, ledger: Ledger) -> None:
    tokens = json.loads((cloud.registry.home / "tokens.json").read_text())
    secrets = [secret.encode() for secret in (ledger.token, *cloud.secrets.values(), *tokens)]
    for output in repository.path.parent.glob("output-*"):
        for path in output.rglob("*"):
            if path.is_file() and path.suffix != ".tgz":
                content = path.read_bytes()
                assert not [secret for secret in secrets if secret in content], path
