"""The chart's NetworkPolicies, enforced: kube-router runs on every node for one test.

The local Kubernetes has no enforcer of its own; tests/chart/test_connectivity.py has the whole list.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from flaskapp_deploy import programs
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.programs import packages
from tests.kubernetes import LEDGER, ROOT
from tests.reliability.test_release import CHART, get, wait

Releaser = Callable[[str], Cluster]
HOME, FRIENDS = "enforced", "enforced-friends"
OURS = r"KUBE-ROUTER|KUBE-POD-FW|KUBE-NWPLCY"
LISTEN = ["python", "-m", "http.server", "8080", "--directory", "/tmp"]
# Source, target, and whether it is allowed. `web` is the release's; the other two are unrelated pods.
EXPECTED = {
    ("friend", "web"): True,
    ("friend", "database"): False,
    ("friend", "neighbor"): True,
    ("neighbor", "web"): False,
    ("neighbor", "database"): False,
    ("web", "database"): True,
    ("web", "neighbor"): False,
    ("web", "friend"): False,
}


@contextmanager
def enforcer(instance: LocalCluster, node: str, log: Path) -> Iterator[None]:
    """Run kube-router's firewall in a node's network, and remove all of it afterwards."""
    inside = ["ip", "netns", "exec", instance.namespace(node)]
    program = programs.binaries("enforcer") / "kube-router"
    options = [f"--kubeconfig={instance.kubeconfig}", f"--hostname-override={node}"]
    options += ["--run-router=false", "--run-service-proxy=false", f"--service-cluster-ip-range={instance.services}"]
    # Pods of one node communicate over its bridge, which bypasses the rules unless this is on.
    subprocess.run([*inside, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1"], check=True)
    try:
        with (
            log.open("w") as output,
            subprocess.Popen([*inside, program, *options], stdout=output, stderr=output) as it,
        ):
            try:
                yield
            finally:
                it.terminate()
    finally:
        clean = f"iptables-save | grep -Ev '{OURS}' | iptables-restore"
        subprocess.run([*inside, "bash", "-euo", "pipefail", "-c", clean], check=True)


def pod(cluster: Cluster, name: str, image: str) -> None:
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "app", "image": image, "command": LISTEN, "securityContext": context}],
    }
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(made))
    cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")


def test_what_is_let_through(
    kubernetes: LocalCluster, releaser: Releaser, admin: Releaser, images: dict[str, str], tmp_path: Path
) -> None:
    packages.ensure({"ipset": "ipset"})
    home, friends = releaser(HOME), releaser(FRIENDS)
    repository, _, tag = images["flaskapp"].rpartition(":")
    peers = f"networkPolicy.ingressFrom[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name={FRIENDS}"
    values = ["--values", LEDGER, "--values", str(ROOT / "environments/dev.yaml")]
    values += ["--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}"]
    values += ["--set", f"networkPolicy.enabled=true,{peers}"]
    home.helm("upgrade", "--install", "web", CHART, "--wait", "--wait-for-jobs", "--timeout=3m", *values)
    pod(home, "neighbor", images["hello"])
    pod(friends, "friend", images["hello"])
    places = {"web": admin(HOME), "neighbor": admin(HOME), "friend": admin(FRIENDS)}
    targets = {"web": (f"web.{HOME}", 80), "database": (f"web-postgresql.{HOME}", 5432)}
    for name in ("neighbor", "friend"):
        targets[name] = (get(places[name], "pod", name)["status"]["podIP"], 8080)

    def reaches(source: str, target: str) -> bool:
        host, port = targets[target]
        script = f"import socket; socket.create_connection(({host!r}, {port}), timeout=2)"
        place = "deployment/web" if source == "web" else source
        command = ["exec", place, "--container=app", "--", "python", "-c", script]
        return places[source].kubectl(*command, check=False).returncode == 0

    def reachable() -> dict[tuple[str, str], bool]:
        return {pair: reaches(*pair) for pair in EXPECTED}

    everything = dict.fromkeys(EXPECTED, True)
    assert reachable() == everything
    with ExitStack() as stack:
        for node in kubernetes.nodes:
            stack.enter_context(enforcer(kubernetes, node, tmp_path / f"{node}.log"))
        wait(lambda: not reaches("neighbor", "database"), 60, "the first policy")
        assert reachable() == EXPECTED
        # What the policies allow is enough for the release, from its first start on.
        home.helm("upgrade", "web", CHART, "--wait", "--wait-for-jobs", "--timeout=3m", *values, "--set", "config.A=b")
        home.helm("test", "web")
    assert reachable() == everything
