"""The local cluster as people use it: up, twice, side by side, repaired, and gone without a trace.

The tests of this module follow each other on the same two instances.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from flaskapp_deploy import shell
from flaskapp_deploy.cluster import controlplane, lifecycle, localcluster, network, node
from flaskapp_deploy.cluster.localcluster import GATEWAY, LocalCluster
from flaskapp_deploy.shell import DeployError

ONE, TWO = "side-one", "side-two"
RESOLVER = "127.0.0.153"  # on this machine's loopback, as systemd-resolved is
VOLUME = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: busybox
      image: localhost/busybox:1
      command: [/busybox, sh, -c, "%s; /busybox sleep 600"]
      volumeMounts: [{name: kept, mountPath: /kept}]
      readinessProbe: {exec: {command: [/busybox, test, -s, /kept/row]}, periodSeconds: 1}
  volumes: [{name: kept, persistentVolumeClaim: {claimName: kept}}]
"""


@dataclass(frozen=True)
class Trace:
    """What a cluster has on the machine, of which `down` leaves nothing."""

    lines: frozenset[str]

    @classmethod
    def take(cls) -> "Trace":
        def output(*command: str) -> list[str]:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

        lines = [f"namespace {line.split()[0]}" for line in output("ip", "netns", "list") if line.strip()]
        lines += [f"link {link['ifname']}" for link in json.loads("".join(output("ip", "-j", "link")))]
        lines += [f"route {route['dst']}" for route in json.loads("".join(output("ip", "-j", "-4", "route")))]
        lines += [f"rule {line}" for line in rules()]
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        # An image build that runs meanwhile mounts in the cache, where no cluster does.
        lines += [f"mount {path}" for path in mounts if not Path(path).is_relative_to(shell.cache())]
        lines += [f"group {path}" for path in Path("/sys/fs/cgroup").glob("*/flaskapp-*")]
        lines += [f"directory {path}" for root in ("/run", "/var/lib") for path in Path(root).iterdir()]
        lines += [f"directory {path}" for path in localcluster.state_root().glob("*")]
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = process.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            # Threads of the kernel have no command line; ours name an instance in a path or namespace.
            lines += [f"process {words}"] if "side-one" in words or "side-two" in words else []
        return cls(frozenset(lines))


def kubectl(cluster: LocalCluster, *arguments: str, stdin: str = "", check: bool = True) -> str:
    result = cluster.admin().kubectl(*arguments, stdin=stdin, check=check)
    return result.stdout + result.stderr


def ready(cluster: LocalCluster) -> set[str]:
    nodes = json.loads(kubectl(cluster, "get", "nodes", "--output=json"))["items"]
    return {
        one["metadata"]["name"]
        for one in nodes
        for condition in one["status"]["conditions"]
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }


def rules() -> list[str]:
    """What this machine's firewall does."""
    commands = (["iptables-save"], ["nft", "list", "ruleset"]) if shutil.which("nft") else (["iptables-save"],)
    output = "".join(subprocess.run(command, capture_output=True, text=True).stdout for command in commands)
    return [line for line in output.splitlines() if not line.startswith(("#", ":"))]


@contextmanager
def resolver() -> Iterator[None]:
    """Answer every question on RESOLVER with the address 203.0.113.7."""

    def answer() -> None:
        with suppress(OSError):
            while True:
                query, sender = server.recvfrom(512)
                if not query:  # it was shut down
                    return
                question = query[12 : query.index(0, 12) + 5]
                record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xcb\x00\x71\x07"
                count = 1 if question.endswith(b"\0\1\0\1") else 0
                header = query[:2] + b"\x81\x80\x00\x01" + bytes([0, count, 0, 0, 0, 0])
                server.sendto(header + question + record * count, sender)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((RESOLVER, 53))
        threading.Thread(target=answer, daemon=True).start()
        yield
        with suppress(OSError):  # it wakes the thread although nothing is connected
            server.shutdown(socket.SHUT_RDWR)


@contextmanager
def web_server(directory: Path) -> Iterator[int]:
    """Serve a directory on 127.0.0.1, and give the port."""

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(directory))

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def in_mount_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script where mounts are its own."""
    command = ["unshare", "--mount", "--propagation=private", "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True)


def processes_of(word: str) -> set[int]:
    """Ids of the programs that have `word` in their command line; the shell that keeps them has none."""
    pids = set()
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word.encode() in line.read_bytes():
                pids.add(int(line.parent.name))
    return pids


@pytest.fixture(scope="module")
def before() -> Trace:
    if os.geteuid() != 0:
        pytest.fail("the local cluster needs root")
    for name in (ONE, TWO):  # what an interrupted run may have left
        lifecycle.down(name)
    return Trace.take()


@pytest.fixture(scope="module")
def one(before: Trace) -> Iterator[LocalCluster]:
    yield lifecycle.up(ONE)
    lifecycle.down(ONE)


@pytest.fixture(scope="module")
def two(before: Trace) -> Iterator[LocalCluster]:
    yield lifecycle.up(TWO)
    lifecycle.down(TWO)


def test_two_instances_side_by_side(one: LocalCluster, two: LocalCluster) -> None:
    assert ready(one) == ready(two) == {"n1"}
    assert not one.network.overlaps(two.network)
    assert set(localcluster.names()) >= {ONE, TWO}


def test_up_again_starts_nothing(one: LocalCluster) -> None:
    def processes() -> dict[str, set[int]]:
        control = {one.process(part).pid for part in (*controlplane.PROGRAMS, GATEWAY, "n1")}
        inside = {name: processes_of(f"{one.run}/n1/{name}") for name in ("containerd.toml", "kube-proxy.yaml")}
        return {"control": {pid for pid in control if pid}, **inside}

    before = processes()
    assert list(map(len, before.values())) == [6, 1, 1]
    lifecycle.up(ONE)
    time.sleep(2)  # kube-proxy sees a changed file at once, and ends
    assert processes() == before


def test_nobody_comes_in_without_a_certificate(one: LocalCluster) -> None:
    authority = str(controlplane.authority(one).certificate_path)
    for address in (f"{one.server}/api", f"https://{one.node_address('n1')}:10250/pods"):
        assert requests.get(address, verify=authority, timeout=10).status_code == 401, address


def test_a_volume_outlives_its_pod(one: LocalCluster) -> None:
    kubectl(one, "apply", "-f", "-", stdin=VOLUME % "echo one > /kept/row")
    kubectl(one, "wait", "--for=condition=Ready", "pod/writer", "--timeout=60s")
    kubectl(one, "delete", "pod", "writer", "--wait")
    kubectl(one, "apply", "-f", "-", stdin=VOLUME % "/busybox true")
    kubectl(one, "wait", "--for=condition=Ready", "pod/writer", "--timeout=60s")
    assert kubectl(one, "exec", "writer", "--", "/busybox", "cat", "/kept/row").strip() == "one"


def test_cluster_names_resolve_whatever_the_kernels_defaults(one: LocalCluster) -> None:
    def answer() -> str:
        asked = ["/busybox", "timeout", "10", "/busybox", "nslookup", "kubernetes.default.svc.cluster.local"]
        return kubectl(one, "exec", "writer", "--", *asked, check=False)

    assert str(one.services[1]) in answer()
    settings = ["net.bridge.bridge-nf-call-iptables=0", "net.ipv4.ip_forward=0", "net.ipv4.conf.all.rp_filter=1"]
    inside = ["ip", "netns", "exec", one.namespace("n1")]
    subprocess.run([*inside, "sysctl", "-qw", *settings], check=True)
    assert str(one.services[1]) not in answer()
    lifecycle.up(ONE)
    assert str(one.services[1]) in answer()


def test_pods_reach_the_outside_unless_it_is_shut(one: LocalCluster, two: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("from this machine")
    (tmp_path / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")

    def up(prepare: str) -> str:
        result = in_mount_namespace(f"{prepare} {sys.executable} -m flaskapp_deploy cluster up --name {ONE}")
        assert result.returncode == 0, result.stderr
        return result.stderr

    def page() -> str:
        # In the pod's network, by this machine's Python: the wget of a static busybox crashes.
        identifier = "--output=jsonpath={.status.containerStatuses[0].containerID}"
        container = kubectl(one, "get", "pod", "writer", identifier).rpartition("/")[2]
        pid = next(path.parent.name for path in Path("/proc").glob("[0-9]*/cgroup") if container in path.read_text())
        fetch = (
            f"import urllib.request as u; print(u.urlopen('http://{one.host_loopback}:{port}/page', timeout=5).read())"
        )
        result = shell.run("nsenter", f"--target={pid}", "--net", sys.executable, "-c", fetch, check=False)
        return result.stdout + result.stderr

    def resolve(name: str) -> str:
        asked = ["/busybox", "timeout", "10", "/busybox", "nslookup", name]
        return kubectl(one, "exec", "writer", "--", *asked, check=False)

    def of_this_machine() -> tuple[list[str], list[str]]:
        routes = shell.run("ip", "route").stdout.splitlines()  # other clusters come and go
        return rules(), [line for line in routes if "dev flaskapp" not in line or f"dev {one.host_link} " in line]

    with web_server(tmp_path) as port, resolver():
        up("EGRESS=0")
        assert lifecycle.status(one).get(GATEWAY) is None
        before = of_this_machine()
        assert "Network is unreachable" in page()
        assert "203.0.113.7" not in resolve("shut.example.org")
        assert "pods reach nothing outside the cluster: there is no /dev/net/tun" in up(
            "mount -t tmpfs tmpfs /dev/net && env"
        )
        assert "Network is unreachable" in page()

        up(f"mount --bind {tmp_path}/resolv.conf $(readlink -f /etc/resolv.conf) && env")
        assert of_this_machine() == before
        assert "from this machine" in page()
        assert str(one.host_loopback) in resolve("host.flaskapp.internal")
        assert "203.0.113.7" in resolve("open.example.org")
        by_the_node = shell.run(*node.enter(one, "n1", "getent", "ahostsv4", "node.example.org")).stdout
        assert by_the_node.startswith("203.0.113.7 ")
        # slirp4netns itself, not what starts it again
        [pid] = processes_of(one.namespace(GATEWAY)) - {one.process(GATEWAY).pid}
        os.kill(pid, signal.SIGKILL)
        shell.wait_until(lambda: "from this machine" in page(), 20, "the page")
    for cluster in (one, two):  # what its sandbox unmounts stays where it is on this machine
        network.ip("link", "show", "lo", namespace=cluster.namespace("fabric"))


def test_a_kernel_without_the_bridge_filter_is_named() -> None:
    hidden = "mount -t tmpfs tmpfs /proc/sys/net/bridge && "
    result = in_mount_namespace(hidden + f"{sys.executable} -m flaskapp_deploy cluster up --name side-one")
    assert result.returncode != 0
    assert "the kernel module br_netfilter is missing" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_machine_where_nothing_in_run_can_be_executed() -> None:
    """As on every Debian with systemd; the node must be ready there, and gone again."""
    command = f"{sys.executable} -m flaskapp_deploy cluster"
    result = in_mount_namespace(
        "mount -t tmpfs -o noexec,nosuid,nodev tmpfs /run && cp /bin/true /run/true && ! /run/true 2> /dev/null &&"
        f" {command} up --name side-noexec && {command} status --name side-noexec; code=$?;"
        f" {command} down --name side-noexec; exit $code"
    )
    assert result.returncode == 0, result.stderr
    assert "stopped" not in result.stdout


def test_a_namespace_enforces_pod_security(one: LocalCluster) -> None:
    kubectl(one, "create", "namespace", "strict")
    kubectl(one, "label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    pod = list(yaml.safe_load_all(VOLUME % "true"))[1] | {"metadata": {"name": "refused", "namespace": "strict"}}
    refused = kubectl(one, "create", "-f", "-", stdin=yaml.safe_dump(pod), check=False)
    assert "violates PodSecurity" in refused


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_service_on_loopback(one: LocalCluster) -> None:
    url = lifecycle.forward(ONE, "kube-system", "metrics-server")
    assert url.startswith("http://127.0.0.1:")
    assert lifecycle.forward(ONE, "kube-system", "metrics-server") == url
    answer = requests.get(url.replace("http", "https") + "/livez", verify=False, timeout=10)  # noqa: S501
    assert answer.status_code in (200, 401, 403)


def test_up_repairs_after_a_crash(one: LocalCluster) -> None:
    """A crash of everything at once, as a reboot is: no process in it may clean up."""
    for part in (*controlplane.PROGRAMS, GATEWAY, "n1"):
        pid = one.process(part).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    time.sleep(1)
    states = lifecycle.status(one)
    assert set(states.values()) == {"stopped"}
    lifecycle.up(ONE)
    # The pod's state is the one from before the crash until its kubelet has looked; its answer is of now.
    deadline = time.monotonic() + 90
    while kubectl(one, "exec", "writer", "--", "/busybox", "cat", "/kept/row", check=False).strip() != "one":
        assert time.monotonic() < deadline, "the volume did not come back"
        time.sleep(1)


def test_nodes_are_added_drained_and_stopped(two: LocalCluster) -> None:
    assert lifecycle.add_node(TWO) == "n2"
    cluster = lifecycle.existing(TWO)
    assert ready(cluster) == {"n1", "n2"}

    lifecycle.drain_node(TWO, "n2", 60)
    assert "SchedulingDisabled" in kubectl(cluster, "get", "node", "n2")
    lifecycle.stop_node(TWO, "n2")
    assert lifecycle.status(cluster)["n2"] == "stopped"
    deadline = time.monotonic() + 90
    while ready(cluster) != {"n1"}:
        assert time.monotonic() < deadline, "the stopped node still counts as ready"
        time.sleep(1)
    lifecycle.up(TWO)
    assert ready(cluster) == {"n1", "n2"}
    assert "SchedulingDisabled" not in kubectl(cluster, "get", "node", "n2")


@pytest.mark.parametrize(
    ("program", "port", "reason"),
    [
        ("etcd", 2379, "bind: address already in use"),
        ("kube-apiserver", 6443, "bind: address already in use"),
        ("kube-controller-manager", 10257, "bind: address already in use"),
        ("kube-scheduler", 10259, "bind: address already in use"),
    ],
)
def test_a_part_that_cannot_start_says_why(one: LocalCluster, program: str, port: int, reason: str) -> None:
    """Its port is another program's; the last lines are its own, and not those of what depends on it."""
    one.process(program).stop()
    address = str(one.control_address) if program == "kube-apiserver" else "127.0.0.1"
    listen = ["socat", f"TCP4-LISTEN:{port},bind={address},fork,reuseaddr", "EXEC:true"]
    inside = ["ip", "netns", "exec", one.namespace("control")]
    with subprocess.Popen([*inside, *listen]) as other:
        try:
            with pytest.raises(DeployError) as error:
                lifecycle.up(ONE)
        finally:
            other.terminate()
    message = str(error.value)
    assert message.startswith(f"{program} ended while starting; last lines of {one.logs}/{program}.log:\n"), message
    assert reason in message
    lifecycle.up(ONE)
    assert set(lifecycle.status(one).values()) == {"running"}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("kubelet", "mkdir: cannot create directory"),  # the node's first process
        ("kubelet/pods", "kubelet ended 5 times as soon as it was started"),
    ],
)
def test_a_node_that_cannot_start_says_why(two: LocalCluster, broken: str, reason: str) -> None:
    lifecycle.stop_node(TWO, "n2")
    path = node.state(two, "n2") / broken
    kept = path.with_name("kept")
    path.rename(kept)
    path.touch()
    try:
        with pytest.raises(DeployError) as error:
            lifecycle.up(TWO)
    finally:
        path.unlink()
        kept.rename(path)
    message = str(error.value)
    assert message.startswith("node n2 ended while starting; last lines of "), message
    assert reason in message
    assert Path(message.partition("last lines of ")[2].partition(":")[0]).is_file()
    lifecycle.up(TWO)
    assert ready(two) == {"n1", "n2"}


def test_errors_are_one_line(one: LocalCluster) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "flaskapp_deploy", "cluster", *arguments]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode != 0
        return result.stderr.strip()

    assert "there is no instance 'nowhere'" in run("status", "--name", "nowhere")
    assert "has no node 'n7'" in run("node", "stop", "n7", "--name", ONE)
    assert "use up to 20 of a-z" in run("up", "--name", "Not_A_Name")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EGRESS", "no")
        assert run("up", "--name", ONE).startswith("error: EGRESS='no' is neither 0 nor 1\n")
    for message in (run("status", "--name", "nowhere"), run("node", "stop", "n7", "--name", ONE)):
        assert len(message.splitlines()) == 1


def test_down_leaves_nothing(one: LocalCluster, two: LocalCluster, before: Trace) -> None:
    during = Trace.take()
    assert any(line.startswith("process") for line in during.lines - before.lines)
    assert any(line.startswith("group") for line in during.lines - before.lines)
    assert lifecycle.down(ONE)
    for covered in ("/run/containerd", "/var/lib/cni", "/run/netns"):  # the neighbor keeps what is its own
        subprocess.run(node.enter(two, "n1", "mountpoint", "--quiet", covered), check=True)
    assert lifecycle.down(TWO)
    assert not lifecycle.down(ONE)
    assert sorted(Trace.take().lines - before.lines) == []
