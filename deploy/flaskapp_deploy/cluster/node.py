"""A node: containerd, kubelet and kube-proxy in namespaces of its own; ending one process ends the whole node."""

import base64
import hashlib
import shutil
import string
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.cluster import cgroups, controlplane, network
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.shell import DeployError

INIT = Path(__file__).with_name("node-init.sh")
TEMPLATES = Path(__file__).with_name("templates")
PAUSE_IMAGE = "localhost/pause:1"


def state(cluster: LocalCluster, node: str) -> Path:
    """Return the folder of a node's logs, volumes and images."""
    return cluster.state / "nodes" / node


def ensure(cluster: LocalCluster, node: str, binaries: Path) -> bool:
    """Start the node unless it runs; return whether it was started."""
    home, run = state(cluster, node), cluster.run / node
    home.mkdir(parents=True, exist_ok=True)
    run.mkdir(parents=True, exist_ok=True)
    if not cluster.runs(node):
        # As after a reboot: no network of an earlier life, and no record of tasks that ended with it.
        network.leave(cluster, node)
        shutil.rmtree(run / "containerd", ignore_errors=True)
        (home / "init.log").unlink(missing_ok=True)
    network.join_node(cluster, node)
    cgroups.ensure(cluster.namespace(node))
    _write_configuration(cluster, node)
    # A copy by its content: another checkout of the same version finds the node as it wants it. bash reads it, since
    # nothing in /run can be executed on a Debian with systemd.
    init = run / f"init-{hashlib.sha256(INIT.read_bytes()).hexdigest()[:8]}.sh"
    shutil.copy(INIT, init)
    inside = ["nsenter", f"--net=/run/netns/{cluster.namespace(node)}"]
    isolated = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child=SIGKILL"]
    return cluster.process(node).ensure(
        [*inside, *isolated, "bash", str(init)],
        home / "init.log",
        {
            "NODE": node,
            "STATE": str(home),
            "RUN": str(run),
            "BIN": str(binaries),
            "IMAGES": str(cluster.images),
            "ADDRESS": str(cluster.node_address(node)),
        },
    )


def keep_image(cluster: LocalCluster, archive: Path, reference: str) -> Path:
    """Keep an image archive for nodes to come; a newer one of the same name takes its place."""
    repository = reference.rpartition(":")[0]
    digest = hashlib.sha256(repository.encode()).hexdigest()[:6]
    kept = cluster.images / f"{repository.replace('/', '_')}-{digest}.tar"
    if not kept.exists() or _identity(kept) != _identity(archive):
        shell.copy_atomic(archive, kept)
    return kept


def import_image(cluster: LocalCluster, node: str, archive: Path) -> None:
    """Import a kept image archive into a running node, unless it has it."""
    stamp = state(cluster, node) / "imported" / archive.name
    if stamp.exists() and stamp.read_text().strip() == _identity(archive):
        return
    result = shell.run(*ctr(cluster, node, "images", "import", str(archive)), check=False)
    if result.returncode:
        raise DeployError(f"{node} can't import {archive}: {shell.reason(result)}")
    stamp.write_text(_identity(archive))


def _identity(archive: Path) -> str:
    """Size and modification time: what node-init.sh compares as well."""
    status = archive.stat()
    return f"{status.st_size} {int(status.st_mtime)}"


def ctr(cluster: LocalCluster, node: str, *arguments: str) -> list[str]:
    """Return the command that talks to a node's containerd."""
    return ["ctr", "--address", f"{cluster.run}/{node}/containerd.sock", "--namespace", "k8s.io", *arguments]


def trust_registry(cluster: LocalCluster, node: str, host: str, certificate: Path, login: str) -> None:
    """Let a node pull from the registry `host` (`HOST:PORT`), as a cloud's node may from the cloud's.

    `login` is `USER:PASSWORD`. The next pull reads it: nothing is started again.
    """
    folder = cluster.run / node / "registries" / host
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copy(certificate, folder / "ca.crt")
    basic = base64.b64encode(login.encode()).decode()
    settings = (
        f'server = "https://{host}"\n[host."https://{host}"]\nca = "{folder}/ca.crt"\n'
        f'capabilities = ["pull", "resolve"]\n[host."https://{host}".header]\nAuthorization = "Basic {basic}"\n'
    )
    shell.write_atomic(folder / "hosts.toml", settings, 0o600)


def enter(cluster: LocalCluster, node: str, *command: str) -> list[str]:
    """Return the command that runs another in a node's namespaces."""
    parent = cluster.process(node).pid
    if parent is None:
        raise DeployError(f"node {node} does not run; start it with `deploy/flaskapp-deploy cluster up`")
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    if not children:
        raise DeployError(f"node {node} is just starting; try again")
    return ["nsenter", f"--target={children[0]}", "--mount", "--pid", "--uts", "--net", *command]


def _write_configuration(cluster: LocalCluster, node: str) -> None:
    """Write the node's certificates, and its settings where they differ: programs watch them."""
    home, run, authority = state(cluster, node), cluster.run / node, controlplane.authority(cluster)
    address = cluster.node_address(node)
    controlplane.kubeconfig(cluster, home / "kubelet.conf", f"system:node:{node}", "system:nodes")
    certificate, key = authority.issue(f"{node}-serving", f"system:node:{node}", ["system:nodes"], [address, node])
    proxy = controlplane.kubeconfig(cluster, cluster.state / "pki/kube-proxy.conf", "system:kube-proxy")
    values = {
        "address": address,
        "authority": authority.certificate_path,
        "certificate": certificate,
        "cgroup": cluster.namespace(node),
        "dns_address": cluster.dns_address,
        "home": home,
        "key": key,
        "node": node,
        "node_pods": cluster.node_pods(node),
        "pause_image": PAUSE_IMAGE,
        "pods": cluster.pods,
        "proxy_kubeconfig": proxy,
        "resolver": cluster.resolver,
        "run": run,
    }
    for template in TEMPLATES.rglob("*.*"):
        content = string.Template(template.read_text()).substitute(values)
        shell.write_changed(run / template.relative_to(TEMPLATES), content)
