"""What a stranger types on a stock Debian, in order; a later test needs what an earlier one made (see machine.py)."""

import json
import re
import shlex
from collections.abc import Iterator

import pytest

from flaskapp_deploy.images import baseimages, buildkit, packageindex
from tests.machines import disks, evidence
from tests.machines.disks import TRIXIE, Debian
from tests.machines.machine import Machine, booted

HELLO = "up APP=examples/hello VALUES=examples/hello/values.yaml"
# Root's: one line for each thing that there is of a kind.
SNAPSHOT = {
    "processes": "ps --ppid 2 -p 2 --deselect -o comm=",
    "mounts": "findmnt -rno TARGET",
    "links and routes": "ip -o link | cut -d: -f2; ip netns list; ip -4 route; ip -6 route",
    "firewall": "! type nft > /dev/null 2>&1 || nft list ruleset",
    "control groups": "find /sys/fs/cgroup -type d",
    # Whatever belongs to a package stays, and so does the cache. git says what is new in the checkout.
    "files": r"""comm -23 \
      <(find / /run /tmp /dev/shm -xdev \( -path {checkout} -o -path ~root/.cache \) -prune -o -print | sort -u) \
      <(sed -E 's#^/(bin|sbin|lib|lib64)(/|$)#/usr/\1\2#' /var/lib/dpkg/info/*.list | sort -u)""",
}
# What a Debian changes by itself, or a package's own scripts write: apt says which packages are installed.
OWN = {
    "processes": r"systemd.*|\(sd-.*|sshd.*|sftp-server|sudo|bash|ps|agetty|login|dbus-daemon",
    "mounts": r"/run/user/\d+|/run/credentials/.*|/proc/sys/fs/binfmt_misc",
    "control groups": r"/sys/fs/cgroup/((user|system)\.slice|init\.scope|dev-|sys-).*",
    "files": (
        r"/(usr/lib/python3|usr/share/python3|etc|var/lib/(dpkg|apt|systemd|ucf|etcd|containerd|dbus)"
        r"|var/cache|var/log|var/backups|run/(systemd|user|udev|log|dbus|sudo|credentials|utmp|initctl|lock))(/.*)?"
        r"|/tmp/(systemd-private|snap)-.*|/var/tmp/systemd-private-.*|.*/\.bash_history"
        rf"|{disks.HOME}/\.local(/state)?"
    ),
}
# What the ledger wants to know of a database, and none that answers.
LEDGER = "--env DB_HOST=127.0.0.1 --env DB_NAME=ledger --env DB_USERNAME=ledger --env DB_PASSWORD=secret"
# Takes 256 MiB, where it may have 64.
HOG = """
apiVersion: v1
kind: Pod
metadata: {name: hog}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: hog
      image: IMAGE
      command: [python3, -c, "print(len(bytes(256 << 20)))"]
      resources: {limits: {memory: 64Mi}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


@pytest.fixture(scope="module", params=[disks.BOOKWORM, TRIXIE], ids=lambda debian: debian.release)
def machine(
    request: pytest.FixtureRequest, runs: dict[str, evidence.Run], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    debian: Debian = request.param
    with booted(debian, tmp_path_factory.mktemp(debian.release)) as machine:
        runs[debian.release] = evidence.begin(machine)
        yield machine


@pytest.fixture(scope="module")
def before(machine: Machine) -> dict[str, set[str]]:
    """What there was before anything was installed."""
    return snapshot(machine)


def snapshot(machine: Machine) -> dict[str, set[str]]:
    checkout = shlex.quote(machine.debian.checkout)
    lines = {kind: machine.root(command.replace("{checkout}", checkout)) for kind, command in SNAPSHOT.items()}
    return {kind: set(result.stdout.splitlines()) for kind, result in lines.items()}


def make(machine: Machine, words: str, limit: float = 900) -> str:
    """Run `make` as root, as the machine's user does that; return what it printed."""
    sudo = "" if machine.debian.user == "root" else "sudo "
    result = machine.run(f"{sudo}TIMEOUT_FACTOR={machine.factor:g} make {words}", limit=limit)
    return result.stdout + result.stderr


def installed(machine: Machine, name: str) -> str:
    """Return the kubectl line that `make up` printed for an application."""
    if name not in machine.applications:
        pytest.skip(f"{name} is not up")
    return machine.applications[name]


def kubectl(machine: Machine, name: str, words: str, stdin: str = "") -> str:
    return machine.root(f"{installed(machine, name)} {words}", stdin=stdin).stdout


def up(machine: Machine, name: str, words: str) -> str:
    """Run `make up`; return the address that it printed."""
    output = make(machine, words)
    line = re.search(r"^  (\S*kubectl .*) get pods", output, re.MULTILINE)
    address = re.search(rf"^{name} answers on (http://[^ ]+)\. ", output, re.MULTILINE)
    assert line, output
    assert address, output
    machine.applications[name] = line[1]
    return address[1]


def eventually(machine: Machine, command: str, pattern: str, limit: int = 120) -> str:
    """Repeat a command of root until its output matches; return the output."""
    loop = f"until {command} 2>&1 | tee /tmp/last | grep -qE {shlex.quote(pattern)}; do sleep 2; done; cat /tmp/last"
    result = machine.root(
        f"timeout {limit * machine.factor:.0f} bash -c {shlex.quote(loop)} || (cat /tmp/last; false)", limit
    )
    return result.stdout


def test_the_machine_is_what_a_stock_debian_is(machine: Machine, before: dict[str, set[str]]) -> None:
    assert before["files"]
    assert machine.run("findmnt -no FSTYPE /sys/fs/cgroup").stdout == "cgroup2\n"
    assert "noexec" in machine.run("findmnt -no OPTIONS /run").stdout.split(",")
    assert machine.run("cat /sys/module/apparmor/parameters/enabled").stdout == "Y\n"
    assert machine.run("cat /proc/1/comm").stdout == "systemd\n"
    assert machine.run("lsmod | grep -c br_netfilter", check=False).stdout == "0\n"
    assert machine.run("umask").stdout == f"0{machine.debian.umask}\n"
    memory = int(machine.run("awk '/MemTotal/ { print $2 }' /proc/meminfo").stdout) / 1024
    assert 0.9 < memory / machine.debian.memory <= 1


def test_the_first_machine_has_a_space_in_its_path_and_a_firewall_that_drops(machine: Machine) -> None:
    if machine.debian is TRIXIE:
        pytest.skip("Debian 12's")
    assert " " in machine.run("pwd").stdout.strip()
    assert machine.run("nft list ruleset").stdout.count("policy drop") == 2
    assert machine.debian.memory == 4096


def test_the_second_machine_is_german_and_has_resolved_and_sudo(machine: Machine) -> None:
    if machine.debian is not TRIXIE:
        pytest.skip("Debian 13's")
    assert machine.run("echo $LANG").stdout == "de_DE.UTF-8\n"
    assert "nicht gefunden" in machine.run("ls /nowhere", check=False).stderr
    assert re.search(r"^nameserver 127\.0\.0\.53$", machine.run("cat /etc/resolv.conf").stdout, re.MULTILINE)
    assert machine.run("id -u; sudo id -u").stdout == "1000\n0\n"


def test_make_up_starts_the_ledger(machine: Machine, before: dict[str, set[str]]) -> None:
    machine.address = up(machine, "flaskapp", "up")


def test_the_ledger_answers_from_the_host(machine: Machine) -> None:
    installed(machine, "flaskapp")
    assert json.loads(machine.run(f"curl -sSf -m 60 {machine.address}/readyz").stdout) == {"status": "ok"}
    assert "shop" in machine.run(f"curl -sSf -m 60 {machine.address}/api/v1/services/shop").stdout


def test_make_up_starts_another_application_beside_it(machine: Machine) -> None:
    installed(machine, "flaskapp")
    address = up(machine, "hello", HELLO)
    assert json.loads(machine.run(f"curl -sSf -m 60 {address}").stdout)["message"] == "Hello, world"
    assert json.loads(machine.run(f"curl -sSf -m 60 {machine.address}/readyz").stdout) == {"status": "ok"}


def test_a_pod_has_its_memory_limit(machine: Machine) -> None:
    pods = json.loads(kubectl(machine, "hello", "get pods -l app.kubernetes.io/component=web -o json"))["items"]
    [container] = pods[0]["spec"]["containers"]
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi")) << 20
    name = pods[0]["metadata"]["name"]
    assert int(kubectl(machine, "hello", f"exec {name} -- cat /sys/fs/cgroup/memory.max")) == limit


def test_a_pod_that_takes_more_memory_is_killed(machine: Machine) -> None:
    image = kubectl(machine, "hello", "get deployment hello -o 'jsonpath={..image}'")
    kubectl(machine, "hello", "apply -f -", HOG.replace("IMAGE", image))
    status = "get pod hog -o 'jsonpath={.status.phase} {..terminated.reason}'"
    assert eventually(machine, f"{installed(machine, 'hello')} {status}", "Failed|Succeeded") == "Failed OOMKilled"
    kubectl(machine, "hello", "delete pod hog")


def test_kubectl_top_has_figures(machine: Machine) -> None:
    for what in ("pods", "nodes"):
        output = eventually(
            machine, f"{installed(machine, 'flaskapp')} top {what} --no-headers", r" \d+m .* \d+Mi", 180
        )
        assert re.search(r" \d+m +.* \d+Mi", output), output


def test_make_down_ends_it(machine: Machine) -> None:
    installed(machine, "flaskapp")
    make(machine, "down")
    assert machine.run(f"curl -s -m 5 {machine.address}/livez", check=False).returncode == 7
    machine.applications = {"down": ""}


@pytest.fixture(scope="module")
def after(machine: Machine) -> dict[str, set[str]]:
    """What there is when `make down` has ended."""
    if "down" not in machine.applications:
        pytest.skip("it is not down")
    return snapshot(machine)


@pytest.mark.parametrize("kind", SNAPSHOT)
def test_nothing_of_it_is_left(before: dict[str, set[str]], after: dict[str, set[str]], kind: str) -> None:
    own = re.compile(OWN.get(kind, "(?!)"))
    assert not {line for line in after[kind] - before[kind] if not own.fullmatch(line)}


def test_the_checkout_is_clean(machine: Machine, after: dict[str, set[str]]) -> None:
    assert machine.run("git status --porcelain").stdout == ""


@pytest.fixture(scope="module")
def docker(machine: Machine, before: dict[str, set[str]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian's own Docker, with the image that our Dockerfile names; return the options of a build."""
    if machine.debian is not TRIXIE:
        pytest.skip("Debian 13's")
    machine.root("DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io docker-cli docker-buildx", limit=600)
    with buildkit.daemon() as builder:
        base = baseimages.python(builder)
    folder = tmp_path_factory.mktemp("docker")
    if base.layout:
        archive = base.layout.archive(folder / "base.tar", base.reference)
        machine.root("docker load", limit=300, stdin=archive.read_bytes())
    secrets = packageindex.secrets(folder)
    for name, path in secrets.items():
        machine.run(f"cat > /tmp/{name}", stdin=path.read_bytes())
    return " ".join(f"--secret id={name},src=/tmp/{name}" for name in secrets)


@pytest.mark.parametrize(
    ("words", "path", "options"),
    [(".", "livez", LEDGER), ("-f Dockerfile examples/hello", "", "")],
    ids=["the ledger", "hello"],
)
def test_docker_builds_and_runs(machine: Machine, docker: str, words: str, path: str, options: str) -> None:
    machine.root(f"docker build --tag built {docker} {words}", limit=900)
    machine.root(f"docker run --detach --name built {options} --publish 127.0.0.1:8000:8000 built")
    try:
        request = "curl -sSf --retry 60 --retry-all-errors --retry-delay 2 -m 30"
        machine.run(f"{request} http://127.0.0.1:8000/{path}", limit=180)
    finally:
        machine.root("docker logs built; docker rm --force built", check=False)
