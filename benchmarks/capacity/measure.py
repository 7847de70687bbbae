"""Measure CPU and memory of a release's pods under load, as the kubelet reads them from the control groups."""

import base64
import calendar
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from benchmarks.capacity import room
from benchmarks.service.setup import get
from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.images import image
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.up.install import ensure_admin_token, ensure_namespace, fetch

NAMESPACE, RELEASE = "capacity", "web"
KINDS = {"web", "database"}
ROWS = 500
CLIENTS, RATE = 8, 100
TWENTY = "/api/v1/deployments?limit=20"


@dataclass(frozen=True)
class Used:
    """Usage of a component's pods: seconds of CPU so far, the time of that reading, the working set in MiB."""

    cpu: float
    at: float
    memory: float


def is_running(pod: dict[str, Any]) -> bool:
    """Return whether a pod runs and is not draining: that one would be counted in place of its successor."""
    return pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]


def used(cluster: Cluster) -> dict[str, Used]:
    """Return the usage of each component, or {} while the kubelet does not report every pod."""
    pods = json.loads(cluster.kubectl("get", "pods", "--output=json").stdout)["items"]
    wanted = {pod["metadata"]["name"]: pod for pod in pods if is_running(pod)}
    usage: dict[str, Used] = {}
    missing = set(wanted)  # new pods that the kubelet does not report yet
    for node in {pod["spec"]["nodeName"] for pod in wanted.values()}:
        summary = json.loads(
            cluster.kubectl("get", f"--raw=/api/v1/nodes/{node}/proxy/stats/summary?only_cpu_and_memory=true").stdout
        )
        for pod in summary["pods"]:
            if pod["podRef"]["namespace"] == cluster.namespace and (wanted_pod := wanted.get(pod["podRef"]["name"])):
                missing.remove(pod["podRef"]["name"])
                kind = wanted_pod["metadata"]["labels"]["app.kubernetes.io/component"]
                at = calendar.timegm(time.strptime(pod["cpu"]["time"], "%Y-%m-%dT%H:%M:%SZ"))
                memory = pod["memory"]["workingSetBytes"] / 2**20
                others = usage.get(kind, Used(0, at, 0))
                cpu = others.cpu + pod["cpu"]["usageCoreNanoSeconds"] / 1e9
                usage[kind] = Used(cpu, min(others.at, at), others.memory + memory)
    return {} if missing else usage


def settled(cluster: Cluster, after: float) -> dict[str, Used]:
    """Wait for a reading of the kubelet's from after this time; it takes one about every ten seconds."""
    for _ in range(60):
        usage = used(cluster)
        if usage.keys() == KINDS and min(one.at for one in usage.values()) > after:
            return usage
        time.sleep(1)
    raise SystemExit("the kubelet's figures did not change in 60 seconds")


def load(url: str, request: bytes, seconds: int, rate: int) -> dict[str, float]:
    """Send the request at a rate a second (0: as fast as possible); return benchmarks.service.load's figures."""
    port = str(urlsplit(url).port)
    command = [sys.executable, "-m", "benchmarks.service.load", port, str(CLIENTS), str(seconds), str(rate), "0"]
    result = subprocess.run(command, input=request, capture_output=True, check=True)
    document: dict[str, float] = json.loads(result.stdout)
    if document["bad"]:
        raise SystemExit(f"{document['bad']} answers were no success: {document['first']}")
    return document


def install(instance: LocalCluster) -> tuple[Cluster, str]:
    """Install the release in a namespace whose quota is what one node has free; return its cluster and its URL."""
    ledger = image.build_image(room.ROOT, name="flaskapp")
    lifecycle.load_images(instance.name, {ledger.reference: ledger.archive} | image.chart_archives())
    cluster = Cluster(instance.kubeconfig, "", NAMESPACE)
    ensure_namespace(cluster)
    hard = room.left(1).quota
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "node"}, "spec": {"hard": hard}}
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(quota))
    ensure_admin_token(cluster)
    repository, _, tag = ledger.reference.rpartition(":")
    values = [part for file in room.T4G_SMALL for part in ("--values", str(room.ROOT / file))]
    values += ["--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}"]
    chart = str(room.ROOT / "charts/flaskapp")
    cluster.helm("upgrade", RELEASE, chart, "--install", "--wait", "--wait-for-jobs", "--timeout=5m", *values)
    return cluster, lifecycle.forward(instance.name, NAMESPACE, RELEASE)


def filled(cluster: Cluster, url: str) -> bytes:
    """Record deployments; return the request that reads one of them."""
    secret = json.loads(cluster.kubectl("get", "secret", "flaskapp-admin", "--output=json").stdout)
    token = base64.b64decode(secret["data"]["API_ADMIN_TOKEN"]).decode()
    for number in range(ROWS):
        body = {"service": f"shop-{number % 10}", "environment": "production", "version": f"1.{number}"}
        posted = json.loads(fetch(f"{url}/api/v1/deployments", body | {"status": "succeeded"}, token))
    return get(f"/api/v1/deployments/{posted['id']}")


def cost(cluster: Cluster, url: str, request: bytes, seconds: int, rate: int) -> tuple[float, dict[str, Used]]:
    """Return the requests/s, and what each component used: cores during the load, the working set at its end."""
    before = settled(cluster, time.time())
    answered = 0.0
    if request:
        answered = load(url, request, seconds, rate)["rate"]
    else:
        time.sleep(seconds)
    # All seconds of CPU between the two readings, divided by the length of the load.
    after = settled(cluster, time.time())
    return answered, {
        kind: Used((after[kind].cpu - before[kind].cpu) / seconds, after[kind].at, after[kind].memory) for kind in KINDS
    }


def by_replicas(cluster: Cluster, url: str, seconds: int) -> Iterator[tuple[int, float, dict[str, Used]]]:
    """Measure reads of twenty, at a rate that one pod can serve, with one, two and three pods."""
    cluster.kubectl("delete", "resourcequota", "node", "--ignore-not-found")  # three are more than one node takes
    deployment = f"deployment/{RELEASE}"
    for replicas in (1, 2, 3):
        cluster.kubectl("scale", deployment, f"--replicas={replicas}")
        cluster.kubectl("rollout", "status", deployment, "--timeout=2m")
        yield replicas, *cost(cluster, url, get(TWENTY), seconds, RATE)


def run(name: str, seconds: int) -> None:
    """Measure on the local cluster of this name, and print a table; each load takes `seconds`."""
    instance = lifecycle.up(name)
    cluster, url = install(instance)
    loads = [("nothing", b"", 0), ("GET one", filled(cluster, url), RATE), ("GET twenty", get(TWENTY), RATE)]
    loads.append(("GET twenty, as fast as it goes", get(TWENTY), 0))
    print("\n| load | requests/s | web CPU | database CPU | ms of CPU a request | web memory | database memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for what, request, rate in loads:
        print(line(what, *cost(cluster, url, request, seconds, rate)), flush=True)
    for replicas, answered, used_by in by_replicas(cluster, url, seconds):
        print(line(f"GET twenty, {replicas} web pod{'s' * (replicas > 1)}", answered, used_by), flush=True)


def milliseconds(answered: float, used_by: dict[str, Used]) -> float:
    """Return the CPU time of one request in ms, web pods and database together."""
    return 1000 * sum(kind.cpu for kind in used_by.values()) / answered


def line(what: str, answered: float, used_by: dict[str, Used]) -> str:
    """Return a row of the table."""
    web, database = used_by["web"], used_by["database"]
    each = f"{milliseconds(answered, used_by):.2f}" if answered else ""
    return (
        f"| {what} | {answered:.0f} | {1000 * web.cpu:.0f}m | {1000 * database.cpu:.0f}m | {each} "
        f"| {web.memory:.0f} MiB | {database.memory:.0f} MiB |"
    )
