"""A local cluster of two nodes, and helm with only the rights of the Role that infra/ has for releases."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flaskapp_deploy.cluster import controlplane, lifecycle
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.images import image
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.up.install import ensure_namespace

INSTANCE = os.environ.get("INSTANCE", "test")
ROOT = Path(__file__).resolve().parents[1]
LEDGER = str(ROOT / "environments/ledger.yaml")  # what the ledger wants; an environment's values go over it


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[LocalCluster]:
    """Two nodes, removed at the end, or kept for inspection with KEEP=1."""
    if os.geteuid() != 0:
        pytest.fail("the local cluster needs root")
    made = lifecycle.up(INSTANCE, nodes=2)
    yield made
    if not os.environ.get("KEEP"):
        lifecycle.down(INSTANCE)


@pytest.fixture(scope="session")
def admin(kubernetes: LocalCluster) -> Callable[[str], Cluster]:
    """The cluster's administrator in a namespace."""
    return lambda namespace: Cluster(kubernetes.kubeconfig, "", namespace)


@pytest.fixture(scope="session")
def releaser(
    kubernetes: LocalCluster, admin: Callable[[str], Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Cluster]:
    """Create a namespace that enforces Pod Security `restricted`, and a user who can only release into it."""
    path = tmp_path_factory.mktemp("kubeconfig") / "releaser"
    controlplane.kubeconfig(kubernetes, path, "releaser", "flaskapp:release")

    def make(namespace: str) -> Cluster:
        admin(namespace).kubectl("delete", "namespace", namespace, "--ignore-not-found")  # what KEEP=1 kept
        ensure_namespace(admin(namespace))
        admin(namespace).kubectl("apply", "-f", str(ROOT / "infra/helm-release-role.yaml"))
        return Cluster(path, "", namespace)

    return make


@pytest.fixture(scope="session")
def images(kubernetes: LocalCluster) -> dict[str, str]:
    """References of the images on the nodes: the ledger's and an example's."""
    ledger = image.build_image(ROOT, name="flaskapp")
    hello = image.build_image(ROOT / "examples/hello", name="hello")
    archives = {built.reference: built.archive for built in (ledger, hello)}
    lifecycle.load_images(INSTANCE, archives | image.chart_archives())
    return {"flaskapp": ledger.reference, "hello": hello.reference}
