"""Where `make up` goes: the cluster of KUBE_CONTEXT, kind where a Docker engine answers, else the local cluster."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import yaml

from flaskapp_deploy import programs, shell
from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.images import buildkit, image
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.programs import packages
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.shell import DeployError

KIND_CLUSTER = "flaskapp"
FORWARD_TIMEOUT = 10.0  # seconds


class Target(Protocol):
    """A cluster to install into."""

    description: str
    kubeconfig: Path | None
    context: str

    def up(self) -> None:
        """Make it ready, where it is not somebody's own."""

    def deliver(self, release: ReleaseConfig, wsgi: str) -> str:
        """Build the image and bring it to the nodes; return its reference."""

    def reach(self, namespace: str, service: str, port: int | None) -> str:
        """Return a URL on this machine that leads to the Service, or an empty one where none stays open."""

    def down(self, release: ReleaseConfig) -> str:
        """Remove what `make up` made; return a line that says so."""


def choose(context: str, instance: str) -> Target:
    """Return the first that is available: a named context, kind on a Docker engine, the local cluster."""
    if context:
        return Context(context)
    if _docker_answers():
        return Kind()
    packages.require_root()
    return Local(instance)


class Local:
    """The local cluster: no Docker engine needed."""

    context = ""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.description = f"the local cluster {instance!r} (no Docker engine answers)"
        self.kubeconfig: Path | None = None

    def up(self) -> None:
        """Start the cluster, or repair it; the programs that come after it are made meanwhile."""
        programs.prefetch(("images", "buildkitd"), ("images", "buildctl"), ("chart", "helm"))
        self.kubeconfig = lifecycle.up(self.instance).kubeconfig

    def deliver(self, release: ReleaseConfig, wsgi: str) -> str:
        """Build the image and import it into every node."""
        built = image.build_image(release.application, name=release.name, wsgi=wsgi)
        archives = {built.reference: built.archive}
        if database := image.postgres_archive():
            archives["public.ecr.aws/docker/library/postgres:18"] = database
        lifecycle.load_images(self.instance, archives)
        if release.is_ledger:
            # What the chart runs by default, so that plain `helm install` works here as well.
            version = yaml.safe_load((release.chart / "Chart.yaml").read_text())["appVersion"]
            lifecycle.name_image(self.instance, built.reference, f"localhost/{release.name}:{version}")
        return built.reference

    def reach(self, namespace: str, service: str, port: int | None) -> str:
        """Forward a port of this machine to the Service, for as long as the cluster runs."""
        return lifecycle.forward(self.instance, namespace, service, port)

    def down(self, release: ReleaseConfig) -> str:
        """Delete the cluster with its data."""
        if lifecycle.down(self.instance):
            return f"the local cluster {self.instance!r} is deleted, with its data"
        return f"there is no local cluster {self.instance!r}"


class Context:
    """An existing cluster of the user: only the release and its namespace are created there."""

    def __init__(self, context: str) -> None:
        self.context = context
        self.description = f"the cluster of the context {context!r}"
        self.kubeconfig: Path | None = None

    def up(self) -> None:
        """Check that the API server answers."""
        self._cluster("default").kubectl("version")

    def deliver(self, release: ReleaseConfig, wsgi: str) -> str:
        """Return IMAGE; for a kind cluster without it, build the image and load it."""
        if reference := os.environ.get("IMAGE"):
            return reference
        if self.context.startswith("kind-"):
            return _docker_build_and_load(release, wsgi, self.context.removeprefix("kind-"))
        raise DeployError(
            f"images can't be loaded into the nodes of {self.context!r}:"
            " push one and name it with IMAGE=registry/name:tag"
        )

    def reach(self, namespace: str, service: str, port: int | None) -> str:
        """Return nothing: `kubectl port-forward` lasts as long as its command."""
        return ""

    def down(self, release: ReleaseConfig) -> str:
        """Uninstall the release; the namespace and its data stay."""
        cluster = self._cluster(release.namespace)
        cluster.helm("uninstall", release.name, "--ignore-not-found", "--wait")
        cluster.kubectl("delete", "configmap", f"{release.name}-source", "--ignore-not-found")
        return (
            f"the release {release.name!r} is uninstalled; its data stays until you"
            f" `kubectl --context {self.context} delete namespace {release.namespace}`"
        )

    def _cluster(self, namespace: str) -> Cluster:
        return Cluster(None, self.context, namespace)


class Kind(Context):
    """kind, where a Docker engine answers: quicker than building Kubernetes. Not run by this repository's own tests."""

    def __init__(self) -> None:
        super().__init__(f"kind-{KIND_CLUSTER}")
        self.description = "kind (a Docker engine answers)"

    def up(self) -> None:
        """Create the kind cluster where there is none."""
        kind = _kind()
        if KIND_CLUSTER not in _run([kind, "get", "clusters"], "listing kind's clusters").split():
            shell.say("creating a kind cluster (about a minute)")
            _run([kind, "create", "cluster", "--name", KIND_CLUSTER, "--wait", "120s"], "creating the kind cluster")

    def down(self, release: ReleaseConfig) -> str:
        """Delete the kind cluster with its data."""
        _run([_kind(), "delete", "cluster", "--name", KIND_CLUSTER], "deleting the kind cluster")
        return "the kind cluster is deleted, with its data"


@contextmanager
def reachable(target: Target, namespace: str, service: str, port: int | None) -> Iterator[str]:
    """A URL that leads to the Service as long as the context lasts (longer where the target keeps it open)."""
    if url := target.reach(namespace, service, port):
        yield url
        return
    free = port or shell.free_port()
    kubectl = str(Cluster(None, target.context, namespace).program("kubectl", "kubernetes"))
    command = [kubectl, "--context", target.context, "--namespace", namespace]
    with tempfile.NamedTemporaryFile() as log:
        forward = subprocess.Popen(
            [*command, "port-forward", f"service/{service}", f"{free}:80"], stdout=log, stderr=log
        )
        try:
            what, logs = f"kubectl port-forward to {service}", [Path(log.name)]
            shell.wait_until(lambda: _accepts(free), FORWARD_TIMEOUT, what, logs, lambda: forward.poll() is None)
            yield f"http://127.0.0.1:{free}"
        finally:
            shell.stop(forward)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _docker_build_and_load(release: ReleaseConfig, wsgi: str, cluster: str) -> str:
    arguments = [f"--build-arg=WSGI={wsgi}", f"--label=org.opencontainers.image.title={release.name}"]
    command = ["docker", "build", "--progress=plain", *arguments, "--file=Dockerfile", str(release.application)]
    with tempfile.TemporaryDirectory(prefix="flaskapp-build-") as folder:
        file = Path(folder) / "digest"
        _run([*command, f"--iidfile={file}"], "building the image", buildkit.cause)
        digest = file.read_text().strip().removeprefix("sha256:")
    reference = f"localhost/{release.name}:{digest[:12]}"
    _run(["docker", "tag", digest, reference], "naming the image")
    _run([_kind(), "load", "docker-image", reference, "--name", cluster], "loading the image into kind")
    return reference


def _kind() -> str:
    return shutil.which("kind") or str(programs.program("kind", "kind"))


def _docker_answers() -> bool:
    return shutil.which("docker") is not None and shell.run("docker", "info", check=False).returncode == 0


def _run(command: list[str], what: str, cause: Callable[[str], str] | None = None) -> str:
    result = shell.run(*command, check=False)
    if result.returncode:
        raise DeployError(f"{what} failed: {cause(result.stderr) if cause else shell.reason(result)}")
    return result.stdout
