"""A cluster on this machine: its name, its folders and the addresses that follow from its name."""

import json
import os
import re
import zlib
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.cluster.process import Process
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import DeployError

# Each cluster owns one /16 of 10.128.0.0/10; LocalCluster lays out the addresses inside it.
SLOTS = range(64)
API_PORT = 6443
GATEWAY = "gateway"  # the namespace, and the process, of the way out


class LocalCluster:
    """One cluster of this machine, with the names of its nodes."""

    def __init__(self, name: str, slot: int, nodes: Sequence[str] = ()) -> None:
        self.name, self.slot, self.nodes = name, slot, list(nodes)
        self.state = state_root() / name  # what outlives a reboot; each node has imported the archives in `images`
        self.logs, self.images, self.kubeconfig = (self.state / part for part in ("logs", "images", "kubeconfig"))
        self.run = Path("/run/flaskapp") / name  # short: a Unix socket's path may have 107 characters at most
        self.network = IPv4Network(f"10.{128 + slot}.0.0/16")
        self.fabric = IPv4Network(f"{self.network[0]}/24")  # nodes, the control plane and the host's own port
        self.pods = IPv4Network(f"{self.network[64 * 256]}/18")
        self.services = IPv4Network(f"{self.network[128 * 256]}/20")
        self.outside = IPv4Network(f"{self.network[192 * 256]}/24")  # as slirp4netns lays it out
        self.host_address, self.gateway_address, self.control_address = (self.fabric[number] for number in (1, 2, 10))
        self.host_loopback, self.resolver = self.outside[2], self.outside[3]
        self.dns_address = self.services[10]
        self.host_link = f"flaskapp{slot}"
        self.server = f"https://{self.control_address}:{API_PORT}"

    def node_address(self, node: str) -> IPv4Address:
        """Return a node's address on the fabric."""
        return self.fabric[20 + _number(node)]

    def node_pods(self, node: str) -> IPv4Network:
        """Return the addresses of a node's pods."""
        return list(self.pods.subnets(new_prefix=24))[_number(node)]

    def namespace(self, part: str) -> str:
        """Return the name of the network namespace and the control group of a node, or of another part."""
        return f"flaskapp-{self.name}-{part}"

    def process(self, part: str) -> Process:
        """Return the process of a node, or of a program of the control plane."""
        return Process(self.run / f"{part}.json")

    def runs(self, part: str) -> bool:
        """Return whether a node, or a program of the control plane, runs."""
        return self.process(part).pid is not None

    def logs_of(self, part: str) -> list[Path]:
        """Return the logs of a part; where it doesn't start, the first that has lines tells why."""
        if part not in self.nodes:
            return [self.logs / f"{part}.log"]
        home = self.state / "nodes" / part
        return [home / "init.log", *(home / f"log/{name}.log" for name in ("kubelet", "containerd", "kube-proxy"))]

    def require(self, *parts: str) -> bool:
        """Return true while all of these run; the error has the last lines of one that has ended."""
        for part in parts:
            if not self.runs(part):
                what = f"node {part}" if part in self.nodes else part
                raise DeployError(f"{what} ended while starting{shell.last_lines(self.logs_of(part))}")
        return True

    def running_nodes(self) -> list[str]:
        """Return the names of the nodes that run."""
        return list(filter(self.runs, self.nodes))

    def next_node(self) -> str:
        """Return the name of the next node to be added."""
        return f"n{max(map(_number, self.nodes), default=0) + 1}"

    def admin(self, namespace: str = "") -> Cluster:
        """Return kubectl and helm with the administrator's rights; without a namespace, objects name their own."""
        return Cluster(self.kubeconfig, "", namespace)

    def save(self) -> None:
        """Record the cluster, so that `load` finds it."""
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = json.dumps({"slot": self.slot, "nodes": self.nodes}, indent=2) + "\n"
        shell.write_atomic(self.state / "instance.json", document)


def state_root() -> Path:
    """Return where clusters live: `${XDG_STATE_HOME:-~/.local/state}/flaskapp/clusters`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "flaskapp/clusters"


def names() -> list[str]:
    """Return the names of this machine's clusters."""
    return sorted(path.parent.name for path in state_root().glob("*/instance.json"))


def check_name(name: str) -> None:
    """Refuse a name that could not be part of a namespace's, a control group's and a file's name."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?", name):
        raise DeployError(f"instance name {name!r}: use up to 20 of a-z, 0-9 and -, beginning with a letter")


def load(name: str) -> LocalCluster | None:
    """Return the cluster of that name, or None where there is none."""
    path = state_root() / name / "instance.json"
    return LocalCluster(name, **json.loads(path.read_text())) if path.exists() else None


def create(name: str) -> LocalCluster:
    """Return the cluster of that name, made with a free range of addresses where there is none yet."""
    if existing := load(name):
        return existing
    taken = {other.slot for other in map(load, names()) if other}
    routed = [route["dst"] for route in json.loads(shell.run("ip", "-j", "-4", "route").stdout or "[]")]
    routes = [IPv4Network(destination) for destination in routed if destination != "default"]
    first = zlib.crc32(name.encode()) % len(SLOTS)
    for slot in (*SLOTS[first:], *SLOTS[:first]):
        cluster = LocalCluster(name, slot)
        if slot not in taken and not any(cluster.network.overlaps(route) for route in routes):
            cluster.save()
            return cluster
    raise DeployError("no free address range in 10.128.0.0/10: remove an instance by `flaskapp-deploy cluster down`")


def _number(node: str) -> int:
    return int(node.removeprefix("n"))
