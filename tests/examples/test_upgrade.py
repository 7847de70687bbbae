"""An installation of chart 0.2.0 is upgraded to this chart, whose names and defaults are others, while clients work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.up.install import ensure_admin_token
from reliability.release import released_chart
from tests.kubernetes import LEDGER, ROOT
from tests.reliability.test_release import CHART, get, url, wait

RELEASE = "old"
OBJECTS = "deployments,statefulsets,services,serviceaccounts,persistentvolumeclaims,secrets"
CLIENTS, PAUSE = 4, 0.1  # a request of each client every 100 ms, each on a connection of its own


@dataclass
class Load:
    """Clients that write a deployment and read the list in turn, and count what came back."""

    url: str
    token: str
    statuses: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, number: int, turn: int) -> None:
        """Write or read once."""
        address, version = f"{self.url}/api/v1/deployments", f"{number}.{turn}"
        body = {"service": "shop", "environment": "production", "version": version, "status": "succeeded"}
        bearer = {"Authorization": f"Bearer {self.token}"}
        try:
            if turn % 2:
                answer = requests.post(address, json=body, headers=bearer, timeout=10)
            else:
                answer = requests.get(address, timeout=10)
        except requests.RequestException as error:
            with self.lock:
                self.failures.append(str(error))
            return
        with self.lock:
            if answer.status_code == 503 and "Retry-After" not in answer.headers:
                self.failures.append("503 without Retry-After")
            self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
            if answer.status_code == 201:
                self.written.add(version)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send requests until the block ends."""
        ended = threading.Event()

        def client(number: int) -> None:
            turn = 0
            while not ended.wait(PAUSE):
                self.request(number, turn := turn + 1)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def versions(address: str) -> set[str]:
    """Every version in the ledger, page by page."""
    result: set[str] = set()
    query: dict[str, str] = {"limit": "100"}
    while True:
        page: dict[str, Any] = requests.get(f"{address}/api/v1/deployments", params=query, timeout=10).json()
        result |= {item["version"] for item in page["items"]}
        if page["next"] is None:
            return result
        query["cursor"] = page["next"]


def names(cluster: Cluster) -> dict[str, str]:
    """Identity of each object of the release, by kind and name."""
    objects = cluster.objects(OBJECTS, f"app.kubernetes.io/instance={RELEASE}")
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["uid"] for one in objects}


def test_a_release_of_0_2_0_is_upgraded_under_load(
    releaser: Callable[[str], Cluster], images: dict[str, str], tmp_path: Path
) -> None:
    """Names, data and password stay; while the bundled server restarts, clients are asked to come again."""
    cluster = releaser("released")
    token = ensure_admin_token(cluster)
    repository, _, tag = images["flaskapp"].rpartition(":")
    image = ["--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}"]
    options = ["--wait", "--wait-for-jobs", "--timeout=5m"]
    before = released_chart(tmp_path)
    cluster.helm("dependency", "build", "--skip-refresh", str(before))
    values = ["--values", str(tmp_path / "environments/dev.yaml"), "--set", "secrets.existingSecret=flaskapp-admin"]
    cluster.helm("install", RELEASE, str(before), *image, *values, *options)
    installed, secret = names(cluster), get(cluster, "secret", f"{RELEASE}-postgresql")["data"]
    assert {f"Deployment/{RELEASE}-flaskapp", f"Service/{RELEASE}-flaskapp"} <= installed.keys()

    load = Load(url(cluster, f"{RELEASE}-flaskapp"), token)
    values = ["--values", LEDGER, "--values", str(ROOT / "environments/dev.yaml")]
    selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=web"
    pods = {pod["metadata"]["uid"] for pod in get(cluster, "pods", selector=selector)}
    with load.running():
        cluster.helm("upgrade", RELEASE, CHART, *image, *values, *options)
        wait(lambda: not pods & {pod["metadata"]["uid"] for pod in get(cluster, "pods", selector=selector)},
             120, "the end of the pods of 0.2.0")  # fmt: skip
    print(f"{sum(load.statuses.values())} requests: {load.statuses}; {len(load.failures)} failed")
    assert load.failures == []
    assert load.statuses.keys() <= {200, 201, 503}, load.statuses
    assert len(load.written) > 100
    assert load.written <= versions(load.url)
    assert names(cluster).items() >= installed.items(), "an object was replaced or renamed"
    assert get(cluster, "secret", f"{RELEASE}-postgresql")["data"] == secret
    cluster.helm("upgrade", RELEASE, CHART, *image, *values, *options)
    assert names(cluster).items() >= installed.items(), "the next upgrade doesn't know the names any more"
    cluster.helm("test", RELEASE)
