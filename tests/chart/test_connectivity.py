"""Which connections the rendered NetworkPolicies allow, by np-guard's analyzer: this list and no others.

tests/examples/test_enforcement.py shows them enforced.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flaskapp_deploy import programs
from tests.chart.render import WITHOUT_CLUSTER, merged, render

# Outside of the release: the cluster's DNS, a pod in another namespace, and one in the same.
OTHERS = {"kube-system/coredns": {"k8s-app": "kube-dns"}, "elsewhere/other": {}, "shop/neighbor": {}}
SWEEP = {"cronJobs": {"sweep": {"schedule": "0 3 * * *", "command": ["sweep"]}}}
MIGRATED = {"postgresql": {"enabled": True}, "migrations": {"command": ["migrate"]}}
BUNDLED = merged(WITHOUT_CLUSTER, SWEEP, MIGRATED, {"networkPolicy": {"enabled": True}})
EXTERNAL = merged(
    BUNDLED,
    {
        "postgresql": {"enabled": False},
        "database": {
            "host": "db.example.org",
            "port": 6432,
            "name": "shop",
            "username": "clerk",
            "existingSecret": "database",
        },
        "networkPolicy": {"databaseTo": [{"ipBlock": {"cidr": "10.0.0.0/16"}}]},
    },
)
FROM_ELSEWHERE = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}}]
FROM_DNS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
METRICS = merged(
    EXTERNAL,
    {
        "metrics": {"enabled": True},
        "networkPolicy": {"ingressFrom": FROM_DNS, "metricsFrom": FROM_ELSEWHERE},
    },
)
BACKUPS = ["backup[CronJob]", "backup[Job]"]
PODS = ["web", "migrate", "sweep", "test-http"]
COMPONENTS = ["web", "admin", "worker"]
NODE = ("169.254.20.10", "169.254.169.254")  # a cache of names on the node, and GKE's Cloud DNS
DNS = [f"{pod} -> {to} TCP 53,UDP 53" for pod in PODS for to in ("kube-system/coredns", *NODE)]
INSIDE = [f"{pod} -> web TCP 8000" for pod in PODS if pod != "web"]
ALLOWED = [f"{other} -> web TCP 8000" for other in OTHERS]
TO_BUNDLED = [f"{pod} -> database TCP 5432" for pod in PODS]
TO_EXTERNAL = [f"{pod} -> 10.0.0.0-10.0.255.255 TCP 6432" for pod in PODS]
TO_S3 = [
    f"{pod} -> {to}"
    for pod in BACKUPS
    for to in (
        "web TCP 8000",
        "database TCP 5432",
        "kube-system/coredns TCP 53,443,UDP 53",
        *(f"{address} TCP 53,443,UDP 53" for address in NODE),
        # S3's addresses change, so these pods may connect to any address on the TLS port.
        "0.0.0.0-169.254.20.9 TCP 443",
        "169.254.20.11-169.254.169.253 TCP 443",
        "169.254.169.255-255.255.255.255 TCP 443",
        "elsewhere/other TCP 443",
        "shop/neighbor TCP 443",
    )
]
EXPECTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bundled": (BUNDLED, [*DNS, *INSIDE, *TO_BUNDLED, *ALLOWED]),
    "external": (EXTERNAL, [*DNS, *INSIDE, *TO_EXTERNAL, *ALLOWED]),
    "metrics for one, pages for another": (
        METRICS,
        [*DNS, *INSIDE, *TO_EXTERNAL, "elsewhere/other -> web TCP 9090", "kube-system/coredns -> web TCP 8000"],
    ),
    "no database": (
        merged(WITHOUT_CLUSTER, SWEEP, {"networkPolicy": {"enabled": True}}),
        [line for line in [*DNS, *INSIDE, *ALLOWED] if "migrate" not in line],
    ),
    "components": (
        merged(
            WITHOUT_CLUSTER,
            {
                "networkPolicy": {"enabled": True},
                "tests": {"enabled": False},
                "extraPorts": [{"name": "grpc", "port": 50051}],
                "components": {"admin": {"port": 5555}, "worker": {}},
            },
        ),
        [
            *(f"{pod} -> {to} TCP 53,UDP 53" for pod in COMPONENTS for to in ("kube-system/coredns", *NODE)),
            *(f"{one} -> web TCP 8000,50051" for one in ("admin", "worker", *OTHERS)),
            *(f"{one} -> admin TCP 5555" for one in ("web", "worker", *OTHERS)),
        ],
    ),
    "a backup to S3": (
        merged(BUNDLED, {"backup": {"enabled": True, "s3": {"uri": "s3://bucket/a/"}}}),
        [*DNS, *INSIDE, *TO_BUNDLED, *ALLOWED, *TO_S3],
    ),
}


def others() -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for path, extra in OTHERS.items():
        namespace, name = path.split("/")
        labels = {"app": name} | extra
        items.append({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"kubernetes.io/metadata.name": namespace}},
        })  # fmt: skip
        items.append({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}},
            },
        })  # fmt: skip
    return items


def short(end: str) -> str:
    """`shop/web-migrate-1a2b3c4d[Job]` is `migrate`; an address range by itself is one address."""
    name, _, kind = end.partition("[")
    name = {"shop/web": "web", "shop/web-postgresql": "database"}.get(name, name).removeprefix("shop/web-")
    first, _, last = name.partition("-")
    if first == last:
        return first
    name = re.sub(r"^(migrate|backup)-[0-9a-f]{8}$", r"\1", name)
    return f"backup[{kind}" if name == "backup" else name


def connections(objects: list[dict[str, Any]], folder: Path) -> set[str]:
    """Return the connections that the release's pods may open and accept."""
    for item in objects:
        item["metadata"]["namespace"] = "shop"
    (folder / "all.yaml").write_text(yaml.safe_dump_all([*objects, *others()]))
    command = [str(programs.binaries("policy") / "netpolicy"), "list", "--quiet", "--dirpath", str(folder)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    allowed = set()
    for line in result.stdout.splitlines():
        ends, _, ports = line.partition(" : ")
        source, _, target = ends.partition(" => ")
        if "shop/web" in ends:
            allowed.add(f"{short(source)} -> {short(target)} {ports}")
    return allowed


@pytest.mark.parametrize("name", EXPECTED)
def test_these_connections_and_no_others(name: str, tmp_path: Path) -> None:
    values, expected = EXPECTED[name]
    allowed = connections(render("flaskapp", values), tmp_path)
    assert allowed == set(expected)


def test_without_the_policies_everything_may_speak(tmp_path: Path) -> None:
    objects = [item for item in render("flaskapp", BUNDLED) if item["kind"] != "NetworkPolicy"]
    assert "elsewhere/other -> database All Connections" in connections(objects, tmp_path)
