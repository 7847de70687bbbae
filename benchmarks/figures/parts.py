"""The parts of `make bench`: each returns figures, or raises UnableError with the reason."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from benchmarks.capacity import measure as capacity
from benchmarks.chart.__main__ import alternating
from benchmarks.figures import cold as machine
from benchmarks.figures.figure import Figure
from benchmarks.service import __main__ as ledger
from benchmarks.service.setup import Side, get, load, postgres, prepared, timed
from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.images import baseimages, buildkit, image, packageindex
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import wait_until

ROOT = Path(__file__).resolve().parents[2]
INSTANCE = os.environ.get("INSTANCE", "bench")
# The Dockerfile of most tutorials: one stage, all files copied, requirements installed. pip has this machine's settings
# as secrets.
PLAIN = f"""\
FROM {baseimages.PYTHON}
WORKDIR /app
COPY . .
RUN --mount=type=secret,id=index --mount=type=secret,id=ca \\
    . /run/secrets/index; PIP_BREAK_SYSTEM_PACKAGES=1 python -m pip install -r requirements.lock
CMD ["gunicorn", "--chdir", "src"]
"""


class UnableError(Exception):
    """A part can't run on this machine; the message says why."""


def need_root() -> None:
    """Raise UnableError unless this runs as root."""
    if os.geteuid() != 0:
        raise UnableError("it needs root")


def render() -> list[Figure]:
    """Measure `helm template` against the chart that `helm create` makes."""
    _, ours, theirs = alternating(rounds=15).values()
    cpu = Figure("`helm template`", "ms of CPU", [t[1] for t in ours], "`helm create`", [t[1] for t in theirs])
    clock = Figure("`helm template`", "ms", [t[0] for t in ours], "`helm create`", [t[0] for t in theirs])
    return [cpu, clock]


def service() -> list[Figure]:
    """Measure one worker of the service, of Flask with an ORM and of raw WSGI; and the service's start."""
    with postgres() as (server, _), ExitStack() as stack:
        environment = prepared(server, "small", 10_000, ledger.GAP)
        modules = {"flaskapp": "", "orm": "benchmarks.service.orm:app", "raw": "benchmarks.service.raw:app"}
        sides = {name: Side(stack, environment, module) for name, module in modules.items()}
        rates, _ = ledger.alternating(sides, get("/api/v1/deployments"), rounds=5, seconds=1)
        ready, bare = ledger.starts(environment)
    return [
        Figure("reads of twenty, one worker", "1/s", rates["flaskapp"], "Flask with an ORM", rates["orm"]),
        Figure("reads of twenty, one worker", "1/s", rates["flaskapp"], "raw WSGI", rates["raw"]),
        Figure("start to `/readyz`", "s", ready, "import of its libraries", bare),
    ]


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Run a command in the repository and return its output; raise UnableError if it fails."""
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise UnableError(f"`{' '.join(command)[:60]}` failed: {(result.stderr or result.stdout).strip()[-200:]}")
    return result.stdout


def image_size() -> list[Figure]:
    """Measure the compressed layers above the base against a plain `FROM python` with `pip install`."""
    need_root()
    with tempfile.TemporaryDirectory() as folder, buildkit.daemon() as builder:
        work = Path(folder)
        ours = image.build_image(ROOT, name="flaskapp", builder=builder)
        base = baseimages.python(builder)
        context = work / "plain"
        context.mkdir()
        run(["cp", "-r", "src", "requirements.lock", str(context)])
        run(["find", str(context), "-name", "__pycache__", "-prune", "-exec", "rm", "-rf", "{}", "+"])
        (context / "Dockerfile").write_text(PLAIN)
        bases = {baseimages.PYTHON: base.layout} if base.layout else {}
        settings = packageindex.secrets(work)
        layout = builder.build(context, work / "image", what="a plain image", bases=bases, secrets=settings)
        sizes = [int(layer["size"]) for layer in layout.layers]
    below = len(ours.layers) - len(ours.own_layers)
    mine, plain = sum(size for _, size in ours.own_layers) / 2**20, sum(sizes[below:]) / 2**20
    return [Figure("image above its base", "MiB", [mine], "plain Dockerfile", [plain])]


def up() -> list[Figure]:
    """Measure `make up`, what its release uses, and how soon the autoscaler follows a step of load."""
    need_root()
    make = ["make", "--no-print-directory", "up", f"INSTANCE={INSTANCE}"]
    try:
        first = timed(lambda: run(make))
        again = [timed(lambda: run(make)) for _ in range(3)]
        cluster = Cluster(lifecycle.existing(INSTANCE).kubeconfig, "", "flaskapp")
        memory = working_set(cluster)
        reaction = autoscaled(cluster)
    finally:
        lifecycle.down(INSTANCE)
    return [
        Figure("`make up`, tools built, no cluster yet", "s", [first]),
        Figure("`make up` again", "s", again),
        *(Figure(f"working set of {pod}, after 20 s of load", "MiB", [size]) for pod, size in memory.items()),
        Figure("from a step of load to the second ready pod", "s", [reaction]),
    ]


def url(cluster: Cluster) -> str:
    """Forward a local port to the release, and return its URL."""
    return lifecycle.forward(INSTANCE, cluster.namespace, "flaskapp")


def cold() -> list[Figure]:
    """Measure the first `make up` of a machine, by compiling with each program's share, and by downloads."""
    need_root()
    with machine.mirror() as settings:
        try:
            compiled, log = machine.first_up(INSTANCE, {"FLASKAPP_DOWNLOADS": "off"})
            lifecycle.down(INSTANCE)
            downloaded, _ = machine.first_up(INSTANCE, settings)
        finally:
            lifecycle.down(INSTANCE)
    shares = sorted(machine.shares(log).items(), key=lambda share: -share[1])
    return [
        Figure("first `make up`, empty caches, programs downloaded from this machine", "s", [downloaded]),
        Figure("first `make up`, empty caches, programs compiled", "s", [compiled]),
        *(Figure(f"of that, until {name} was compiled", "s", [share]) for name, share in shares if share >= 2),
    ]


def working_set(cluster: Cluster) -> dict[str, float]:
    """Return MiB of the release, its database and its one replica, by the kubelet, after 20 seconds of load."""
    load(int(url(cluster).rpartition(":")[2]), get("/api/v1/deployments"), 20)
    used = capacity.settled(cluster, time.time())
    replica, database = used["web"].memory, used["database"].memory
    return {"the whole release": replica + database, "the database": database, "a replica": replica}


def autoscaled(cluster: Cluster) -> float:
    """Return the seconds from the first request of a steady load until a second pod is ready."""
    scaling = {
        "minReplicas": 1,
        "maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "flaskapp"},
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},  # earlier load must not count
    }
    scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "step"}}
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(scaler | {"spec": scaling | metric(70)}))
    port = url(cluster).rpartition(":")[2]
    wait_until(lambda: at_rest(cluster), 240, "the autoscaler `step` at rest at one pod", [])
    command = [sys.executable, "-m", "benchmarks.service.load", port, "8", "240", "150", "0"]
    loading = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=-3, stderr=-3, cwd=ROOT)
    assert loading.stdin
    loading.stdin.write(get("/api/v1/deployments"))
    loading.stdin.close()
    began = time.monotonic()
    try:
        while time.monotonic() - began < 240:
            status = json.loads(cluster.kubectl("get", "deployment", "flaskapp", "--output=json").stdout)["status"]
            if status.get("readyReplicas", 0) > 1:
                return time.monotonic() - began
            time.sleep(1)
    finally:
        loading.kill()
        loading.wait()
    raise UnableError("the autoscaler added no pod in 240 s")


def at_rest(cluster: Cluster) -> bool:
    """Return whether the autoscaler has a reading below 50 %, and the one pod that it wants is there."""
    document = json.loads(cluster.kubectl("get", "horizontalpodautoscaler", "step", "--output=json").stdout)["status"]
    metrics = [each.get("resource", {}).get("current", {}) for each in document.get("currentMetrics", [])]
    deployment = json.loads(cluster.kubectl("get", "deployment", "flaskapp", "--output=json").stdout)["status"]
    quiet = any(current.get("averageUtilization", 100) < 50 for current in metrics)
    return quiet and deployment.get("replicas") == deployment.get("readyReplicas") == 1


def metric(utilization: int) -> dict[str, Any]:
    """Return the part of an autoscaler's spec that targets this CPU utilization in percent."""
    target = {"type": "Utilization", "averageUtilization": utilization}
    return {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}


def replicas() -> list[Figure]:
    """Measure the CPU time of a read of twenty, web pods and database together, with one, two and three pods."""
    need_root()
    each: dict[int, list[float]] = {}
    try:
        cluster, address = capacity.install(lifecycle.up(INSTANCE))
        capacity.filled(cluster, address)
        for _ in range(3):
            for pods, rate, used in capacity.by_replicas(cluster, address, seconds=20):
                each.setdefault(pods, []).append(capacity.milliseconds(rate, used))
    finally:
        lifecycle.down(INSTANCE)
    return [Figure(f"CPU of a read of twenty, {pods} pods", "ms", each[pods], "one pod", each[1]) for pods in (2, 3)]


def pipeline() -> list[Figure]:
    """Measure `make pipeline`: buildspec.yml from its first line to a release."""
    need_root()
    began = time.perf_counter()
    run(["make", "--no-print-directory", "pipeline", f"INSTANCE={INSTANCE}"])
    took = time.perf_counter() - began
    log = (ROOT / "build/pipeline/build.log").read_text()
    checks = re.findall(r"check: passed in (\d+) s", log)
    total = [Figure("`make pipeline`", "s", [took])]
    return [*total, *(Figure("of that, its checks", "s", [float(value)]) for value in checks)]


PARTS: dict[str, Callable[[], list[Figure]]] = {
    "pipeline": pipeline,  # first, as it requires a clean work tree and the others change results.json
    "render": render,
    "service": service,
    "image": image_size,
    "up": up,
    "replicas": replicas,
    "cold": cold,
}
