"""What happens to a release: its pods, its nodes, its database, upgrades that go wrong, a full disk, a wrong clock."""

import base64
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import psycopg2

from flaskapp_deploy import shell
from flaskapp_deploy.programs import packages
from reliability.environment import Environment
from reliability.release import DATABASE, DATABASE_POD, TAKE_BACK, WAIT, scale, until

FOLDER = Path(__file__).parents[1]
CUT = 10.0  # seconds that the database is cut off
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('flaskapp', 'flaskapp_2')"


@contextmanager
def steady(env: Environment, begin: str, end: str = "back") -> Iterator[None]:
    """Mark where a fault begins and ends, and check that web pods are the same a moment later and none restarted."""
    before = env.restarts()
    env.mark(begin)
    yield
    env.mark(end)
    time.sleep(3)
    after = env.restarts()
    env.check(after == before, f"restarts of web pods were {before} and are {after}")


# --- the application's pods ------------------------------------------------------------------------------------------


def web_pod_killed(env: Environment) -> None:
    """Kill one of two web pods by kill -9."""
    before = env.restarts()
    env.mark("kill -9")
    env.kill(env.ready_pods()[0], "app")
    until(lambda: env.restarts() != before, 30, "the restarted container")
    env.note(f"two ready again after {env.wait_for_pods(2, 60):.0f} s")


def web_pod_out_of_memory(env: Environment) -> None:
    """One of two web pods needs more memory than its limit, and the kernel kills it."""
    pod = env.ready_pods()[0]
    group = memory_group(env.processes(pod, "app")[0])
    limit = (group / "memory.limit_in_bytes").read_text()

    def kills() -> int:
        return int((group / "memory.oom_control").read_text().split()[-1])

    def tighten() -> bool:
        """Leave it a MiB to spare and ask for more; return whether the kernel has killed."""
        with suppress(OSError):  # it used more meanwhile
            used = int((group / "memory.usage_in_bytes").read_text())
            (group / "memory.limit_in_bytes").write_text(str(used + 2**20))
        # A process that idles asks for no page, so another one in its container does; the kernel ends the largest.
        env.execute(pod["metadata"]["name"], "app", "python", "-c", "b'x' * 2**24", check=False)
        return kills() > before

    before = kills()
    env.mark("out of memory")
    try:
        shell.wait_until(tighten, 30, "the kernel's choice", every=0.1)
    finally:
        with suppress(OSError):  # it went with its container
            (group / "memory.limit_in_bytes").write_text(limit)
    env.mark("killed")
    env.wait_for_pods(2, 60)


def memory_group(pid: int) -> Path:
    """Return a process's control group for memory, of version 1."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    [path] = [line.split(":", 2)[2] for line in lines if line.split(":")[1] == "memory"]
    return Path("/sys/fs/cgroup/memory") / path.lstrip("/")


# --- nodes -----------------------------------------------------------------------------------------------------------

NodeFault = Callable[[str], AbstractContextManager[None]]


def node_killed(env: Environment) -> None:
    """Kill the node without PostgreSQL by kill -9; clients enter by the other one."""
    lose_other_node(env, env.node_killed)


def node_partitioned(env: Environment) -> None:
    """Take the node without PostgreSQL off the network; clients enter by the other one."""
    lose_other_node(env, env.node_partitioned)


def lose_other_node(env: Environment, fault: NodeFault) -> None:
    """Lose the node without PostgreSQL until its pod has left the Service."""
    with fault(env.other_node()):
        env.wait_for_pods(1, 90)
        time.sleep(5)
    env.wait_for_pods(2, 120)


def database_node_killed(env: Environment) -> None:
    """Kill the node with PostgreSQL, and start it after 10 s: its volume is there and nowhere else."""
    lose_database_node(env, env.node_killed, 10, 120)


def database_node_partitioned(env: Environment) -> None:
    """Take the node with PostgreSQL off the network for 20 s; clients enter by the other one."""
    lose_database_node(env, env.node_partitioned, 20, 60)


def lose_database_node(env: Environment, fault: NodeFault, seconds: float, limit: float) -> None:
    """Lose the node with PostgreSQL for some seconds; the release must answer within a limit after them."""
    with fault(env.database_node()):
        time.sleep(seconds)
    env.note(f"answers {env.wait_for_answer(limit):.0f} s after the node")
    env.wait_for_pods(2, 120)


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def check_first_answer(env: Environment) -> None:
    """Compare the first 2xx after the outage with the moment at which the server accepted connections."""
    lines = env.log(DATABASE_POD, "--container=postgresql", "--timestamps").splitlines()
    ready = [line.split()[0] for line in lines if "ready to accept connections" in line]
    accepts = datetime.fromisoformat(ready[-1]).timestamp()

    def compare() -> None:
        last_bad = max((answer.at for answer in env.answers if not answer.ok), default=0)
        first = min((answer.end for answer in env.answers if answer.ok and answer.at > accepts), default=accepts)
        env.note(f"first 2xx {first - accepts:.1f} s, last failure {last_bad - accepts:.1f} s after it accepts")
        env.check(first - accepts <= 5, f"the first 2xx came {first - accepts:.1f} s after it accepts connections")

    env.comparisons.append(compare)


def database_pod_deleted(env: Environment) -> None:
    """Delete PostgreSQL's pod: a shutdown in order, and a new pod."""
    before = env.database_pod_uid()
    with steady(env, "delete"):
        env.admin.kubectl("delete", "pod", DATABASE_POD, "--wait=false")
        until(lambda: env.database_pod_uid() not in {before, ""}, 60, "the new pod")
        env.wait_for_answer(90)
    check_first_answer(env)


def database_killed(env: Environment) -> None:
    """Kill every PostgreSQL process by kill -9: it comes back by its write-ahead log."""
    with steady(env, "kill -9"):
        env.kill(env.database_pod(), "postgresql")
        time.sleep(1)
        env.wait_for_answer(90)
    check_first_answer(env)
    log = env.log(DATABASE_POD, "--container=postgresql")
    env.check("automatic recovery in progress" in log, "PostgreSQL did not recover by its log")


@contextmanager
def iptables_rule(env: Environment, chain: str, *action: str, table: str = "filter") -> Iterator[None]:
    """Have a rule for PostgreSQL's port in the network of its pod."""
    iptables = [*env.enter_network(env.database_pod(), "postgresql"), "iptables", "--table", table]
    rule = [chain, "--protocol", "tcp", "--dport", "5432", "--jump", *action]  # iptables knows no --name=value
    shell.run(*iptables, "--insert", *rule)
    try:
        yield
    finally:
        shell.run(*iptables, "--delete", *rule)


def database_black_holed(env: Environment) -> None:
    """Packets to PostgreSQL vanish for 10 s."""
    with steady(env, "cut", "joined"), iptables_rule(env, "INPUT", "DROP"):
        time.sleep(CUT)


def database_connections_refused(env: Environment) -> None:
    """PostgreSQL's machine resets every connection for 10 s."""
    with steady(env, "cut", "joined"), iptables_rule(env, "INPUT", "REJECT", "--reject-with", "tcp-reset"):
        time.sleep(CUT)


def database_frozen(env: Environment) -> None:
    """PostgreSQL does nothing for 10 s: its kernel takes what comes, and nobody answers."""
    with steady(env, "stop", "go on"):
        env.kill(env.database_pod(), "postgresql", signal.SIGSTOP)
        try:
            time.sleep(CUT)
        finally:
            env.kill(env.database_pod(), "postgresql", signal.SIGCONT)


def database_connections_dropped(env: Environment) -> None:
    """PostgreSQL ends every connection, three times: what was in flight is refused, and what comes until the next."""
    with steady(env, "begin"):
        for _ in range(3):
            env.mark("end")
            env.sql(END_SESSIONS)
            time.sleep(3)


def database_slow(env: Environment) -> None:
    """500 ms to PostgreSQL and back for 15 s, sessions ended: a login takes more than 2 s, so requests are refused."""
    inside = env.enter_network(env.database_pod(), "postgresql")
    proxy = [*inside, sys.executable, str(FOLDER / "slow_proxy.py"), "15432", "5432", "0.5"]
    with steady(env, "slow", "quick"), subprocess.Popen(proxy) as process:
        try:
            with iptables_rule(env, "PREROUTING", "REDIRECT", "--to-ports", "15432", table="nat"):
                env.sql(END_SESSIONS)  # connections that are open would go on as before
                time.sleep(15)
            env.sql(END_SESSIONS)
        finally:
            process.terminate()


def too_many_connections(env: Environment) -> None:
    """Somebody takes all connections: the pool goes on; when it loses its own, requests are refused in time."""
    address, password = env.database_pod()["status"]["podIP"], env.secret(DATABASE)["owner-password"]
    connections = []

    def take_all() -> str:
        try:
            while True:
                login = {"host": address, "dbname": "flaskapp", "user": "flaskapp_owner", "password": password}
                connections.append(psycopg2.connect(**login))
        except psycopg2.OperationalError as error:
            return str(error)

    with steady(env, "full"):
        message = take_all()
        env.check("connection slots" in message or "too many" in message, message)
        time.sleep(4)
        env.mark("pool cut")
        env.sql(END_SESSIONS)
        take_all()
        time.sleep(5)
        for connection in connections:
            connection.close()
        env.mark("free")
        env.wait_for_answer(30)


# --- the cluster's services ------------------------------------------------------------------------------------------


def take_away(env: Environment, deployment: str, seconds: float) -> None:
    """Leave a Deployment of kube-system without a pod for a while."""
    env.later(f"{deployment} has no pod", lambda: scale(env.system, deployment, 1))
    with steady(env, f"{deployment} away"):
        scale(env.system, deployment, 0)
        time.sleep(seconds)


def dns_away(env: Environment) -> None:
    """No DNS for 15 s: connections that are open need none."""
    take_away(env, "coredns", 15)


def metrics_server_away(env: Environment) -> None:
    """No metrics-server for 40 s under an autoscaler: it changes nothing."""
    env.later("the autoscaler owns the number of pods", lambda: env.upgrade(*TAKE_BACK))
    env.upgrade("--set", "autoscaling.enabled=true")
    take_away(env, "metrics-server", 40)


# --- upgrades that go wrong ------------------------------------------------------------------------------------------


def fail_and_return(env: Environment, image: str, *settings: str) -> None:
    """Begin an upgrade that can't succeed, which ends in the release as it was."""
    before = env.uids()
    env.mark("helm upgrade")
    arguments = env.upgrade_arguments(*settings, image=image)
    result = env.releaser.helm(*arguments, "--rollback-on-failure", "--timeout=40s", check=False)
    env.mark("returned")
    env.check(result.returncode != 0, "the upgrade succeeded")
    until(lambda: len(env.web_pods()) == 2, 90, "the release without the surge pod")
    env.check_deployed()
    env.check(before == env.uids(), "the pods are not the ones of before")


def bad_image(env: Environment) -> None:
    """An upgrade to an image that doesn't exist: the old pods serve, --rollback-on-failure returns."""
    fail_and_return(env, "localhost/flaskapp:absent")


def failing_migration(env: Environment) -> None:
    """An upgrade whose migration fails: the old pods serve, --rollback-on-failure returns."""
    fail_and_return(env, env.build_newer(fails=True), "--set", "migrations.backoffLimit=0")
    env.check(env.sql("SELECT to_regclass('regions') IS NULL") == "t", "half of the migration is there")


def helm_killed(env: Environment) -> None:
    """Kill helm by kill -9 in the middle of an upgrade, at four moments: `helm rollback`, then the upgrade again."""
    helm = str(env.releaser.program("helm", "chart"))
    environment = os.environ | {"KUBECONFIG": str(env.releaser.kubeconfig)}
    for number, seconds in enumerate((0.4, 0.8, 2.0, 6.0)):
        settings = ["--set", f"config.ATTEMPT=number-{number}"]
        command = [helm, *env.upgrade_arguments(*settings), *WAIT, "--namespace", env.releaser.namespace]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        env.mark(f"kill at {seconds:g} s")
        process.kill()
        process.wait()
        again = env.upgrade(*settings, check=False)
        if not again.returncode:
            env.note(f"killed after {seconds:g} s: not locked")
            continue
        env.check("another operation" in again.stderr, f"after the kill helm reports: {again.stderr[:200]}")
        env.roll_back()
        env.upgrade(*settings)
        env.note(f"killed after {seconds:g} s: locked, freed by helm rollback")


def two_upgrades(env: Environment) -> None:
    """Two upgrades at once: one succeeds, the other too or is refused, and the release is deployed."""

    def attempt(number: int) -> str:
        result = env.upgrade("--set", f"config.ATTEMPT=number-{number}", check=False)
        return result.stderr.strip()[-160:] if result.returncode else "succeeded"

    env.mark("two upgrades")
    with ThreadPoolExecutor(2) as pool:
        messages = list(pool.map(attempt, range(2)))
    env.check("succeeded" in messages, f"neither upgrade succeeded: {messages}")
    refused = [line for line in messages if line != "succeeded"]
    env.check(all("another operation" in line or "already exists" in line for line in refused), f"{refused}")
    env.check_deployed()
    env.note(f"{len(refused)} refused")


# --- the disk --------------------------------------------------------------------------------------------------------


def volume(env: Environment) -> str:
    """Return a pattern of the folder on its node that is the database's volume."""
    return f"/mnt/{env.get('pvc', f'data-{DATABASE_POD}')['spec']['volumeName']}*"


def shrink_volume(env: Environment) -> None:
    """Move the database's files to a file system that has 40 MiB to spare; the scenario's end moves them back."""
    node = env.database_node()
    path = env.run_on_node(node, "sh", "-c", f"ls -d {volume(env)}").strip()

    def run_while_stopped(script: str) -> None:
        env.admin.kubectl("scale", "statefulset", DATABASE, "--replicas=0")
        until(lambda: not env.database_pod_uid(), 90, "the StatefulSet without a pod")
        env.run_on_node(node, "sh", "-ec", script)
        env.admin.kubectl("scale", "statefulset", DATABASE, "--replicas=1")
        env.wait_for_answer(120)

    back = f"rm -rf {path}.kept; cp -a {path} {path}.kept; umount {path}"
    back += f"; rm -rf {path}/pgdata; cp -a {path}.kept/pgdata {path}/; rm -rf {path}.kept"
    env.later("the database is on a small volume", lambda: run_while_stopped(back))
    size = f"size=$(($(du -sm {path} | cut -f1) + 40))m"
    run_while_stopped(
        f"cp -a {path} {path}.kept; {size}; mount -t tmpfs -o size=$size,mode=0777 tmpfs {path}"
        f"; cp -a {path}.kept/. {path}/; rm -rf {path}.kept"
    )


def disk_full(env: Environment) -> None:
    """The database's volume is full for 20 s and then freed: writes are refused, and it comes back by itself."""
    fill = "dd if=/dev/zero of=/var/lib/postgresql/fill bs=64k 2>/dev/null; true"
    env.mark("full")
    env.execute(DATABASE_POD, "postgresql", "bash", "-c", fill)
    time.sleep(20)
    # The pod may have no container to exec in.
    env.run_on_node(env.database_node(), "sh", "-c", f"rm {volume(env)}/fill")
    env.mark("freed")
    seconds = until(lambda: env.load.send("first"), 90, "the database, for writes,")
    env.note(f"writes again {seconds:.0f} s after the disk was freed")
    time.sleep(3)


# --- the clock -------------------------------------------------------------------------------------------------------


def build_hour_ahead() -> bytes:
    """Build a library that sets the clock of whoever preloads it."""
    packages.ensure({"gcc": "build-essential"})
    with tempfile.NamedTemporaryFile(suffix=".so") as library:
        shell.run("gcc", "-shared", "-fPIC", "-O2", "-o", library.name, FOLDER / "hour_ahead.c")
        return Path(library.name).read_bytes()


def clock_skew(env: Environment) -> None:
    """The application's clocks are an hour ahead, a pod's after the other's: it counts by the database's."""
    content = base64.b64encode(build_hour_ahead()).decode()
    configmap = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clock"}}
    values = {
        "extraObjects": [configmap | {"binaryData": {"hour.so": content}}],
        "volumes": [{"name": "clock", "configMap": {"name": "clock"}}],
        "volumeMounts": [{"name": "clock", "mountPath": "/clock"}],
        "env": {"LD_PRELOAD": "/clock/hour.so"},
    }
    env.mark("helm upgrade")
    env.upgrade(values=values)
    pod = env.ready_pods()[0]["metadata"]["name"]
    ahead = float(env.execute(pod, "app", "python", "-c", "import time; print(time.time())")) - time.time()
    env.check(3500 < ahead < 3700, f"the pod's clock is {ahead:.0f} s ahead")
    env.mark("an hour ahead")
    time.sleep(5)
    env.check(env.sql("SELECT max(started_at) <= now() FROM deployments") == "t", "rows have the pod's time")
