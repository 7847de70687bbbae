"""Up, down and what lies between: the order of things, for the other modules to do."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flaskapp_deploy import programs, shell
from flaskapp_deploy.cluster import addons, cgroups, controlplane, egress, localcluster, network, node
from flaskapp_deploy.cluster.localcluster import GATEWAY, LocalCluster
from flaskapp_deploy.cluster.process import Process
from flaskapp_deploy.programs import packages
from flaskapp_deploy.shell import DeployError


@contextmanager
def _exclusive(name: str) -> Iterator[None]:
    """Let one command at a time change a cluster."""
    packages.require_root()
    localcluster.check_name(name)
    directory = localcluster.state_root()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with shell.locked(directory / f".{name}.lock", f"waiting for another command on instance {name}"):
        yield


def existing(name: str) -> LocalCluster:
    """Return the cluster of that name; where there is none, the error has the names of the others."""
    if cluster := localcluster.load(name):
        return cluster
    others = ", ".join(localcluster.names()) or "none"
    raise DeployError(
        f"there is no instance {name!r} (there are: {others}); make it with `deploy/flaskapp-deploy cluster up`"
    )


def up(name: str, nodes: int | None = None) -> LocalCluster:
    """Make what is missing (`nodes` at least), start what doesn't run, and wait until all is ready. Safe to repeat."""
    with _exclusive(name):
        to_open = egress.is_wanted()
        packages.ensure(packages.CLUSTER | packages.IMAGES)
        network.require_bridge_filter()
        binaries = programs.binaries("kubernetes")
        images = addons.images(binaries)
        cluster = localcluster.create(name)
        while len(cluster.nodes) < (nodes or 1):
            cluster.nodes.append(cluster.next_node())
        cluster.save()
        shell.say(f"cluster {name}: control plane at {cluster.server}")
        network.ensure(cluster)
        kept = [node.keep_image(cluster, archive, reference) for reference, archive in images.items()]
        controlplane.ensure(cluster, binaries)
        egress.ensure(cluster, to_open)
        _start_nodes(cluster, binaries)
        controlplane.wait(cluster)
        for one in cluster.nodes:
            for archive in kept:
                node.import_image(cluster, one, archive)
        addons.apply(cluster, images, partial(cluster.require, *controlplane.PROGRAMS, *cluster.nodes))
        return cluster


def down(name: str) -> bool:
    """Delete the cluster with its data; return whether there was one."""
    with _exclusive(name):
        cluster = localcluster.load(name)
        if cluster is None:
            return False
        for forwarder in cluster.run.glob("forward-*.json"):
            Process(forwarder).stop(grace=1)
        for one in (*cluster.nodes, GATEWAY):
            cluster.process(one).stop(grace=0)
        controlplane.stop(cluster)
        network.remove(cluster)
        for one in cluster.nodes:
            cgroups.remove(cluster.namespace(one))
        for directory in (cluster.run, cluster.state):
            shutil.rmtree(directory)
        _remove_if_empty(cluster.run.parent)
        # Mount points that nodes' own file systems covered. While another cluster runs they are mount points still,
        # and removing one would unmount it there.
        covered = [] if cluster.run.parent.exists() else [Path("/var/lib/cni"), Path("/run/containerd")]
        (localcluster.state_root() / f".{name}.lock").unlink()
        for directory in (*covered, localcluster.state_root()):
            _remove_if_empty(directory)
        return True


def add_node(name: str) -> str:
    """Add one node to a running cluster; return its name."""
    with _exclusive(name):
        cluster = existing(name)
        added = cluster.next_node()
        cluster.nodes.append(added)
        cluster.save()
        _start_nodes(cluster, programs.binaries("kubernetes"))
        return added


def stop_node(name: str, node_name: str) -> None:
    """End a node as a power cut would; `up` starts it again."""
    with _exclusive(name):
        cluster = _with_node(name, node_name)
        cluster.process(node_name).stop(grace=0)
        network.route(cluster, cluster.running_nodes())


def drain_node(name: str, node_name: str, seconds: int) -> None:
    """Move the pods of a node elsewhere, as PodDisruptionBudgets allow, and let no new ones in."""
    options = ["--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={seconds}s"]
    result = _with_node(name, node_name).admin().kubectl("drain", node_name, *options, check=False)
    if result.returncode:
        raise DeployError(f"{node_name} is not drained: {shell.reason(result)}")


def load_images(name: str, archives: dict[str, Path]) -> None:
    """Import images (reference -> docker-archive) into every node, and keep them for nodes to come."""
    with _exclusive(name):
        cluster = existing(name)
        for reference, archive in archives.items():
            kept = node.keep_image(cluster, archive, reference)
            for one in cluster.running_nodes():
                node.import_image(cluster, one, kept)


def name_image(name: str, reference: str, further: str) -> None:
    """Give an image that the nodes have a further name there."""
    cluster = existing(name)
    for one in cluster.running_nodes():
        shell.run(*node.ctr(cluster, one, "images", "tag", "--force", reference, further))


def forward(name: str, namespace: str, service: str, port: int | None = None) -> str:
    """Serve a Service's first port on 127.0.0.1 until `down`; return the URL.

    Without `port` it is the one that it has already, or the first free one from 8080 on.
    """
    cluster = existing(name)
    document = cluster.admin(namespace).kubectl("get", "service", service, "--output=json").stdout
    spec = json.loads(document)["spec"]
    process = cluster.process(f"forward-{namespace}-{service}")
    log = cluster.logs / f"forward-{namespace}-{service}.log"
    port = port or _port(process) or next(free for free in range(8080, 9080) if shell.is_free(free))
    listen = f"TCP4-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"
    target = f"TCP4:{spec['clusterIP']}:{spec['ports'][0]['port']},connect-timeout=5"
    if port != _port(process) and not shell.is_free(port):
        raise DeployError(f"port {port} on 127.0.0.1 is in use; choose another one with PORT=…")
    if process.ensure(["socat", listen, target], log):
        shell.wait_until(lambda: not shell.is_free(port), 5, f"port {port}", [log], lambda: process.pid is not None)
    return f"http://127.0.0.1:{port}"


def _port(forwarder: Process) -> int | None:
    """Return the port that a forwarder has."""
    if forwarder.pid is None:
        return None
    return int(forwarder.command[1].removeprefix("TCP4-LISTEN:").partition(",")[0])


def status(cluster: LocalCluster) -> dict[str, str]:
    """Return the state of each process: `running` or `stopped`, the control plane's first."""
    gateway = [GATEWAY] if cluster.process(GATEWAY).record.exists() else []
    parts = (*controlplane.PROGRAMS, *gateway, *cluster.nodes)
    return {part: "running" if cluster.runs(part) else "stopped" for part in parts}


def _start_nodes(cluster: LocalCluster, binaries: Path) -> None:
    began, ever = datetime.now(UTC), datetime.fromtimestamp(0, UTC)
    started = [one for one in cluster.nodes if node.ensure(cluster, one, binaries)]
    network.route(cluster, cluster.running_nodes())
    if started:
        shell.say(f"cluster {cluster.name}: starting {', '.join(started)}")
    for one in cluster.nodes:
        ready = partial(_is_ready, cluster, one, began if one in started else ever)
        runs = partial(cluster.require, *controlplane.PROGRAMS, one)
        shell.wait_until(ready, 120, f"node {one}", cluster.logs_of(one), runs)
        # Where it was drained before, it may take pods again.
        cluster.admin().kubectl("uncordon", one)


def _is_ready(cluster: LocalCluster, node_name: str, since: datetime) -> bool:
    """Return whether the node reported ready after `since`: what it reported before a crash still stands there."""
    fields = '--output=jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{end}'
    status, _, at = cluster.admin().kubectl("get", "node", node_name, fields, check=False).stdout.partition(" ")
    return status == "True" and datetime.fromisoformat(at) >= since.replace(microsecond=0)


def _with_node(name: str, node_name: str) -> LocalCluster:
    cluster = existing(name)
    if node_name not in cluster.nodes:
        raise DeployError(f"instance {name} has no node {node_name!r}; it has {', '.join(cluster.nodes)}")
    return cluster


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):  # it is not empty, or not there
        directory.rmdir()
