"""Network namespaces and links of an instance. The host gets one link and three routes, nothing else."""

import shutil
import subprocess
from pathlib import Path

from flaskapp_deploy.cluster.instance import Instance
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


def ip(*arguments: object, namespace: str | None = None, check: bool = True) -> bool:
    """Run `ip`, in a namespace where one is named; return whether it succeeded."""
    inside = ["-n", namespace] if namespace else []
    result = subprocess.run(["ip", *inside, *map(str, arguments)], capture_output=True, text=True)
    if check and result.returncode:
        raise subprocess.CalledProcessError(result.returncode, result.args, result.stdout, result.stderr)
    return result.returncode == 0


def require_bridge_filter() -> None:
    """Load the kernel module br_netfilter unless the kernel has it.

    Raises:
        DeployError: it can't be loaded; without it no pod reaches a Service whose pod runs on the same node.
    """
    if BRIDGE_FILTER.exists():
        return
    reason = "modprobe is not installed (apt-get install kmod)"
    if shutil.which("modprobe"):
        result = subprocess.run(["modprobe", "br_netfilter"], capture_output=True, text=True)
        reason = result.stderr.strip() or "it was loaded, and this kernel still shows no /proc/sys/net/bridge"
    if not BRIDGE_FILTER.exists():
        raise DeployError(
            f"pods could not reach Services: the kernel module br_netfilter is missing ({reason})\n"
            "  run `modprobe br_netfilter` on the machine itself (in a container: on its host), or reboot if the kernel"
            " was upgraded"
        )


def ensure(instance: Instance) -> None:
    """Make the fabric (a bridge in a namespace of its own), and join the host and the control plane to it."""
    fabric = instance.namespace("fabric")
    _ensure_namespace(fabric)
    if not ip("link", "show", BRIDGE, namespace=fabric, check=False):
        ip("link", "add", BRIDGE, "type", "bridge", namespace=fabric)
    ip("link", "set", BRIDGE, "up", namespace=fabric)
    if not ip("link", "show", instance.host_link, check=False):
        ip("link", "add", instance.host_link, "type", "veth", "peer", "name", "to-host", "netns", fabric)
    ip("address", "replace", f"{instance.host_address}/{instance.fabric.prefixlen}", "dev", instance.host_link)
    ip("link", "set", instance.host_link, "up")
    ip("link", "set", "to-host", "master", BRIDGE, "up", namespace=fabric)
    join(instance, "control", f"{instance.control_address}/{instance.fabric.prefixlen}")


def join(instance: Instance, part: str, address: str) -> None:
    """Give a namespace, made where there is none, an `eth0` on the fabric."""
    namespace, fabric = instance.namespace(part), instance.namespace("fabric")
    _ensure_namespace(namespace)
    if not ip("link", "show", "eth0", namespace=namespace, check=False):
        ip("link", "add", f"to-{part}", "type", "veth", "peer", "name", "eth0", "netns", namespace, namespace=fabric)
    ip("link", "set", f"to-{part}", "master", BRIDGE, "up", namespace=fabric)
    ip("address", "replace", address, "dev", "eth0", namespace=namespace)
    ip("link", "set", "eth0", "up", namespace=namespace)


def join_node(instance: Instance, node: str) -> None:
    join(instance, node, f"{instance.node_address(node)}/{instance.fabric.prefixlen}")
    namespace = instance.namespace(node)
    result = subprocess.run(
        ["ip", "netns", "exec", namespace, "sysctl", "-eqw", *SYSCTLS], capture_output=True, text=True
    )
    if result.returncode:
        raise DeployError(f"node {node} can't set what Kubernetes expects of its network: {result.stderr.strip()}")
    # A Service's address must have a route before kube-proxy can rewrite it.
    ip("route", "replace", instance.services, "dev", "eth0", namespace=namespace)


def route(instance: Instance, running: list[str]) -> None:
    """Point everyone to each running node's pods, and the host and control plane to Services through the first node."""
    for part in ("host", "control", *running):
        namespace = None if part == "host" else instance.namespace(part)
        for node in running:
            if node != part:
                via = ("via", instance.node_address(node))
                ip("route", "replace", instance.node_pods(node), *via, namespace=namespace)
        if running and part in ("host", "control"):
            ip("route", "replace", instance.services, "via", instance.node_address(running[0]), namespace=namespace)


def leave(instance: Instance, part: str) -> None:
    """Remove a namespace, and its link at the fabric's end: the other end lives as long as any process in there."""
    ip("link", "delete", f"to-{part}", namespace=instance.namespace("fabric"), check=False)
    ip("netns", "delete", instance.namespace(part), check=False)


def remove(instance: Instance) -> None:
    for part in ("control", *instance.nodes, "fabric"):
        leave(instance, part)
    ip("link", "delete", instance.host_link, check=False)


def _ensure_namespace(namespace: str) -> None:
    # A namespace's file may have outlived the namespace (an unclean end); such a file answers nothing.
    if not ip("link", "show", "lo", namespace=namespace, check=False):
        ip("netns", "delete", namespace, check=False)
        ip("netns", "add", namespace)
    ip("link", "set", "lo", "up", namespace=namespace)
