"""The way out: nodes' default route leads to a gateway, and from there through slirp4netns, a NAT that is a process.

Nothing of this machine's firewall or routes changes: what pods send leaves as connections of that process.
"""

import os
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.cluster import network
from flaskapp_deploy.cluster.localcluster import GATEWAY, LocalCluster
from flaskapp_deploy.shell import DeployError

SAYS = {"": True, "1": True, "0": False}
TUN = Path("/dev/net/tun")
# The sandbox of slirp4netns unmounts what it doesn't need. Seen by this machine, that would take the name of every
# network namespace: it hears of this machine's mounts, and this machine of none of its own.
ISOLATED = ["unshare", "--mount", "--propagation=slave"]
# It is started again when it ends, and it ends with this shell.
KEEP = ["bash", "-c", 'while :; do setpriv --pdeathsig KILL slirp4netns "$@"; sleep 1; done', GATEWAY]
MASQUERADE = "*nat\n-A POSTROUTING -o tap0 -j MASQUERADE\nCOMMIT\n"


def is_wanted() -> bool:
    """Return whether pods are to reach what is outside the cluster, as EGRESS says."""
    value = os.environ.get("EGRESS", "")
    if value not in SAYS:
        raise DeployError(f"EGRESS={value!r} is neither 0 nor 1\n  use 0 to keep pods from what is outside the cluster")
    return SAYS[value]


def ensure(cluster: LocalCluster, to_open: bool) -> None:
    """Open the way out, or shut it; where it can't be opened, say so and go on without."""
    if not to_open:
        close(cluster)
    elif not cluster.runs(GATEWAY) and not TUN.exists():
        shell.say(f"pods reach nothing outside the cluster: there is no {TUN} (try `modprobe tun`)")
    else:
        try:
            _open(cluster)
        except DeployError as error:
            close(cluster)
            shell.say(f"pods reach nothing outside the cluster: {error.message}")


def close(cluster: LocalCluster) -> None:
    """Shut the way out."""
    cluster.process(GATEWAY).stop(grace=0)
    for node in cluster.running_nodes():
        network.ip("route", "delete", "default", namespace=cluster.namespace(node), check=False)


def _open(cluster: LocalCluster) -> None:
    network.join_router(cluster, GATEWAY, cluster.gateway_address)
    namespace = cluster.namespace(GATEWAY)
    # What belongs to the cluster and is not there, such as a stopped node's pods, is not looked for outside.
    network.ip("route", "replace", "unreachable", cluster.network, namespace=namespace)
    shell.run("ip", "netns", "exec", namespace, "iptables-restore", "--wait", stdin=MASQUERADE)
    options = ["--configure", "--enable-sandbox", "--enable-seccomp", f"--cidr={cluster.outside}", "--netns-type=path"]
    log = cluster.logs / "slirp4netns.log"
    cluster.process(GATEWAY).ensure([*ISOLATED, *KEEP, *options, f"/run/netns/{namespace}", "tap0"], log)

    def is_up() -> bool:
        return network.ip("link", "show", "tap0", "up", namespace=namespace, check=False)

    shell.wait_until(is_up, 5, "slirp4netns", [log])
