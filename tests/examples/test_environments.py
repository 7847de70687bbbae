"""The environments, unchanged: staging, its data migrated to production's own server, and all on one t4g.small.

Namespaces have the quota that t4g.small nodes leave beside the pods of the system (benchmarks/capacity). LONG=1 also
changes the new server's password, which takes the kubelet more than a minute.
"""

import json
import os
import secrets
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests
import yaml

from benchmarks.capacity import room
from flaskapp_deploy import programs
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import DeployError
from tests import pages
from tests.kubernetes import LEDGER, ROOT
from tests.reliability.test_release import get, url, wait

Releaser = Callable[[str], Cluster]
CHART = "charts/flaskapp"
RELEASE = "web"
WEB = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=web"
TABLES = (ROOT / "charts/flaskapp/files/tables.sql").read_text()


class Shop:
    """A release of the ledger in a namespace with a quota."""

    def __init__(self, cluster: Cluster, admin: Cluster, image: str, nodes: int) -> None:
        self.cluster, self.admin = cluster, admin
        self.repository, _, self.tag = image.rpartition(":")
        self.token = secrets.token_urlsafe(32)
        hard = {"hard": room.left(nodes).quota}
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "nodes"}, "spec": hard}
        admin.kubectl("create", "-f", "-", stdin=yaml.safe_dump(quota))
        cluster.kubectl("create", "secret", "generic", "admin-token", f"--from-literal=API_ADMIN_TOKEN={self.token}")

    def upgrade(self, environment: str, *settings: str) -> None:
        values = ["--values", LEDGER, "--values", str(ROOT / f"environments/{environment}.yaml")]
        values += ["--set", "secrets.existingSecret=admin-token"]
        values += ["--set", f"image.repository={self.repository}", "--set-string", f"image.tag={self.tag}"]
        options = ["--install", "--wait", "--wait-for-jobs", "--timeout=3m"]
        self.cluster.helm("upgrade", RELEASE, str(ROOT / CHART), *options, *values, *settings)

    @property
    def url(self) -> str:
        return url(self.cluster, RELEASE)

    def post(self, version: str) -> int:
        body = {"service": "shop", "environment": "production", "version": version, "status": "succeeded"}
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.post(f"{self.url}/api/v1/deployments", json=body, headers=headers, timeout=10).status_code

    def versions(self) -> set[str]:
        return {item["version"] for item in requests.get(f"{self.url}/api/v1/deployments", timeout=10).json()["items"]}

    def pods(self) -> int:
        return len(get(self.cluster, "pods", selector=WEB))

    def psql(self, pod: str, sql: str) -> str:
        command = ["exec", "--stdin", pod, "--container=postgresql", "--"]
        return self.admin.kubectl(*command, "psql", "-XAtqU", "postgres", "flaskapp", stdin=sql).stdout

    def bash(self, lines: str) -> None:
        """Run a page's commands with all rights in the namespace."""
        namespaced = f"kubectl --namespace {self.admin.namespace}"
        script = lines.replace("RELEASE", RELEASE).replace("kubectl", namespaced)
        path = f"{programs.binaries('kubernetes')}:{os.environ['PATH']}"
        pages.run(script, env=os.environ | {"KUBECONFIG": str(self.admin.kubeconfig), "PATH": path})

    def refused_by_quota(self) -> list[str]:
        events = json.loads(self.cluster.kubectl("get", "events", "--output=json").stdout)["items"]
        return [event["message"] for event in events if "exceeded quota" in event.get("message", "")]


@pytest.fixture(scope="module")
def shop(releaser: Releaser, admin: Releaser, images: dict[str, str]) -> Shop:
    return Shop(releaser("environments"), admin("environments"), images["flaskapp"], nodes=2)


def test_staging(shop: Shop) -> None:
    shop.upgrade("staging")
    assert [shop.post(f"1.0.{number}") for number in range(5)] == 5 * [201]
    assert shop.pods() == 2
    assert get(shop.cluster, "hpa", RELEASE)["spec"]["maxReplicas"] == 3


def test_its_volume_grows(shop: Shop) -> None:
    """docs/postgresql.md, "Grow the volume"; the local class notes the new size, and has no disk to grow."""
    size = "postgresql.primary.persistence.size=20Gi"
    with pytest.raises(DeployError, match="the volume was made with 8Gi"):
        shop.upgrade("staging", "--set", size)
    expandable = '{"allowVolumeExpansion": true}'
    shop.admin.kubectl("patch", "storageclass", "local-path", "--patch", expandable)
    pod = get(shop.cluster, "pod", f"{RELEASE}-postgresql-0")["metadata"]["uid"]
    [block] = [block for block in pages.blocks("postgresql.md") if "patch pvc" in block]
    shop.bash("\n".join(line for line in block.splitlines() if line.startswith("kubectl")))
    shop.upgrade("staging", "--set", size)
    assert get(shop.cluster, "pod", f"{RELEASE}-postgresql-0")["metadata"]["uid"] == pod
    claim = get(shop.cluster, "pvc", f"data-{RELEASE}-postgresql-0")
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    [template] = get(shop.cluster, "statefulset", f"{RELEASE}-postgresql")["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert len(shop.versions()) == 5


def test_its_data_moves_to_productions_server(shop: Shop) -> None:
    """docs/backup.md, line by line."""
    values = ["--values", str(ROOT / "charts/postgresql-values.yaml"), "--wait", "--timeout=3m"]
    shop.cluster.helm("install", "postgresql", str(ROOT / "charts/postgresql"), *values)
    # The previous test has resized the volume.
    stopped = "replicas=0,autoscaling.enabled=false,postgresql.primary.persistence.size=20Gi"
    shop.upgrade("staging", "--set", stopped)
    wait(lambda: shop.pods() == 0, 90, "the end of the pods")

    [lines] = [block for block in pages.blocks("backup.md") if "pg_dump" in block]
    shop.bash(lines)
    sums = shop.psql(f"{RELEASE}-postgresql-0", TABLES)
    assert "public.deployments|5|" in sums
    assert shop.psql("postgresql-0", TABLES) == sums

    old, new = (
        get(shop.cluster, "secret", name)["data"]["password"] for name in (f"{RELEASE}-postgresql", "postgresql")
    )
    assert old != new
    shop.upgrade("production", "--set", f"database.replacedServer={RELEASE}-postgresql")
    assert shop.versions() == {f"1.0.{number}" for number in range(5)}
    assert shop.post("1.1.0") == 201
    assert shop.psql("postgresql-0", "SELECT count(*) FROM deployments") == "6\n"
    assert shop.pods() >= 2
    assert not get(shop.cluster, "statefulsets", selector=f"app.kubernetes.io/instance={RELEASE}")
    assert get(shop.cluster, "pvc", f"data-{RELEASE}-postgresql-0")["status"]["phase"] == "Bound"
    assert shop.refused_by_quota() == []


@pytest.mark.skipif(not os.environ.get("LONG"), reason="LONG=1: the kubelet brings a Secret in a minute or more")
def test_the_new_servers_password_changes(shop: Shop) -> None:
    values = ["--values", str(ROOT / "charts/postgresql-values.yaml"), "--set", "auth.password=another"]
    shop.cluster.helm("upgrade", "postgresql", str(ROOT / "charts/postgresql"), *values, "--wait", "--timeout=3m")
    wait(lambda: "flaskapp_2" in shop.psql("postgresql-0", "SELECT rolname FROM pg_roles"), 180, "the new login")
    # Expire the previous login now; by itself it would expire later.
    shop.psql("postgresql-0", "ALTER ROLE flaskapp VALID UNTIL '-infinity'")
    shop.psql("postgresql-0", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'flaskapp'")
    wait(lambda: shop.post("1.2.0") == 201, 180, "the application's new login")
    serving = shop.psql("postgresql-0", "SELECT DISTINCT usename FROM pg_stat_activity WHERE usename LIKE 'flaskapp%'")
    assert serving == "flaskapp_2\n"


def test_one_node_holds_t4g_small_and_its_rollout(releaser: Releaser, admin: Releaser, images: dict[str, str]) -> None:
    one = Shop(releaser("t4g-small"), admin("t4g-small"), images["flaskapp"], nodes=1)
    one.upgrade("t4g-small")
    assert one.post("1.0.0") == 201
    before = {pod["metadata"]["uid"] for pod in get(one.cluster, "pods", selector=WEB)}
    ended = threading.Event()
    failures: list[Any] = []
    asked: list[Any] = []

    def ask() -> None:
        while not ended.wait(0.1):
            try:
                asked.append(requests.get(f"{address}/api/v1/deployments", timeout=5).status_code)
            except requests.RequestException as error:
                failures.append(str(error))

    address = one.url
    client = threading.Thread(target=ask)
    client.start()
    try:
        one.upgrade("t4g-small", "--set", "config.LOG_LEVEL=WARNING")
    finally:
        ended.set()
        client.join()
    after = {pod["metadata"]["uid"] for pod in get(one.cluster, "pods", selector=WEB)}
    assert after - before, "nothing rolled"
    assert failures == []
    assert set(asked) == {200}
    assert one.versions() == {"1.0.0"}
    assert one.refused_by_quota() == []
    used = get(one.admin, "resourcequota", "nodes")["status"]
    print({key: f"{used['used'][key]} of {hard}" for key, hard in used["hard"].items()})
