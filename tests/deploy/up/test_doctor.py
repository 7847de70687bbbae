"""Each reason why a release is not ready, made on the cluster, and what `deploy/flaskapp-deploy doctor` says of it.

One release is well and lends the others its database; they stand side by side, each with one mistake. LONG=1 makes
them all, else those that people meet most.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import yaml

from flaskapp_deploy.kubernetes import Cluster
from tests.kubernetes import INSTANCE, LEDGER, ROOT

NAMESPACE = "release-doctor"
CHART = str(ROOT / "charts/flaskapp")
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "memory"},
    "spec": {"hard": {"requests.memory": "16Gi"}},
}
BORROWED = {
    "host": "well-postgresql",
    "existingSecret": "well-postgresql",
    "name": "flaskapp",
    "username": "flaskapp",
    "owner": {"username": "flaskapp_owner"},
}
ALIKE = {
    "replicas": 1,
    "autoscaling": {"enabled": False},
    "postgresql": {"enabled": False},
    "database": BORROWED,
    "migrations": {"command": []},
}
SLEEPS = {"command": ["sleep", "3600"], "probes": {"startup": None, "readiness": None, "liveness": None}}


def python(code: str) -> list[str]:
    return ["python", "-c", code]


# gunicorn with an application that reads a variable which is not set.
UNSET = """
import os, pathlib
pathlib.Path("/tmp/unset.py").write_text("import os\\n\\nTOKEN = os.environ['TOKEN']\\n")
os.execvp("gunicorn", ["gunicorn", "--config=/dev/null", "--chdir=/tmp", "--no-control-socket", "unset"])
"""

# What is wrong; what is said to be the cause; what is said to be the way out.
BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "image": (
        {"image": {"repository": "localhost/flaskapp", "tag": "absent"}},
        "the image localhost/flaskapp:absent can't be pulled",
        "image.tag",
    ),
    "quota": (
        {"resources": {"requests": {"memory": "64Gi"}, "limits": {"memory": "64Gi"}}},
        "the namespace's quota is used up: .*exceeded quota: memory",
        "ResourceQuota",
    ),
    "volume": (
        {"postgresql": {"primary": {"persistence": {"storageClass": "absent"}}, "enabled": True}, "database": {}},
        "the volume is pending",
        "kubectl get storageclass",
    ),
    "metrics": (SLEEPS | {"autoscaling": {"enabled": True}}, "the autoscaler has no metrics", "metrics.k8s.io"),
    "password": (
        {
            "database": BORROWED | {"existingSecret": "wrong"},
            "migrations": {"mode": "hook", "command": ["python", "-m", "flaskapp", "db", "wait"]},
            "serviceAccount": {"create": False},
        },
        'password authentication failed for user "flaskapp_owner"',
        "make Secret and server agree",
    ),
    "migration": (
        {"migrations": {"mode": "job", "backoffLimit": 0, "command": python("raise SystemExit('no such column')")}},
        "the migration failed: no such column",
        "migrations.retry",
    ),
    "node": ({"nodeSelector": {"disk": "absent"}}, "no node takes the pod", "nodeSelector"),
    "crash": (
        {"command": python("raise SystemExit('no KEY')")},
        r"ends again and again \(exit code 1\): no KEY",
        "logs",
    ),
    "variable": (
        {"command": python(UNSET)},
        r"ends again and again \(exit code 3\): KeyError: 'TOKEN' \(/tmp/unset.py:3\)",
        "logs",
    ),
    "startup": (
        {"probes": {"startup": {"httpGet": {"path": "/nope"}, "failureThreshold": 15}}},
        "startup probe GET /nope on port http: 404, so the kubelet restarts the container",
        "probes.startup.httpGet.path",
    ),
    "readiness": (
        {"probes": {"readiness": {"httpGet": {"path": "/nope"}}}},
        "readiness probe GET /nope on port http: 404",
        "probes.readiness.httpGet.path",
    ),
    "memory": ({"command": python("print(len('x' * 10**9))")}, "out of memory", "resources.limits.memory"),
    "setting": ({"secrets": {"existingSecret": "absent"}}, 'a setting is missing: secret "absent" not found', "Secret"),
    "mount": (
        {"database": BORROWED | {"existingSecret": "absent"}},
        'a volume can\'t be mounted: .*secret "absent" not found',
        "make the object",
    ),
    "security": (
        {"podSecurityContext": {"runAsNonRoot": False}},
        "Pod Security refuses the pods: .*runAsNonRoot",
        "securityContext",
    ),
}

MOST_MET = {"image", "quota", "volume", "password", "migration", "variable", "startup", "readiness"}
CHOSEN = [name for name in BROKEN if name in MOST_MET or os.environ.get("LONG")]


def doctor(release: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "flaskapp_deploy", "doctor", "--instance", INSTANCE]
    command += ["--release", release, "--namespace", NAMESPACE]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def says(release: str, cause: str, seconds: float = 90) -> str:
    """Ask until the line with the cause is there, and return it; nothing else may go on for ever."""
    end = time.monotonic() + seconds
    while True:
        asked = doctor(release)
        match = [line for line in asked.stdout.splitlines() if re.search(cause, line)]
        if match:
            assert asked.returncode == 1, "there is a cause, and the exit code says that all is well"
            return match[0]
        assert time.monotonic() < end, f"{release}: no {cause!r} in {asked.stdout}{asked.stderr}"
        time.sleep(3)


class FaultInjector:
    """The namespace of all of them."""

    def __init__(self, admin: Cluster, cluster: Cluster, image: str) -> None:
        self.admin, self.cluster = admin, cluster
        repository, _, tag = image.rpartition(":")
        self.image = {"repository": repository, "tag": tag}

    def command(self, release: str, values: dict[str, Any]) -> list[str]:
        """`helm upgrade --install` of it, which waits for nothing."""
        file = ROOT / f"build/release/doctor-{release}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump({"image": self.image} | values))
        return ["upgrade", release, CHART, "--install", "--values", LEDGER, "--values", str(file)]

    def secret(self, name: str, **data: str) -> None:
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        self.admin.kubectl("create", "-f", "-", stdin=yaml.safe_dump(manifest))


@pytest.fixture(scope="module")
def injector(
    admin: Callable[[str], Cluster], releaser: Callable[[str], Cluster], images: dict[str, str]
) -> Iterator[FaultInjector]:
    cluster = releaser(NAMESPACE)
    subprocess.run(["helm", "dependency", "build", "--skip-refresh", CHART], check=True, capture_output=True)
    made = FaultInjector(admin(NAMESPACE), cluster, images["flaskapp"])
    made.admin.kubectl("create", "-f", "-", stdin=yaml.safe_dump(QUOTA))
    made.secret("wrong", **{"password": "not this one", "owner-password": "nor this one"})
    with without_metrics(admin("kube-system")) if "metrics" in CHOSEN else nullcontext():
        cluster.helm(*made.command("well", {"replicas": 1}), "--wait", "--timeout=4m")
        for name in CHOSEN:
            command = made.command(name, ALIKE | BROKEN[name][0])
            if name == "password":  # its hook waits for the database, and helm for the hook
                command += ["--timeout=2s"]
            cluster.helm(*command, check=name != "password")
        yield made
    made.admin.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@contextmanager
def without_metrics(system: Cluster) -> Iterator[None]:
    system.kubectl("scale", "deployment/metrics-server", "--replicas=0")
    try:
        yield
    finally:  # no namespace can be removed while it is away
        system.kubectl("scale", "deployment/metrics-server", "--replicas=1")


def test_a_release_that_is_well(injector: FaultInjector) -> None:
    asked = doctor("well")
    assert (asked.stdout, asked.returncode) == ("well is ready: nothing found\n", 0)


@pytest.mark.parametrize("release", CHOSEN)
def test_cause(injector: FaultInjector, release: str) -> None:
    _, cause, way_out = BROKEN[release]
    line = says(release, cause)
    assert way_out in line.partition(" Next: ")[2], line


def test_a_lock_and_the_command_that_frees_it(injector: FaultInjector) -> None:
    """helm is killed amid a first installation and amid an upgrade; what the doctor says is done, and helps."""
    helm = str(injector.cluster.program("helm", "chart"))
    environment = os.environ | {"KUBECONFIG": str(injector.cluster.kubeconfig)}
    for attempt in range(2):
        values = ALIKE | SLEEPS | {"nodeSelector": {"disk": "absent"}, "config": {"ATTEMPT": str(attempt)}}
        command = [helm, *injector.command("locked", values), "--wait", "--namespace", NAMESPACE]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        line = says("locked", "pending-(install|upgrade)")
        process.kill()
        process.wait()
        told = re.search(r"`helm (rollback [^`]*)`", line)
        assert told, line
        injector.cluster.helm(*shlex.split(told[1].replace(f" --namespace {NAMESPACE}", "")))
        injector.cluster.helm(*injector.command("locked", ALIKE | SLEEPS))
        end = time.monotonic() + 60
        while doctor("locked").returncode:
            assert time.monotonic() < end, doctor("locked").stdout
            time.sleep(2)


def test_no_such_release(injector: FaultInjector) -> None:
    asked = doctor("absent")
    assert asked.returncode == 1
    assert asked.stderr.startswith("error: there is no release 'absent' in the namespace 'release-doctor'")
    assert asked.stderr.count("\n") == 1
