"""Up, down and what lies between: the order of things, for the other modules to do."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flaskapp_deploy import programs, shell
from flaskapp_deploy.cluster import addons, cgroups, controlplane, instance, network, node
from flaskapp_deploy.cluster.instance import Instance
from flaskapp_deploy.cluster.process import Process
from flaskapp_deploy.programs import packages
from flaskapp_deploy.shell import DeployError, wait_until

DEFAULT = "default"


@contextmanager
def _exclusive(name: str) -> Iterator[None]:
    """One command at a time changes an instance."""
    packages.require_root()
    instance.check_name(name)
    directory = instance.state_root()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with shell.locked(directory / f".{name}.lock", f"waiting for another command on instance {name}"):
        yield


def existing(name: str) -> Instance:
    found = instance.load(name)
    if found is None:
        others = ", ".join(instance.names()) or "none"
        raise DeployError(
            f"there is no instance {name!r} (there are: {others}); make it with `deploy/flaskapp-deploy cluster up`"
        )
    return found


def up(name: str = DEFAULT, nodes: int | None = None) -> Instance:
    """Make what is missing, start what doesn't run, and wait until all of it is ready. Safe to repeat.

    Args:
        nodes: How many at least (default: as many as there are, or one).
    """
    with _exclusive(name):
        packages.ensure(packages.CLUSTER | packages.IMAGES)
        network.require_bridge_filter()
        binaries = programs.binaries("kubernetes")
        images = addons.images(binaries)
        cluster = instance.create(name)
        while len(cluster.nodes) < (nodes or 1):
            cluster.nodes.append(_next(cluster))
        cluster.save()
        shell.say(f"cluster {name}: control plane at {controlplane.server(cluster)}")
        network.ensure(cluster)
        network.route(cluster, [])
        kept = [node.keep_image(cluster, archive, reference) for reference, archive in images.items()]
        controlplane.ensure(cluster, binaries)
        _start_nodes(cluster, binaries)
        for one in cluster.nodes:
            for archive in kept:
                node.import_image(cluster, one, archive)
        addons.apply(cluster, binaries, images)
        return cluster


def down(name: str = DEFAULT) -> bool:
    """Remove every trace of the instance; return whether there was one."""
    with _exclusive(name):
        cluster = instance.load(name)
        if cluster is None:
            return False
        for forward in cluster.run.glob("forward-*.json"):
            Process(forward).stop(grace=1)
        for one in cluster.nodes:
            node.stop(cluster, one)
        controlplane.stop(cluster)
        network.remove(cluster)
        for one in cluster.nodes:
            cgroups.remove(cluster.cgroup(one))
        for directory in (cluster.run, cluster.state):
            shutil.rmtree(directory)
        _remove_if_empty(cluster.run.parent)
        # Mount points that nodes' own file systems covered. While another instance runs they are mount points still,
        # and removing one would unmount it there.
        if not cluster.run.parent.exists():
            for directory in (Path("/var/lib/cni"), Path("/run/containerd")):
                _remove_if_empty(directory)
        (instance.state_root() / f".{name}.lock").unlink()
        _remove_if_empty(instance.state_root())
        return True


def add_node(name: str) -> str:
    """Add one node to a running cluster; return its name."""
    with _exclusive(name):
        cluster = existing(name)
        added = _next(cluster)
        cluster.nodes.append(added)
        cluster.save()
        _start_nodes(cluster, programs.binaries("kubernetes"))
        return added


def stop_node(name: str, stopped: str) -> None:
    """End a node as a power cut would; `up` starts it again."""
    with _exclusive(name):
        cluster = existing(name)
        _check(cluster, stopped)
        node.stop(cluster, stopped)
        network.route(cluster, _running(cluster))


def drain_node(name: str, drained: str, seconds: int) -> None:
    """Move the pods of a node elsewhere, as PodDisruptionBudgets allow, and let no new ones in."""
    cluster = existing(name)
    _check(cluster, drained)
    options = ["--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={seconds}s"]
    result = subprocess.run(kubectl(cluster, "drain", drained, *options), capture_output=True, text=True)
    if result.returncode:
        raise DeployError(f"{drained} is not drained: {shell.reason(result)}")


def load_images(name: str, archives: dict[str, Path]) -> None:
    """Import images (reference -> docker-archive) into every node, and keep them for nodes to come."""
    with _exclusive(name):
        cluster = existing(name)
        for reference, archive in archives.items():
            kept = node.keep_image(cluster, archive, reference)
            for one in _running(cluster):
                node.import_image(cluster, one, kept)


def name_image(name: str, reference: str, further: str) -> None:
    """Give an image that the nodes have a further name there."""
    cluster = existing(name)
    for one in _running(cluster):
        command = node.ctr(cluster, one, "images", "tag", "--force", reference, further)
        subprocess.run(command, capture_output=True, check=True)


def forward(name: str, namespace: str, service: str, port: int | None = None) -> str:
    """Serve a Service's first port on 127.0.0.1 until `down`; return the URL.

    Args:
        port: Which one there (default: the one it has already, or the first free one from 8080 on).
    """
    cluster = existing(name)
    command = kubectl(cluster, "-n", namespace, "get", "service", service, "-o", "json")
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise DeployError(f"no Service {service} in namespace {namespace}: {result.stderr.strip()}")
    spec = json.loads(result.stdout)["spec"]
    process = Process(cluster.run / f"forward-{namespace}-{service}.json")
    log = cluster.logs / f"forward-{namespace}-{service}.log"
    port = port or _port(process) or next(free for free in range(8080, 9080) if not _listens(free))
    listen = f"TCP4-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"
    target = f"TCP4:{spec['clusterIP']}:{spec['ports'][0]['port']},connect-timeout=5"
    if process.ensure(["socat", listen, target], log):
        wait_until(lambda: _listens(port) or process.pid is None, 5, f"port {port}", [log])
        time.sleep(0.1)
        if process.pid is None:
            raise DeployError(f"port {port} on 127.0.0.1 is in use; choose another one with PORT=…")
    return f"http://127.0.0.1:{port}"


def _port(forwarder: Process) -> int | None:
    """The port that a forwarder has."""
    if forwarder.pid is None:
        return None
    listen = json.loads(forwarder.record.read_text())["command"][1]
    return int(listen.removeprefix("TCP4-LISTEN:").partition(",")[0])


def kubectl(cluster: Instance, *arguments: str) -> list[str]:
    return [str(programs.binaries("kubernetes") / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", *arguments]


def status(cluster: Instance) -> dict[str, str]:
    """State of each process: `running` or `stopped`, the control plane's first."""
    processes = {part: controlplane.process(cluster, part) for part in controlplane.PROGRAMS}
    processes |= {one: node.process(cluster, one) for one in cluster.nodes}
    return {part: "running" if process.pid else "stopped" for part, process in processes.items()}


def _start_nodes(cluster: Instance, binaries: Path) -> None:
    began = datetime.now(UTC)
    started = [one for one in cluster.nodes if node.ensure(cluster, one, binaries)]
    network.route(cluster, _running(cluster))
    if started:
        shell.say(f"cluster {cluster.name}: starting {', '.join(started)}")
    for one in cluster.nodes:
        since = began if one in started else datetime.fromtimestamp(0, UTC)
        runs = partial(_runs, cluster, one)
        wait_until(partial(_is_ready, cluster, one, since), 120, f"node {one}", node.logs(cluster, one), runs)
        # Where it was drained before, it may take pods again.
        subprocess.run(kubectl(cluster, "uncordon", one), capture_output=True, check=True)


def _is_ready(cluster: Instance, one: str, since: datetime) -> bool:
    """Whether the node is ready, and said so after `since`: what it said before a crash still stands there."""
    result = subprocess.run(kubectl(cluster, "get", "node", one, "--output=json"), capture_output=True, text=True)
    if result.returncode:
        return False
    return any(
        (condition["type"], condition["status"]) == ("Ready", "True")
        and datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since.replace(microsecond=0)
        for condition in json.loads(result.stdout)["status"].get("conditions", [])
    )


def _runs(cluster: Instance, one: str) -> bool:
    return node.process(cluster, one).pid is not None


def _running(cluster: Instance) -> list[str]:
    return [one for one in cluster.nodes if _runs(cluster, one)]


def _next(cluster: Instance) -> str:
    return f"n{max((int(one[1:]) for one in cluster.nodes), default=0) + 1}"


def _check(cluster: Instance, name: str) -> None:
    if name not in cluster.nodes:
        raise DeployError(f"instance {cluster.name} has no node {name!r}; it has {', '.join(cluster.nodes)}")


def _listens(port: int) -> bool:
    listening = subprocess.run(["ss", "-Hltn", f"src 127.0.0.1:{port}"], capture_output=True, text=True).stdout
    return bool(listening.strip())


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):  # it is not empty, or not there
        directory.rmdir()
