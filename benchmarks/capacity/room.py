"""Room on nodes: what they provide, what the system's pods take, what a release requests during a rollout."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
NODE = yaml.safe_load((Path(__file__).parent / "t4g-small.yaml").read_text())
MEBIBYTES = {"Ki": 1 / 1024, "Mi": 1, "Gi": 1024}


@dataclass(frozen=True)
class Room:
    """An amount of millicores, MiB and pods."""

    cpu: int = 0
    memory: int = 0
    pods: int = 0

    def __add__(self, other: Room) -> Room:
        return Room(self.cpu + other.cpu, self.memory + other.memory, self.pods + other.pods)

    def __sub__(self, other: Room) -> Room:
        return self + other * -1

    def __mul__(self, count: int) -> Room:
        return Room(self.cpu * count, self.memory * count, self.pods * count)

    def holds(self, other: Room) -> bool:
        """Return whether the other amount fits into this one."""
        return self.cpu >= other.cpu and self.memory >= other.memory and self.pods >= other.pods

    @property
    def quota(self) -> dict[str, str]:
        """The same as `hard` of a ResourceQuota."""
        return {"requests.cpu": f"{self.cpu}m", "requests.memory": f"{self.memory}Mi", "pods": str(self.pods)}


def room(cpu: str, memory: str, pods: int = 1) -> Room:
    """Parse Kubernetes quantities, such as `100m`, `1` and `128Mi`."""
    millicores = int(cpu[:-1]) if str(cpu).endswith("m") else int(float(cpu) * 1000)
    return Room(millicores, int(int(memory[:-2]) * MEBIBYTES[memory[-2:]]), pods)


def system(nodes: int) -> dict[str, Room]:
    """Return what each add-on takes on this number of nodes."""
    listed = NODE["system"] + (NODE["beyond_one_node"] if nodes > 1 else [])
    each = {item["name"]: (item["pods"], room(item["cpu"], item["memory"])) for item in listed}
    return {name: one * (pods if isinstance(pods, int) else nodes) for name, (pods, one) in each.items()}


def left(nodes: int) -> Room:
    """Return what the add-ons leave of this number of nodes."""
    capacity = room(NODE["node"]["cpu"], NODE["node"]["memory"], NODE["node"]["pods"]) * nodes
    return capacity - sum(system(nodes).values(), Room())


def of_pod(spec: dict[str, Any]) -> Room:
    """Return what the scheduler counts for a pod: its containers together, or its largest init container.

    A native sidecar counts from its start on, beside the init containers after it and the containers.
    """

    def asked(container: dict[str, Any]) -> Room:
        requests = container["resources"]["requests"]
        return room(requests["cpu"], requests["memory"], 0)

    beside, stages = Room(), []
    for container in spec.get("initContainers", []):
        stages.append(asked(container) + beside)
        if container.get("restartPolicy") == "Always":
            beside = stages[-1]
    stages.append(sum(map(asked, spec["containers"]), beside))
    return Room(max(stage.cpu for stage in stages), max(stage.memory for stage in stages), 1)


def render(chart: str, *values: str) -> list[dict[str, Any]]:
    """Render a chart with values files, whose paths are relative to the repository."""
    files = [part for name in values for part in ("--values", name)]
    flaskapp = "postgresql.auth.existingSecret=a,image.repository=flaskapp,image.tag=a"
    settings = ["--set", "auth.existingSecret=a" if chart == "postgresql" else flaskapp]
    subprocess.run(
        ["helm", "dependency", "build", "--skip-refresh", "charts/flaskapp"], cwd=ROOT, check=True, capture_output=True
    )
    command = ["helm", "template", "web", f"charts/{chart}", *files, *settings]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [item for item in yaml.safe_load_all(result.stdout) if item]


def rollout(objects: list[dict[str, Any]]) -> dict[str, Room]:
    """Return the requests in the middle of a rollout: of all serving pods, the surge, the database, the migration."""
    asked: dict[str, Room] = {}
    kinds = {item["kind"]: item for item in objects}
    for item in objects:
        if item["kind"] == "StatefulSet":
            asked["database"] = of_pod(item["spec"]["template"]["spec"])
        if item["kind"] == "Job" and item["metadata"]["labels"]["app.kubernetes.io/component"] == "migration":
            asked["migration"] = of_pod(item["spec"]["template"]["spec"])
        if item["kind"] == "Deployment":
            one = of_pod(item["spec"]["template"]["spec"])
            scaled = kinds.get("HorizontalPodAutoscaler", {}).get("spec", {}).get("minReplicas")
            asked["web"] = one * (scaled or item["spec"]["replicas"])
            asked["web, during a rollout"] = one * int(item["spec"]["strategy"]["rollingUpdate"]["maxSurge"])
    return asked


Plan = tuple[int, list[tuple[str, ...]]]  # nodes, and what is on them: a chart and its values files
LEDGER = "environments/ledger.yaml"
T4G_SMALL = LEDGER, "environments/t4g-small.yaml"
ONE_NODE: Plan = 1, [("flaskapp", *T4G_SMALL)]
PRODUCTION = LEDGER, "environments/production.yaml"
TWO_NODES: Plan = 2, [("flaskapp", *PRODUCTION), ("postgresql", "charts/postgresql-values.yaml")]


def asked(releases: list[tuple[str, ...]]) -> dict[str, Room]:
    """Return what the releases of a plan request together, by component."""
    parts: dict[str, Room] = {}
    for chart, *values in releases:
        parts |= rollout(render(chart, *values))
    return parts


def table(nodes: int, parts: dict[str, Room]) -> list[str]:
    """Return the calculation as a Markdown table."""
    capacity = room(NODE["node"]["cpu"], NODE["node"]["memory"], NODE["node"]["pods"]) * nodes
    lines = ["| what | pods | CPU | memory |", "| --- | ---: | ---: | ---: |"]

    def row(name: str, one: Room) -> None:
        lines.append(f"| {name} | {one.pods} | {one.cpu}m | {one.memory} MiB |")

    row(f"**{nodes} x t4g.small gives**", capacity)
    for name, one in (system(nodes) | parts).items():
        row(name, one)
    row("**still free**", left(nodes) - sum(parts.values(), Room()))
    return lines
