"""What every cluster has beside Kubernetes itself: DNS, metrics and a default StorageClass, as images and manifests."""

import string
import time
from collections.abc import Callable
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.cluster.node import PAUSE_IMAGE
from flaskapp_deploy.images import buildkit, image
from flaskapp_deploy.images.buildkit import Builder
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.programs import packages
from flaskapp_deploy.shell import DeployError

# With their namespaces.
DEPLOYMENTS = {
    "coredns": "kube-system",
    "metrics-server": "kube-system",
    "local-path-provisioner": "local-path-storage",
}


def images(binaries: Path) -> dict[str, Path]:
    """Return reference -> image archive of every add-on, building those that this version of the tools has not yet."""
    kept = shell.cache() / "addons" / binaries.name
    references = {PAUSE_IMAGE: kept / "pause.tar", "localhost/busybox:1": kept / "busybox.tar"}
    references |= {f"localhost/{name}:{binaries.name}": kept / f"{name}.tar" for name in DEPLOYMENTS}
    missing = {reference: archive for reference, archive in references.items() if not archive.exists()}
    if missing:
        shell.say(f"building {len(missing)} images of the cluster's own components")
        with buildkit.daemon() as builder:
            for reference, archive in missing.items():
                _build(builder, binaries, reference, archive)
    return references


def apply(cluster: LocalCluster, references: dict[str, Path], running: Callable[[], bool]) -> None:
    """Apply the manifests and wait until every component serves, while what they need is running."""
    names = {archive.stem.replace("-", "_"): reference for reference, archive in references.items()}
    names |= {name: str(getattr(cluster, name)) for name in ("dns_address", "host_loopback", "resolver")}
    files = Path(__file__).parent.glob("*.yaml")
    manifests = "\n---\n".join(string.Template(file.read_text()).substitute(names) for file in files)
    # A first request may meet an API server that has just begun to serve.
    apply = ("apply", "--server-side", "--force-conflicts", "-f", "-")
    for last in (False, False, False, False, True):
        if cluster.admin().kubectl(*apply, stdin=manifests, check=last).returncode == 0:
            break
        time.sleep(1)
    for name, namespace in DEPLOYMENTS.items():
        _wait(cluster.admin(namespace), name, running)


def _wait(cluster: Cluster, name: str, running: Callable[[], bool]) -> None:
    def serves() -> bool:
        status = ("rollout", "status", f"deployment/{name}", "--timeout=2s")
        return running() and cluster.kubectl(*status, check=False).returncode == 0

    try:
        shell.wait_until(serves, 120, name)
    except DeployError as error:
        running()  # what it needs is the cause where that has ended
        logs = cluster.kubectl("logs", f"deployment/{name}", "--tail=8", check=False)
        raise DeployError(f"{error.message}; its last lines:\n{shell.tail(logs.stdout or logs.stderr)}") from error


def _build(builder: Builder, binaries: Path, reference: str, archive: Path) -> None:
    name = archive.stem
    if name == "busybox":
        binary = packages.busybox()
        applets = {f"/bin/{applet}": binary for applet in ("sh", "mkdir", "rm")}
        built = image.scratch_image(builder, binary, reference, [], applets)
    else:
        built = image.scratch_image(builder, binaries / name, reference, [f"/{name}"])
    shell.copy_atomic(built, archive)
