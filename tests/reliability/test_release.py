"""A release's life: install, rows, autoscaler, upgrade, rollback, test, uninstall, reinstall.

The tests of this module follow each other on one release; each leaves it as the next one needs it.
"""

import json
import secrets
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
import yaml

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import DeployError
from tests.kubernetes import LEDGER, ROOT

RELEASE, NAMESPACE = "ledger", "release-life"
TOKEN = secrets.token_urlsafe(32)
CHART = str(ROOT / "charts/flaskapp")


def get(cluster: Cluster, kind: str, name: str = "", selector: str = "") -> Any:
    """One object, or the items of a list."""
    arguments = [name] if name else ["--selector", selector]
    document = json.loads(cluster.kubectl("get", kind, *arguments, "--output", "json").stdout)
    return document if name else document["items"]


def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} took more than {seconds} s"
        time.sleep(1)


def install(cluster: Cluster, image: str, *settings: str, chart: str = CHART, release: str = RELEASE) -> None:
    repository, _, tag = image.rpartition(":")
    values = ["-f", str(ROOT / "environments/dev.yaml"), "--set", f"image.repository={repository},image.tag={tag}"]
    cluster.helm(
        "upgrade", release, chart, "--install", "--wait", "--wait-for-jobs", "--timeout=5m", *values, *settings
    )


def url(cluster: Cluster, service: str) -> str:
    """The Service's own address: this machine has a route to it."""
    return f"http://{get(cluster, 'service', service)['spec']['clusterIP']}"


class Ledger:
    """The release under test, as its clients see it."""

    def __init__(self, cluster: Cluster, image: str) -> None:
        self.cluster, self.image = cluster, image
        self.selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=web"

    def upgrade(self, *settings: str) -> None:
        # Two pods at least, and an autoscaler over them.
        scaling = ["--set", "autoscaling.enabled=true,autoscaling.minReplicas=2,autoscaling.maxReplicas=3"]
        token = ["--set", "secrets.existingSecret=admin-token"]
        install(self.cluster, self.image, "-f", LEDGER, *scaling, *token, *settings)

    @property
    def url(self) -> str:
        return url(self.cluster, RELEASE)

    def post(self, version: str) -> str:
        body = {"service": "shop", "environment": "production", "version": version, "status": "succeeded"}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = requests.post(f"{self.url}/api/v1/deployments", json=body, headers=headers, timeout=10)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def versions(self) -> set[str]:
        answer = requests.get(f"{self.url}/api/v1/deployments", timeout=10)
        assert answer.status_code == 200, answer.text
        return {item["version"] for item in answer.json()["items"]}

    def pods(self) -> dict[str, Any]:
        """Running web pods by uid."""
        pods = get(self.cluster, "pods", selector=self.selector)
        return {pod["metadata"]["uid"]: pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}


@pytest.fixture(scope="module")
def ledger(releaser: Callable[[str], Cluster], images: dict[str, str]) -> Ledger:
    cluster = releaser(NAMESPACE)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "admin-token"}}
    cluster.kubectl("create", "-f", "-", stdin=yaml.safe_dump(secret | {"stringData": {"API_ADMIN_TOKEN": TOKEN}}))
    subprocess.run(["helm", "dependency", "build", "--skip-refresh", CHART], check=True, capture_output=True)
    made = Ledger(cluster, images["flaskapp"])
    made.upgrade()
    return made


def test_helm_has_the_role_and_no_more(ledger: Ledger) -> None:
    def may(*question: str) -> bool:
        return ledger.cluster.kubectl("auth", "can-i", *question, check=False).stdout.strip() == "yes"

    assert may("create", "deployments")
    assert not may("list", "nodes")
    assert not may("get", "secrets", "--namespace=kube-system")
    assert not may("create", "pods", "--subresource=exec")
    assert not may("create", "roles")


def test_rows_go_through_the_service(ledger: Ledger) -> None:
    for version in ("1.0.0", "1.0.1"):
        ledger.post(version)
    assert ledger.versions() == {"1.0.0", "1.0.1"}


def test_pods_on_both_nodes(ledger: Ledger) -> None:
    assert {pod["spec"]["nodeName"] for pod in ledger.pods().values()} == {"n1", "n2"}


def test_autoscaler_sees_cpu(ledger: Ledger) -> None:
    def utilization() -> int | None:
        autoscaler = get(ledger.cluster, "hpa", RELEASE)
        metrics = autoscaler["status"].get("currentMetrics") or [{}]
        value = metrics[0].get("resource", {}).get("current", {}).get("averageUtilization")
        return None if value is None else int(value)

    wait(lambda: utilization() is not None, 120, "a CPU figure in the autoscaler")
    assert "replicas:" not in ledger.cluster.helm("get", "manifest", RELEASE).stdout.split("kind: Deployment")[1]


def test_a_config_change_rolls_the_pods(ledger: Ledger) -> None:
    before = ledger.pods()
    ledger.upgrade("--set", "config.LOG_LEVEL=WARNING")
    after = ledger.pods()
    assert len(after) >= 2
    assert not before.keys() & after.keys()
    assert ledger.versions() == {"1.0.0", "1.0.1"}


def test_an_upgrade_that_changes_nothing_rolls_nothing(ledger: Ledger) -> None:
    before = ledger.pods()
    ledger.upgrade("--set", "config.LOG_LEVEL=WARNING")
    assert ledger.pods().keys() == before.keys()


def test_rollback(ledger: Ledger) -> None:
    before = ledger.pods()
    ledger.cluster.helm("rollback", RELEASE, "1", "--wait", "--timeout=5m")
    assert not before.keys() & ledger.pods().keys()
    ledger.post("1.0.2")
    assert ledger.versions() == {"1.0.0", "1.0.1", "1.0.2"}


def test_helm_test(ledger: Ledger) -> None:
    assert "Succeeded" in ledger.cluster.helm("test", RELEASE).stdout


@pytest.mark.parametrize(
    ("setting", "path"), [("replcias=3", "replcias"), ("replicas=many", "replicas"), ("image.tag=latest", "image.tag")]
)
def test_bad_values_are_refused_by_their_path(ledger: Ledger, setting: str, path: str) -> None:
    with pytest.raises(DeployError, match=path):
        ledger.upgrade("--set", setting)
    assert ledger.versions() == {"1.0.0", "1.0.1", "1.0.2"}


def test_uninstall_keeps_the_data_and_a_reinstall_finds_it(ledger: Ledger) -> None:
    def kept() -> tuple[list[str], str]:
        claims = get(ledger.cluster, "pvc", selector=f"app.kubernetes.io/instance={RELEASE}")
        secret = get(ledger.cluster, "secret", f"{RELEASE}-postgresql")
        return [claim["metadata"]["uid"] for claim in claims], secret["metadata"]["uid"]

    before = kept()
    assert len(before[0]) == 1
    ledger.cluster.helm("uninstall", RELEASE, "--wait", "--timeout=3m")
    assert not get(ledger.cluster, "deployments", selector=f"app.kubernetes.io/instance={RELEASE}")
    assert kept() == before
    ledger.upgrade()
    assert kept() == before
    assert ledger.versions() == {"1.0.0", "1.0.1", "1.0.2"}


# gunicorn opens its port, and ends once the application has failed to load.
BROKEN = """
import os, pathlib
pathlib.Path("/tmp/broken.py").write_text("import time\\ntime.sleep(0.7)\\nraise KeyError('TOKEN')\\n")
command = ["gunicorn", "--config=/dev/null", "--bind=0.0.0.0:8000", "--chdir=/tmp", "--no-control-socket", "broken"]
os.execvp("gunicorn", command)
"""


def test_an_open_port_is_not_enough(releaser: Callable[[str], Cluster], images: dict[str, str]) -> None:
    """Without a health path the probes only open the port: a version that can't start replaces none that serves."""
    cluster = releaser("release-port")
    repository, _, tag = images["hello"].rpartition(":")
    values = ["--set", f"image.repository={repository},replicas=1", "--set-string", f"image.tag={tag}"]
    cluster.helm("install", "port", CHART, *values, "--wait", "--timeout=2m")
    pods = "app.kubernetes.io/instance=port,app.kubernetes.io/component=web"
    [before] = get(cluster, "pods", selector=pods)
    broken = f"--set-json=command={json.dumps(['python', '-c', BROKEN])}"
    with pytest.raises(DeployError, match="helm upgrade failed"):
        cluster.helm("upgrade", "port", CHART, *values, broken, "--wait", "--timeout=30s")
    assert before["metadata"]["uid"] in {pod["metadata"]["uid"] for pod in get(cluster, "pods", selector=pods)}
    assert requests.get(url(cluster, "port"), timeout=10).json()["message"] == "Hello, world"


def test_a_foreign_application(releaser: Callable[[str], Cluster], images: dict[str, str]) -> None:
    cluster = releaser("release-hello")
    install(cluster, images["hello"], "-f", str(ROOT / "examples/hello/values.yaml"), release="hello")
    address = url(cluster, get(cluster, "services", selector="app.kubernetes.io/instance=hello")[0]["metadata"]["name"])
    assert requests.get(address, timeout=10).json()["message"] == "Hello, world"
    cluster.helm("test", "hello")
    cluster.helm("uninstall", "hello", "--wait")
    pods = "app.kubernetes.io/instance=hello,app.kubernetes.io/component=web"
    wait(lambda: not get(cluster, "pods", selector=pods), 60, "the end of the pods")
