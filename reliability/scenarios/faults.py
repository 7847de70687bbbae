"""What happens to a release: the best bound that holds, stated beforehand.

While the database is away every answer is a 503 with Retry-After within 3 s, and no web pod restarts.
"""

import base64
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2

from flaskapp_deploy.programs import packages
from reliability.outcome import ANY, Bound
from reliability.scenarios import scenario
from reliability.stage import DATABASE, RELEASE, TAKE_BACK, Background, Stage, until

# A request in flight when its pod dies is lost to the client, and so is the pod's share of what is sent until its
# endpoint is gone: of 40 requests a second and two pods, 20 a second.
POD_LOST = Bound(failed=60, errors=60, gap=2, outage=4, slowest=11)
# A node counts as lost 50 s after its last sign of life; then its endpoints leave the Service.
NODE_LOST = Bound(failed=ANY, errors=ANY, gap=2, outage=65, slowest=11)
DATABASE_AWAY = Bound(failed=ANY, errors=0, gap=45, outage=45)
CUT = 10.0  # seconds that the database is cut off
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('flaskapp', 'flaskapp_2')"


@contextmanager
def steady(stage: Stage) -> Iterator[None]:
    """Web pods are the same afterwards, and none was restarted."""

    def state() -> list[tuple[str, int]]:
        pods = stage.web_pods()
        return sorted(
            (pod["metadata"]["name"], sum(one["restartCount"] for one in pod["status"].get("containerStatuses", [])))
            for pod in pods
        )

    before = state()
    yield
    stage.check(state() == before, f"web pods were {before} and are {state()}")


def database_node(stage: Stage) -> str:
    return str(stage.database_pod()["spec"]["nodeName"])


def other_node(stage: Stage) -> str:
    """The node without PostgreSQL."""
    [found] = set(stage.instance.nodes) - {database_node(stage)}
    return found


# --- the application's pods ------------------------------------------------------------------------------------------


@scenario(POD_LOST, short=True)
def web_pod_killed(stage: Stage) -> None:
    """kill -9 of one of two web pods."""
    restarts = stage.restarts()
    stage.mark("kill -9")
    stage.kill(stage.ready_pods()[0], "app")
    until(lambda: stage.restarts() > restarts, 30, "the restart")
    stage.note(f"two ready again after {until(lambda: len(stage.ready_pods()) == 2, 60, 'two ready pods'):.0f} s")


@scenario(POD_LOST)
def web_pod_out_of_memory(stage: Stage) -> None:
    """One of two web pods needs more memory than its limit, and the kernel kills it."""
    pod = stage.ready_pods()[0]
    [pid, *_] = stage.processes(pod, "app")
    group = memory_group(pid)
    # A process that idles asks for no page, so another one in its container does; the kernel ends the largest.
    asks = ["exec", pod["metadata"]["name"], "--container=app", "--", "python", "-c", "b'x' * 2**24"]
    limit = (group / "memory.limit_in_bytes").read_text()

    def killed() -> int:
        return int((group / "memory.oom_control").read_text().split()[-1])

    def tightened() -> bool:
        """Leave it a MiB to spare and ask for more; whether the kernel has killed."""
        with suppress(OSError):  # it used more meanwhile
            used = int((group / "memory.usage_in_bytes").read_text())
            (group / "memory.limit_in_bytes").write_text(str(used + 2**20))
        stage.admin.kubectl(*asks, check=False)
        return killed() > before

    before = killed()
    stage.mark("out of memory")
    try:
        until(tightened, 30, "the kernel's choice", every=0.1)
    finally:
        with suppress(OSError):  # it went with its container
            (group / "memory.limit_in_bytes").write_text(limit)
    stage.mark("killed")
    until(lambda: len(stage.ready_pods()) == 2, 60, "two ready pods")


def memory_group(pid: int) -> Path:
    """A process's control group for memory, of version 1."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    [path] = [line.split(":", 2)[2] for line in lines if line.split(":")[1] == "memory"]
    return Path("/sys/fs/cgroup/memory") / path.lstrip("/")


# --- nodes -----------------------------------------------------------------------------------------------------------


@scenario(NODE_LOST, without_node=other_node)
def node_killed(stage: Stage) -> None:
    """kill -9 of the node without PostgreSQL; clients enter by the other one."""
    node = other_node(stage)
    stage.mark(f"kill {node}")
    stage.stop_node(node)
    until(lambda: len(stage.ready_pods()) == 1, 90, "the lost pod's leaving the Service")
    time.sleep(5)
    stage.mark("start")
    stage.start_nodes()
    until(lambda: len(stage.ready_pods()) == 2, 120, "two ready pods")


@scenario(Bound(failed=ANY, errors=ANY, gap=120, outage=120, slowest=11), without_node=database_node)
def database_node_killed(stage: Stage) -> None:
    """kill -9 of the node with PostgreSQL, started again after 10 s: its volume is there and nowhere else."""
    node = database_node(stage)
    stage.mark(f"kill {node}")
    stage.stop_node(node)
    time.sleep(10)
    stage.mark("start")
    stage.start_nodes()
    stage.note(f"answers {until(stage.answers_now, 120, 'an answer from the database'):.0f} s after the node")
    until(lambda: len(stage.ready_pods()) == 2, 120, "two ready pods")


@scenario(NODE_LOST, without_node=other_node)
def node_partitioned(stage: Stage) -> None:
    """The node without PostgreSQL is off the network; clients enter by the other one."""
    node = other_node(stage)
    stage.mark(f"cut {node}")
    stage.partition(node)
    until(lambda: len(stage.ready_pods()) == 1, 90, "the lost pod's leaving the Service")
    time.sleep(5)
    stage.mark("join")
    stage.rejoin(node)
    until(lambda: len(stage.ready_pods()) == 2, 120, "two ready pods")


@scenario(Bound(failed=ANY, errors=ANY, gap=60, outage=60, slowest=11), without_node=database_node)
def database_node_partitioned(stage: Stage) -> None:
    """The node with PostgreSQL is off the network for 20 s; clients enter by the other one."""
    node = database_node(stage)
    stage.mark(f"cut {node}")
    stage.partition(node)
    time.sleep(20)
    stage.mark("join")
    stage.rejoin(node)
    stage.note(f"answers {until(stage.answers_now, 60, 'an answer from the database'):.0f} s after the node")
    until(lambda: len(stage.ready_pods()) == 2, 120, "two ready pods")


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def first_answer_after(stage: Stage) -> None:
    """Compare the first 2xx after the outage with the moment at which the server said that it accepts connections."""
    logs = stage.admin.kubectl("logs", f"{DATABASE}-0", "--container=postgresql", "--timestamps").stdout
    ready = [line for line in logs.splitlines() if "ready to accept connections" in line]
    accepts = datetime.fromisoformat(re.sub(r"\.(\d{6})\d*", r".\1", ready[-1].split()[0])).timestamp()

    def compare() -> None:
        last_bad = max((answer.at for answer in stage.answers if not answer.ok), default=0)
        first = min((answer.end for answer in stage.answers if answer.ok and answer.at > accepts), default=accepts)
        stage.note(f"first 2xx {first - accepts:.1f} s, last failure {last_bad - accepts:.1f} s after it accepts")
        stage.check(first - accepts <= 5, f"the first 2xx came {first - accepts:.1f} s after it accepts connections")

    stage.afterwards(compare)


@scenario(DATABASE_AWAY, short=True)
def database_pod_deleted(stage: Stage) -> None:
    """kubectl delete pod of PostgreSQL: a shutdown in order, and a new pod."""
    before = stage.uid(f"{DATABASE}-0")
    with steady(stage):
        stage.mark("delete")
        stage.admin.kubectl("delete", "pod", f"{DATABASE}-0", "--wait=false")
        until(lambda: stage.uid(f"{DATABASE}-0") not in {before, ""}, 60, "a new pod")
        until(stage.answers_now, 90, "an answer from the database")
        stage.mark("back")
        time.sleep(3)
    first_answer_after(stage)


@scenario(DATABASE_AWAY, short=True)
def database_killed(stage: Stage) -> None:
    """kill -9 of every PostgreSQL process: it comes back by its write-ahead log."""
    with steady(stage):
        stage.mark("kill -9")
        stage.kill(stage.database_pod(), "postgresql")
        time.sleep(1)
        until(stage.answers_now, 90, "an answer from the database")
        stage.mark("back")
        time.sleep(3)
    first_answer_after(stage)
    logs = stage.admin.kubectl("logs", f"{DATABASE}-0", "--container=postgresql").stdout
    stage.check("automatic recovery in progress" in logs, "PostgreSQL did not recover by its log")


@contextmanager
def cut(stage: Stage, *target: str) -> Iterator[None]:
    """A rule in the network of PostgreSQL's pod."""
    pod = stage.database_pod()
    rule = ["INPUT", "--protocol", "tcp", "--dport", "5432", *target]
    stage.mark("cut")
    stage.in_pod(pod, "postgresql", "iptables", "--insert", *rule)
    try:
        yield
    finally:
        stage.in_pod(pod, "postgresql", "iptables", "--delete", *rule)
        stage.mark("joined")


@scenario(Bound(failed=ANY, errors=0, gap=15, outage=15), short=True)
def database_black_holed(stage: Stage) -> None:
    """Packets to PostgreSQL vanish for 10 s."""
    with steady(stage):
        with cut(stage, "--jump", "DROP"):
            time.sleep(CUT)
        time.sleep(3)


@scenario(Bound(failed=ANY, errors=0, gap=15, outage=15))
def database_frozen(stage: Stage) -> None:
    """PostgreSQL does nothing for 10 s: its kernel takes what comes, and nobody answers."""
    with steady(stage):
        stage.mark("stop")
        stage.kill(stage.database_pod(), "postgresql", signal.SIGSTOP)
        try:
            time.sleep(CUT)
        finally:
            stage.kill(stage.database_pod(), "postgresql", signal.SIGCONT)
        stage.mark("go on")
        time.sleep(3)


@scenario(Bound(failed=ANY, errors=0, gap=15, outage=15))
def database_connections_refused(stage: Stage) -> None:
    """PostgreSQL's machine resets every connection for 10 s."""
    with steady(stage):
        with cut(stage, "--jump", "REJECT", "--reject-with", "tcp-reset"):
            time.sleep(CUT)
        time.sleep(3)


@scenario(Bound(failed=24, errors=0, outage=12))
def database_connections_dropped(stage: Stage) -> None:
    """PostgreSQL ends every connection, three times: what was in flight is refused, and what comes until the next."""
    with steady(stage):
        for _ in range(3):
            stage.mark("end")
            stage.sql(END_SESSIONS)
            time.sleep(3)


@scenario(Bound(failed=ANY, errors=0, gap=22, outage=22))
def database_slow(stage: Stage) -> None:
    """500 ms to PostgreSQL and back for 15 s, sessions ended: a login takes more than 2 s, so requests are refused."""
    pod = stage.database_pod()
    [pid, *_] = stage.processes(pod, "postgresql")
    proxy = [sys.executable, str(Path(__file__).parents[1] / "slow_proxy.py"), "15432", "5432", "0.5"]
    rule = ["PREROUTING", "--protocol", "tcp", "--dport", "5432", "--jump", "REDIRECT", "--to-ports", "15432"]
    with steady(stage), subprocess.Popen(["nsenter", f"--target={pid}", "--net", *proxy]) as process:
        stage.mark("slow")
        stage.in_pod(pod, "postgresql", "iptables", "--table=nat", "--insert", *rule)
        try:
            stage.sql(END_SESSIONS)  # connections that are open would go on as before
            time.sleep(15)
        finally:
            stage.in_pod(pod, "postgresql", "iptables", "--table=nat", "--delete", *rule)
            stage.sql(END_SESSIONS)
            process.terminate()
        stage.mark("quick")
        time.sleep(3)


@scenario(Bound(failed=ANY, errors=0, gap=25, outage=25))
def too_many_connections(stage: Stage) -> None:
    """Somebody takes all connections: the pool goes on; when it loses its own, requests are refused in time."""
    address = {"host": stage.database_pod()["status"]["podIP"], "dbname": "flaskapp"}
    owner = address | {"user": "flaskapp_owner", "password": stage.secret(DATABASE)["owner-password"]}
    taken: list[Any] = []

    def take_all() -> str:
        try:
            while True:
                taken.append(psycopg2.connect(**owner))
        except psycopg2.OperationalError as error:
            return str(error)

    with steady(stage):
        stage.mark("full")
        message = take_all()
        stage.check("connection slots" in message or "too many" in message, message)
        time.sleep(4)
        stage.mark("pool cut")
        stage.sql(END_SESSIONS)
        take_all()
        time.sleep(5)
        for connection in taken:
            connection.close()
        stage.mark("free")
        until(stage.answers_now, 30, "an answer from the database")
        time.sleep(3)


# --- the cluster's services ------------------------------------------------------------------------------------------


def without(stage: Stage, deployment: str, seconds: float) -> None:
    """A Deployment of kube-system has no pod for a while."""

    def scale(replicas: int) -> None:
        name = f"deployment/{deployment}"
        stage.system.kubectl("scale", name, f"--replicas={replicas}")
        stage.system.kubectl("rollout", "status", name, "--timeout=90s")

    stage.later(f"{deployment} has no pod", lambda: scale(1))
    stage.mark(f"{deployment} away")
    scale(0)
    time.sleep(seconds)
    stage.mark("back")


@scenario()
def dns_away(stage: Stage) -> None:
    """No DNS for 15 s: connections that are open need none."""
    with steady(stage):
        without(stage, "coredns", 15)


@scenario()
def metrics_server_away(stage: Stage) -> None:
    """No metrics-server for 40 s under an autoscaler: it changes nothing."""
    stage.later("the autoscaler owns the number of pods", lambda: stage.upgrade(*TAKE_BACK))
    stage.upgrade("--set", "autoscaling.enabled=true")
    with steady(stage):
        without(stage, "metrics-server", 40)


# --- upgrades that go wrong ------------------------------------------------------------------------------------------


def fails_and_returns(stage: Stage, *settings: str, image: str) -> None:
    """An upgrade that can't succeed ends in the release as it was."""
    before = {pod["metadata"]["uid"] for pod in stage.ready_pods()}
    stage.mark("helm upgrade")
    arguments = stage.upgrade_arguments(*settings, image=image, wait=False)
    done = stage.releaser.helm(*arguments, "--rollback-on-failure", "--timeout=40s", check=False)
    stage.mark("returned")
    stage.check(done.returncode != 0, "the upgrade succeeded")
    until(lambda: len(stage.web_pods()) == 2, 90, "the end of the surge pod")
    status = stage.releaser.helm("status", RELEASE).stdout
    stage.check("STATUS: deployed" in status, f"the release is not deployed: {status[:200]}")
    stage.check(before == {pod["metadata"]["uid"] for pod in stage.ready_pods()}, "the pods are not the ones of before")


@scenario()
def bad_image(stage: Stage) -> None:
    """An upgrade to an image that isn't there: the old pods serve, --rollback-on-failure returns."""
    fails_and_returns(stage, image="localhost/flaskapp:absent")


@scenario()
def failing_migration(stage: Stage) -> None:
    """An upgrade whose migration fails: the old pods serve, --rollback-on-failure returns."""
    fails_and_returns(stage, "--set", "migrations.backoffLimit=0", image=stage.newer_image(broken=True))
    stage.check(stage.sql("SELECT to_regclass('regions') IS NULL") == "t", "half of the migration is there")


@scenario()
def helm_killed(stage: Stage) -> None:
    """kill -9 of helm amid an upgrade, at four moments: `helm rollback`, then the upgrade again."""
    helm = str(stage.releaser.program("helm", "chart"))
    environment = os.environ | {"KUBECONFIG": str(stage.releaser.kubeconfig)}
    for number, seconds in enumerate((0.4, 0.8, 2.0, 6.0)):
        settings = ["--set", f"config.ATTEMPT=number-{number}"]
        command = [helm, *stage.upgrade_arguments(*settings), "--namespace", stage.releaser.namespace]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        stage.mark(f"kill at {seconds:g} s")
        process.kill()
        process.wait()
        again = stage.upgrade(*settings, check=False)
        if not again.returncode:
            stage.note(f"killed after {seconds:g} s: not locked")
            continue
        stage.check("another operation" in again.stderr, f"after the kill helm says: {again.stderr[:200]}")
        stage.releaser.helm("rollback", RELEASE, "--wait", "--timeout=3m")
        stage.upgrade(*settings)
        stage.note(f"killed after {seconds:g} s: locked, freed by helm rollback")


@scenario()
def two_upgrades(stage: Stage) -> None:
    """Two upgrades at once: one is done, the other too or refused, and the release is deployed."""
    messages: list[str] = []

    def attempt(number: int) -> None:
        done = stage.upgrade("--set", f"config.ATTEMPT=number-{number}", check=False)
        messages.append(done.stderr.strip()[-160:] if done.returncode else "done")

    stage.mark("two upgrades")
    both = [Background(partial(attempt, number)) for number in range(2)]
    for one in both:
        one.finish(300)
    stage.check("done" in messages, f"neither upgrade was done: {messages}")
    refused = [line for line in messages if line != "done"]
    stage.check(all("another operation" in line or "already exists" in line for line in refused), f"{refused}")
    stage.check("STATUS: deployed" in stage.releaser.helm("status", RELEASE).stdout, "the release is not deployed")
    stage.note(f"{len(refused)} refused")


# --- the disk --------------------------------------------------------------------------------------------------------


def on_a_small_volume(stage: Stage) -> None:
    """Move the database's files to a file system that has 40 MiB to spare; the scenario's end moves them back."""
    home = database_node(stage)
    claim = stage.get("pvc", f"data-{DATABASE}-0")["spec"]["volumeName"]
    path = stage.node_run(home, "sh", "-c", f"ls -d /mnt/{claim}*").strip()

    def stopped(*commands: str) -> None:
        stage.admin.kubectl("scale", "statefulset", DATABASE, "--replicas=0")
        until(lambda: not stage.uid(f"{DATABASE}-0"), 90, "the end of PostgreSQL's pod")
        for command in commands:
            stage.node_run(home, "sh", "-ec", command)
        stage.admin.kubectl("scale", "statefulset", DATABASE, "--replicas=1")
        until(stage.answers_now, 120, "an answer from the database")

    back = f"rm -rf {path}.kept; cp -a {path} {path}.kept; umount {path}"
    back += f"; rm -rf {path}/pgdata; cp -a {path}.kept/pgdata {path}/; rm -rf {path}.kept"
    stage.later("the database is on a small volume", lambda: stopped(back))
    size = f"size=$(($(du -sm {path} | cut -f1) + 40))m"
    stopped(
        f"cp -a {path} {path}.kept; {size}; mount -t tmpfs -o size=$size,mode=0777 tmpfs {path}"
        f"; cp -a {path}.kept/. {path}/; rm -rf {path}.kept"
    )


@scenario(Bound(failed=ANY, errors=0, gap=90, outage=90), prepare=on_a_small_volume)
def disk_full(stage: Stage) -> None:
    """The database's volume is full for 20 s and then freed: writes are refused, and it comes back by itself."""
    fill = "dd if=/dev/zero of=/var/lib/postgresql/fill bs=64k 2>/dev/null; true"
    stage.mark("full")
    stage.admin.kubectl("exec", f"{DATABASE}-0", "--container=postgresql", "--", "bash", "-c", fill)
    time.sleep(20)
    # The pod may have no container to exec in.
    claim = stage.get("pvc", f"data-{DATABASE}-0")["spec"]["volumeName"]
    stage.node_run(database_node(stage), "sh", "-c", f"rm /mnt/{claim}*/fill")
    stage.mark("freed")

    def writes() -> bool:
        return stage.send(stage.load, "first")

    stage.note(f"writes again {until(writes, 90, 'a write'):.0f} s after the disk was freed")
    time.sleep(3)


# --- the clock -------------------------------------------------------------------------------------------------------


def hour_ahead() -> bytes:
    """A library that sets the clock of whoever preloads it."""
    packages.ensure({"gcc": "build-essential"})
    source = Path(__file__).parents[1] / "hour_ahead.c"
    with tempfile.NamedTemporaryFile(suffix=".so") as library:
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library.name, str(source)], check=True)
        return Path(library.name).read_bytes()


@scenario()
def clock_skew(stage: Stage) -> None:
    """The application's clocks are an hour ahead, a pod's after the other's: it counts by the database's."""
    content = base64.b64encode(hour_ahead()).decode()
    configmap = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clock"}}
    values = {
        "extraObjects": [configmap | {"binaryData": {"hour.so": content}}],
        "volumes": [{"name": "clock", "configMap": {"name": "clock"}}],
        "volumeMounts": [{"name": "clock", "mountPath": "/clock"}],
        "env": {"LD_PRELOAD": "/clock/hour.so"},
    }
    stage.mark("helm upgrade")
    stage.upgrade("--values", str(stage.values_file(values)))
    pod = stage.ready_pods()[0]["metadata"]["name"]
    clock = ["exec", pod, "--container=app", "--", "python", "-c", "import time; print(time.time())"]
    ahead = float(stage.admin.kubectl(*clock).stdout) - time.time()
    stage.check(3500 < ahead < 3700, f"the pod's clock is {ahead:.0f} s ahead")
    stage.mark("an hour ahead")
    time.sleep(5)
    stage.check(stage.sql("SELECT max(started_at) <= now() FROM deployments") == "t", "rows have the pod's time")
