"""Where `make up` goes: the cluster of KUBE_CONTEXT, kind where a Docker engine answers, else the local cluster."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from flaskapp_deploy import machine, programs, shell
from flaskapp_deploy.cluster import lifecycle, localcluster
from flaskapp_deploy.cluster.process import Process
from flaskapp_deploy.images import baseimages, buildkit, image
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.shell import DeployError

KIND_CLUSTER = "flaskapp"
FORWARD_TIMEOUT = 10.0  # seconds


class Local:
    """The local cluster: no Docker engine needed."""

    is_ours = True

    def __init__(self, instance: str, reason: str) -> None:
        self.instance = instance
        self.description = f"the local cluster {instance!r} ({reason})"

    def up(self) -> None:
        """Start the cluster, or repair it; what is needed after that is made meanwhile."""
        threading.Thread(target=_prepare, daemon=True).start()
        lifecycle.up(self.instance)

    def cluster(self, namespace: str) -> Cluster:
        """The cluster, which must exist, with the administrator's rights."""
        return lifecycle.existing(self.instance).admin(namespace)

    def deliver(self, release: ReleaseConfig, wsgi: str) -> str:
        """Build the image and import it into every node; return its reference."""
        built = image.build_image(release.application, name=release.name, wsgi=wsgi)
        lifecycle.load_images(self.instance, {built.reference: built.archive} | image.chart_archives())
        if release.is_ledger:
            # The name that `make manifests` writes.
            version = yaml.safe_load((release.chart / "Chart.yaml").read_text())["appVersion"]
            lifecycle.name_image(self.instance, built.reference, f"localhost/flaskapp:{version}")
        return built.reference

    @contextmanager
    def reach(self, cluster: Cluster, service: str, port: int | None) -> Iterator[str]:
        """A URL that leads to the Service for as long as the cluster runs."""
        yield lifecycle.forward(self.instance, cluster.namespace, service, port)

    def service_at(self, port: int) -> str:
        """The namespace and name of the Service that a port of this machine leads to; empty where it is not ours."""
        local = localcluster.load(self.instance)
        for record in local.run.glob("forward-*.json") if local else ():
            process = Process(record)
            if process.pid and f"TCP4-LISTEN:{port}," in process.command[1]:
                return record.stem.removeprefix("forward-")
        return ""

    def close(self, cluster: Cluster) -> None:
        """End the forwarders to the Services of a namespace."""
        for service in cluster.objects("services"):
            name = f"forward-{cluster.namespace}-{service['metadata']['name']}"
            lifecycle.existing(self.instance).process(name).stop(grace=1)

    def delete(self) -> str:
        """Delete the cluster with its data; return a line that says so."""
        if lifecycle.down(self.instance):
            return f"the local cluster {self.instance!r} is deleted, with its data"
        return f"there is no local cluster {self.instance!r}"


class Context:
    """An existing cluster of the user: only the release and its namespace are created there."""

    is_ours = False

    def __init__(self, context: str) -> None:
        self.context = context
        self.description = f"the cluster of the context {context!r}"

    def up(self) -> None:
        """Check that the API server answers."""
        self.cluster("default").kubectl("version")

    def cluster(self, namespace: str) -> Cluster:
        """The cluster, with the rights that the user's kubeconfig gives."""
        return Cluster(None, self.context, namespace)

    def deliver(self, release: ReleaseConfig, wsgi: str) -> str:
        """Return IMAGE; for a kind cluster without it, build the image and load it."""
        self.check_image()
        reference = os.environ.get("IMAGE")
        return reference or _docker_build_and_load(release, wsgi, self.context.removeprefix("kind-"))

    def check_image(self) -> None:
        """Fail where the image can't come to the nodes."""
        if not os.environ.get("IMAGE") and not self.context.startswith("kind-"):
            raise DeployError(
                f"images can't be loaded into the nodes of {self.context!r}:"
                " push one and name it with IMAGE=registry/name:tag"
            )

    def close(self, cluster: Cluster) -> None:
        """Nothing is open: forwarding ends with its command."""

    @contextmanager
    def reach(self, cluster: Cluster, service: str, port: int | None) -> Iterator[str]:
        """A URL that leads to the Service as long as the context lasts."""
        port = port or shell.free_port()
        command = [str(cluster.program("kubectl", "kubernetes")), "port-forward", f"service/{service}", f"{port}:http"]
        words = [f"--context={self.context}", f"--namespace={cluster.namespace}"]
        with tempfile.NamedTemporaryFile() as file:
            forward, log = subprocess.Popen([*command, *words], stdout=file, stderr=file), Path(file.name)
            try:
                shell.wait_until(
                    lambda: "Forwarding from" in log.read_text(),
                    FORWARD_TIMEOUT,
                    f"kubectl port-forward to {service}",
                    [log],
                    lambda: forward.poll() is None,
                )
                yield f"http://127.0.0.1:{port}"
            finally:
                shell.stop(forward)


class Kind(Context):
    """kind, where a Docker engine answers: quicker than building Kubernetes. Not run by this repository's own tests."""

    is_ours = True

    def __init__(self) -> None:
        super().__init__(f"kind-{KIND_CLUSTER}")
        self.description = "kind (a Docker engine answers)"

    def up(self) -> None:
        """Create the kind cluster where there is none."""
        if KIND_CLUSTER not in _kind("get", "clusters").split():
            shell.say("creating a kind cluster (about a minute)")
            _kind("create", "cluster", "--name", KIND_CLUSTER, "--wait", "120s")

    def delete(self) -> str:
        """Delete the kind cluster with its data; return a line that says so."""
        _kind("delete", "cluster", "--name", KIND_CLUSTER)
        return "the kind cluster is deleted, with its data"


Target = Local | Context


def choose(context: str, instance: str) -> Target:
    """Return the first that is available: a named context, kind on a Docker engine, the local cluster."""
    if context:
        names = contexts()
        if context not in names:
            listed = ", ".join(names) or "none"
            meant = machine.did_you_mean(context, names)
            raise DeployError(f"KUBE_CONTEXT={context} is not in your kubeconfig{meant}\n  the contexts are: {listed}")
        return Context(context)
    docker = machine.docker_problem()
    if not docker:
        return Kind()
    if problem := machine.local_cluster_problem(docker):
        raise DeployError(problem)
    return Local(instance, docker)


def contexts() -> list[str]:
    """The names of the contexts in the user's kubeconfig."""
    files = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
    names: list[str] = []
    for file in map(Path, filter(None, files.split(os.pathsep))):
        try:
            document = yaml.safe_load(file.read_text()) if file.is_file() else None
        except yaml.YAMLError as error:
            raise DeployError(f"the kubeconfig {file} is not YAML: {' '.join(str(error).split())}") from None
        names += [str(context["name"]) for context in (document or {}).get("contexts") or []]
    return list(dict.fromkeys(names))


def _docker_build_and_load(release: ReleaseConfig, wsgi: str, cluster: str) -> str:
    arguments = [f"--build-arg=WSGI={wsgi}", f"--label=org.opencontainers.image.title={release.name}"]
    with tempfile.NamedTemporaryFile(prefix="flaskapp-digest-") as file:
        command = ["docker", "build", "--progress=plain", *arguments, "--file=Dockerfile", f"--iidfile={file.name}"]
        result = shell.run(*command, release.application, check=False)
        digest = Path(file.name).read_text().strip().removeprefix("sha256:")
    if result.returncode:
        raise DeployError(f"building the image failed: {buildkit.cause(result.stderr)}")
    reference = f"localhost/{release.name}:{digest[:12]}"
    shell.run("docker", "tag", digest, reference)
    _kind("load", "docker-image", reference, "--name", cluster)
    return reference


def _prepare() -> None:
    """Make the image builder, the images' base and helm; whoever needs them waits for that, and has its errors."""
    with suppress(DeployError):
        with buildkit.daemon() as builder:
            baseimages.python(builder)
        programs.program("chart", "helm")


def _kind(*words: str) -> str:
    return shell.run(shutil.which("kind") or programs.program("kind", "kind"), *words).stdout
