"""An instance of the local cluster: its name, its folders and the addresses that follow from its name."""

import json
import os
import re
import subprocess
import zlib
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from flaskapp_deploy.shell import DeployError, write_atomic

# Each instance owns one /16 of these; addresses inside it are laid out by the properties below.
SLOTS = range(64)
FIRST_OCTET, FIRST_SLOT = 10, 128


def state_root() -> Path:
    """Where instances live: `${XDG_STATE_HOME:-~/.local/state}/flaskapp/clusters`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "flaskapp/clusters"


def names() -> list[str]:
    return sorted(path.parent.name for path in state_root().glob("*/instance.json"))


@dataclass
class Instance:
    """One cluster. `state` outlives a reboot (etcd, volumes, certificates); `run` holds sockets and process ids."""

    name: str
    slot: int
    nodes: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return state_root() / self.name

    @property
    def run(self) -> Path:
        # Short, because a Unix socket's path may have 107 characters at most.
        return Path("/run/flaskapp") / self.name

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def network(self) -> IPv4Network:
        return IPv4Network(f"{FIRST_OCTET}.{FIRST_SLOT + self.slot}.0.0/16")

    @property
    def fabric(self) -> IPv4Network:
        """Nodes, the control plane and the host's own port."""
        return IPv4Network(f"{self.network[0]}/24")

    @property
    def pods(self) -> IPv4Network:
        return IPv4Network(f"{self.network[64 * 256]}/18")

    @property
    def services(self) -> IPv4Network:
        return IPv4Network(f"{self.network[128 * 256]}/20")

    @property
    def host_address(self) -> IPv4Address:
        return self.fabric[1]

    @property
    def control_address(self) -> IPv4Address:
        return self.fabric[10]

    @property
    def dns_address(self) -> IPv4Address:
        return self.services[10]

    def node_address(self, node: str) -> IPv4Address:
        return self.fabric[20 + _index(node)]

    def node_pods(self, node: str) -> IPv4Network:
        return list(self.pods.subnets(new_prefix=24))[_index(node)]

    def namespace(self, part: str) -> str:
        """Name of a network namespace: `fabric`, `control` or a node."""
        return f"flaskapp-{self.name}-{part}"

    def cgroup(self, node: str) -> str:
        return f"flaskapp-{self.name}-{node}"

    @property
    def host_link(self) -> str:
        return f"flaskapp{self.slot}"

    def save(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = json.dumps({"slot": self.slot, "nodes": self.nodes}, indent=2) + "\n"
        write_atomic(self.state / "instance.json", document)


def check_name(name: str) -> None:
    """Refuse a name that could not be part of a namespace's, a control group's and a file's name."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?", name):
        raise DeployError(f"instance name {name!r}: use up to 20 of a-z, 0-9 and -, beginning with a letter")


def load(name: str) -> Instance | None:
    """The instance of that name, or None where there is none."""
    path = state_root() / name / "instance.json"
    return Instance(name, **json.loads(path.read_text())) if path.exists() else None


def create(name: str) -> Instance:
    """The instance of that name, made with a free range of addresses where there is none yet."""
    if existing := load(name):
        return existing
    taken = {other.slot for other in map(load, names()) if other}
    routes = _routes()
    wanted = zlib.crc32(name.encode()) % len(SLOTS)
    for slot in (*SLOTS[wanted:], *SLOTS[:wanted]):
        instance = Instance(name, slot)
        if slot not in taken and not any(instance.network.overlaps(route) for route in routes):
            instance.save()
            return instance
    raise DeployError("no free address range in 10.128.0.0/10: remove an instance by `flaskapp-deploy cluster down`")


def _index(node: str) -> int:
    return int(node.removeprefix("n"))


def _routes() -> list[IPv4Network]:
    """What this machine already routes somewhere, the default route aside."""
    listed = subprocess.run(["ip", "-j", "-4", "route"], capture_output=True, text=True, check=True).stdout
    return [IPv4Network(route["dst"]) for route in json.loads(listed or "[]") if route["dst"] != "default"]
