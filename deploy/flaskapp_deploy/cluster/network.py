"""Network namespaces and links of a cluster. The host gets one link and three routes, nothing else."""

import shutil
from ipaddress import IPv4Address
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.cluster.localcluster import GATEWAY, LocalCluster
from flaskapp_deploy.shell import DeployError

BRIDGE = "bridge"
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
# What Kubernetes expects of a node's network, whatever this machine's defaults are: packets between pods pass through
# kube-proxy's rules and may leave by another way than they came.
SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.conf.eth0.rp_filter=0",
    "net.bridge.bridge-nf-call-iptables=1",
    "net.bridge.bridge-nf-call-ip6tables=1",
)


def ip(*arguments: object, namespace: str = "", check: bool = True) -> bool:
    """Run `ip`, in a network namespace where one is named; return whether it succeeded."""
    inside = ["-n", namespace] if namespace else []
    return shell.run("ip", *inside, *map(str, arguments), check=check).returncode == 0


def require_bridge_filter() -> None:
    """Load the kernel module br_netfilter unless the kernel has it: Services need it on the node of their pods."""
    if BRIDGE_FILTER.exists():
        return
    reason = "modprobe is not installed (apt-get install kmod)"
    if shutil.which("modprobe"):
        stderr = shell.run("modprobe", "br_netfilter", check=False).stderr.strip()
        reason = stderr or "it was loaded, and this kernel still shows no /proc/sys/net/bridge"
    if not BRIDGE_FILTER.exists():
        raise DeployError(
            f"pods could not reach Services: the kernel module br_netfilter is missing ({reason})\n"
            "  run `modprobe br_netfilter` on the machine itself (in a container: on its host), or reboot if the kernel"
            " was upgraded"
        )


def ensure(cluster: LocalCluster) -> None:
    """Make the fabric (a bridge in a namespace of its own), and join the host and the control plane to it."""
    fabric = cluster.namespace("fabric")
    _ensure_namespace(fabric)
    if not ip("link", "show", BRIDGE, namespace=fabric, check=False):
        ip("link", "add", BRIDGE, "type", "bridge", namespace=fabric)
    ip("link", "set", BRIDGE, "up", namespace=fabric)
    _link(cluster, "host", cluster.host_address, cluster.host_link)
    join(cluster, "control", cluster.control_address)


def join(cluster: LocalCluster, part: str, address: IPv4Address) -> None:
    """Give a namespace, made where there is none, an `eth0` on the fabric."""
    _ensure_namespace(cluster.namespace(part))
    _link(cluster, part, address, "eth0", cluster.namespace(part))


def _link(cluster: LocalCluster, part: str, address: IPv4Address, link: str, namespace: str = "") -> None:
    """Join a namespace (default: the host's) to the fabric by a link with this name."""
    fabric = cluster.namespace("fabric")
    if not ip("link", "show", link, namespace=namespace, check=False):
        ip("link", "add", link, "type", "veth", "peer", "name", f"to-{part}", "netns", fabric, namespace=namespace)
    ip("link", "set", f"to-{part}", "master", BRIDGE, "up", namespace=fabric)
    ip("address", "replace", f"{address}/{cluster.fabric.prefixlen}", "dev", link, namespace=namespace)
    ip("link", "set", link, "up", namespace=namespace)


def join_router(cluster: LocalCluster, part: str, address: IPv4Address) -> None:
    """Join a namespace that forwards what others send, and set what Kubernetes expects of such a network."""
    join(cluster, part, address)
    command = ["ip", "netns", "exec", cluster.namespace(part), "sysctl", "-eqw", *SYSCTLS]
    result = shell.run(*command, check=False)
    if result.returncode:
        raise DeployError(f"{part} can't set what Kubernetes expects of its network: {shell.reason(result)}")


def join_node(cluster: LocalCluster, node: str) -> None:
    """Join a node to the fabric."""
    join_router(cluster, node, cluster.node_address(node))
    # A Service's address must have a route before kube-proxy can rewrite it.
    ip("route", "replace", cluster.services, "dev", "eth0", namespace=cluster.namespace(node))


def route(cluster: LocalCluster, running: list[str]) -> None:
    """Point everyone to each running node's pods, the host and control plane to Services, and nodes to the gateway."""
    gateway = [GATEWAY] if cluster.runs(GATEWAY) else []
    for part in ("host", "control", *gateway, *running):
        namespace = "" if part == "host" else cluster.namespace(part)
        for node in running:
            if node != part:
                via = ("via", cluster.node_address(node))
                ip("route", "replace", cluster.node_pods(node), *via, namespace=namespace)
        if running and part in ("host", "control"):
            ip("route", "replace", cluster.services, "via", cluster.node_address(running[0]), namespace=namespace)
        if gateway and part in running:
            ip("route", "replace", "default", "via", cluster.gateway_address, namespace=namespace)


def leave(cluster: LocalCluster, part: str) -> None:
    """Remove a namespace, and its link at the fabric's end: the other end lives as long as any process in there."""
    ip("link", "delete", f"to-{part}", namespace=cluster.namespace("fabric"), check=False)
    ip("netns", "delete", cluster.namespace(part), check=False)


def remove(cluster: LocalCluster) -> None:
    """Remove every namespace and link of the cluster."""
    for part in ("control", GATEWAY, *cluster.nodes, "fabric"):
        leave(cluster, part)
    ip("link", "delete", cluster.host_link, check=False)


def _ensure_namespace(namespace: str) -> None:
    # A namespace's file may have outlived the namespace (an unclean end); such a file answers nothing.
    if not ip("link", "show", "lo", namespace=namespace, check=False):
        ip("netns", "delete", namespace, check=False)
        ip("netns", "add", namespace)
    ip("link", "set", "lo", "up", namespace=namespace)
