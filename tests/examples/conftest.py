"""The cluster of tests/kubernetes.py, with the examples' images on its nodes."""

import pytest

from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.images import image
from tests.chart.render import run_helm
from tests.kubernetes import ROOT

EXAMPLES = ["httpbin", "ihatemoney", "alerta", "jobs", "streams", "uploads"]


@pytest.fixture(scope="session", autouse=True)
def _dependency() -> None:
    run_helm("dependency", "build", "--skip-refresh", "charts/flaskapp")


@pytest.fixture(scope="session")
def references(kubernetes: LocalCluster) -> dict[str, str]:
    """References of the examples' images, loaded on every node."""
    built = {name: image.build_image(ROOT / "examples" / name, name=name) for name in EXAMPLES}
    archives = {each.reference: each.archive for each in built.values()}
    lifecycle.load_images(kubernetes.name, archives | image.chart_archives())
    return {name: each.reference for name, each in built.items()}
