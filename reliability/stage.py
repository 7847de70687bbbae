"""Where scenarios take place: a release on the local cluster, the hands that change and hurt it, and what they undo."""

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import requests
import yaml

from flaskapp_deploy import programs
from flaskapp_deploy.cluster import controlplane, lifecycle, network
from flaskapp_deploy.cluster import node as nodes
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.images import image
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import DeployError
from flaskapp_deploy.up.install import ensure_namespace
from reliability.load import Answer, Load
from reliability.outcome import Outcome

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/release"
CHART = BUILD / "charts/flaskapp"  # a copy of this run's own
VALUES = Path(__file__).with_name("values.yaml")
POSTGRES = "public.ecr.aws/docker/library/postgres:18"
RELEASE, NAMESPACE = "ledger", "release-scenarios"
APP, DATABASE = f"{RELEASE}-flaskapp", f"{RELEASE}-postgresql"
# What another one owns, back to the chart; a release that came from Helm 3 is not applied by the server unless told.
TAKE_BACK = ("--server-side=true", "--force-conflicts")
WEB = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=web"
SCHEMA = '''"""A column that the release before doesn't know."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("region", sa.Text, nullable=True))
    op.create_table("regions", sa.Column("name", sa.Text, primary_key=True))
'''


def until(condition: Callable[[], object], seconds: float, what: str, every: float = 0.5) -> float:
    """Wait until it holds; return the seconds that took.

    Raises:
        DeployError: it did not in time.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise DeployError(f"{what} took more than {seconds:g} s")
        time.sleep(every)
    return time.monotonic() - began


class Stage:
    """One release in one namespace, used by one scenario after another."""

    def __init__(self, instance: LocalCluster) -> None:
        self.instance = instance
        self.admin = Cluster(instance.kubeconfig, "", NAMESPACE)
        self.system = Cluster(instance.kubeconfig, "", "kube-system")
        path = instance.state / "releaser.kubeconfig"
        controlplane.kubeconfig(instance, path, "releaser", "flaskapp:release")
        self.releaser = Cluster(path, "", NAMESPACE)
        self.token = secrets.token_urlsafe(32)
        self.settings: list[str] = []  # of every upgrade: what a mutation takes away
        self.outcome: Outcome
        self.load: Load
        self.answers: list[Answer] = []
        self.marks: list[tuple[float, str]] = []
        self.comparisons: list[Callable[[], None]] = []
        self._undo: list[tuple[str, Callable[[], object]]] = []

    # --- the release -------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Bring the images to the nodes, and the release to a namespace that enforces Pod Security `restricted`."""
        self._give_nodes_the_cores()
        built = image.build_image(ROOT, name="flaskapp")
        database = image.postgres_archive()
        archives = {built.reference: built.archive} | ({POSTGRES: database} if database else {})
        lifecycle.load_images(self.instance.name, archives)
        self.image = built.reference
        # The same content by another name: a new image, as the Deployment sees it.
        self.other_image = self.image.replace("/flaskapp:", "/flaskapp-other:")
        lifecycle.name_image(self.instance.name, self.image, self.other_image)
        shutil.rmtree(BUILD / "charts", ignore_errors=True)
        shutil.copytree(ROOT / "charts", BUILD / "charts")
        chart = [str(programs.binaries("chart") / "helm"), "dependency", "build", "--skip-refresh", str(CHART)]
        subprocess.run(chart, check=True, capture_output=True)
        if self.admin.kubectl("get", "secret", "admin-token", check=False).returncode:
            self.fresh()
        else:  # of an earlier run
            self.token = self.secret("admin-token")["API_ADMIN_TOKEN"]

    def _give_nodes_the_cores(self) -> None:
        """Let the pods go before whatever else runs here: a node has its cores for itself."""
        for node in self.instance.nodes:
            group = self.instance.namespace(node)
            for file, value in ((f"cpu/{group}/cpu.shares", "16384"), (f"{group}/cpu.weight", "5000")):
                path = Path("/sys/fs/cgroup") / file
                if path.exists():
                    path.write_text(value)

    def fresh(self) -> None:
        """A namespace with nothing but the release."""
        self.admin.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
        ensure_namespace(self.admin)
        self.admin.kubectl("apply", "-f", str(ROOT / "infra/helm-release-role.yaml"))
        self.apply_secret("admin-token", {"API_ADMIN_TOKEN": self.token})
        self.upgrade()

    def newer_image(self, broken: bool = False) -> str:
        """The application with one migration more, which adds a column and a table, or fails after it did."""
        with tempfile.TemporaryDirectory(prefix="flaskapp-newer-") as directory:
            context = Path(directory)
            shutil.copy(ROOT / "requirements.lock", context)
            shutil.copytree(ROOT / "src", context / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            versions = context / "src/flaskapp/migrations/versions"
            newest = max(path.name[:4] for path in versions.glob("[0-9]*.py"))
            failure = '    raise RuntimeError("this migration fails")\n' if broken else ""
            (versions / "9999_region.py").write_text(SCHEMA.format(newest=newest) + failure)
            built = image.build_image(context, name="flaskapp-broken" if broken else "flaskapp-newer")
        lifecycle.load_images(self.instance.name, {built.reference: built.archive})
        return built.reference

    def upgrade(
        self,
        *settings: str,
        image: str = "",
        chart: Path = CHART,
        check: bool = True,
        wait: bool = True,
        values: Path = VALUES,
    ) -> subprocess.CompletedProcess[str]:
        """`helm upgrade --install` with the scenarios' values, as whoever may release and no more."""
        return self.releaser.helm(
            *self.upgrade_arguments(*settings, image=image, chart=chart, wait=wait, values=values), check=check
        )

    def upgrade_arguments(
        self, *settings: str, image: str = "", chart: Path = CHART, wait: bool = True, values: Path = VALUES
    ) -> list[str]:
        repository, _, tag = (image or self.image).rpartition(":")
        arguments = ["upgrade", RELEASE, str(chart), "--install", "--values", str(values)]
        arguments += ["--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}"]
        return [*arguments, *self.settings, *settings, *(["--wait", "--wait-for-jobs", "--timeout=4m"] if wait else [])]

    def run(self, *command: str, admin: bool = False) -> str:
        """A program with the releaser's rights, or the administrator's; return what it printed.

        Raises:
            DeployError: it failed.
        """
        user, group = ("administrator", "system:masters") if admin else ("releaser", "flaskapp:release")
        kubeconfig = self.instance.state / f"{user}.scenarios.kubeconfig"
        controlplane.kubeconfig(self.instance, kubeconfig, user, group, namespace=NAMESPACE)
        directories = f"{programs.binaries('kubernetes')}:{programs.binaries('chart')}"
        environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PATH": f"{directories}:{os.environ['PATH']}"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode:
            raise DeployError(f"{command[0].rpartition('/')[2]} {command[1]} failed: {result.stderr.strip()[-300:]}")
        return result.stdout

    def revision(self) -> int:
        return int(
            json.loads(self.releaser.helm("history", RELEASE, "--max=1", "--output=json").stdout)[-1]["revision"]
        )

    def baseline(self) -> None:
        """The release as scenarios expect it; what nobody changed is not rolled."""
        if "another operation" in self.upgrade(check=False).stderr:  # an interrupted run's
            self.releaser.helm("rollback", RELEASE, "--wait", "--timeout=3m")
        self.upgrade()
        until(lambda: len(self.ready_pods()) == 2 == len(self.web_pods()), 120, "two ready pods and no other")

    # --- looking -----------------------------------------------------------------------------------------------------

    def get(self, kind: str, name: str = "", selector: str = "") -> Any:
        """An object, or a list's items."""
        arguments = [name] if name else ["--selector", selector] if selector else []
        document = json.loads(self.admin.kubectl("get", kind, *arguments, "--output=json").stdout)
        return document if name else document["items"]

    def web_pods(self) -> list[dict[str, Any]]:
        """Web pods, those that are leaving included."""
        return list(self.get("pods", selector=WEB))

    def ready_pods(self) -> list[dict[str, Any]]:
        def ready(pod: dict[str, Any]) -> bool:
            conditions = pod["status"].get("conditions", [])
            return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)

        return [pod for pod in self.web_pods() if ready(pod) and "deletionTimestamp" not in pod["metadata"]]

    def uid(self, pod: str) -> str:
        """Of a pod; empty where there is none."""
        return self.admin.kubectl("get", "pod", pod, "--output=jsonpath={.metadata.uid}", check=False).stdout

    def database_pod(self) -> dict[str, Any]:
        return dict(self.get("pod", f"{DATABASE}-0"))

    def restarts(self) -> int:
        """Of the application's containers, in the pods that are there."""
        return sum(one["restartCount"] for pod in self.web_pods() for one in pod["status"].get("containerStatuses", []))

    def entries(self, *without: str) -> list[str]:
        """URLs that lead to the Service: its address by the host's route, and each node's own port."""
        spec = self.get("service", APP)["spec"]
        nodes = [self.instance.node_address(node) for node in self.instance.nodes if node not in without]
        by_node = [f"http://{address}:{spec['ports'][0]['nodePort']}" for address in nodes]
        return [f"http://{spec['clusterIP']}", *by_node]

    def sql(self, statement: str, database: str = "flaskapp", pod: str = f"{DATABASE}-0") -> str:
        """Run a statement as the superuser, over the socket."""
        psql = ["psql", "--no-psqlrc", "-qAtX", "--username=postgres", f"--dbname={database}", "--command", statement]
        container = ["exec", pod, "--container=postgresql", "--"]
        return self.admin.kubectl(*container, *psql).stdout.strip()

    def rows(self, service: str) -> dict[str, int]:
        """How often each version of a service is in the database."""
        found = self.sql(
            "SELECT d.version, count(*) FROM deployments d JOIN services s ON s.id = d.service_id"
            f" WHERE s.name = '{service}' GROUP BY 1"
        )
        return {version: int(count) for version, count in (line.split("|") for line in found.splitlines())}

    # --- hurting -----------------------------------------------------------------------------------------------------

    def processes(self, pod: dict[str, Any], container: str) -> list[int]:
        """Ids on this machine of a container's processes, its first one first."""
        [status] = [one for one in pod["status"]["containerStatuses"] if one["name"] == container]
        identifier = status["containerID"].rpartition("/")[2]
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if identifier in (directory / "cgroup").read_text():
                    found.append(int(directory.name))
        return sorted(found)

    def kill(self, pod: dict[str, Any], container: str, what: signal.Signals = signal.SIGKILL) -> None:
        """A signal to every process of a container, its first one first."""
        for pid in self.processes(pod, container):
            with suppress(ProcessLookupError):
                os.kill(pid, what)

    def in_pod(self, pod: dict[str, Any], container: str, *command: str) -> None:
        """Run a program of this machine in the pod's network."""
        [pid, *_] = self.processes(pod, container)
        subprocess.run(["nsenter", f"--target={pid}", "--net", *command], check=True, capture_output=True)

    def node_run(self, node: str, *command: str) -> str:
        """Run a program of this machine among a node's mounts; return what it printed."""
        result = subprocess.run(nodes.enter(self.instance, node, *command), capture_output=True, text=True)
        if result.returncode:
            raise DeployError(f"{' '.join(command)[:60]} failed on {node}: {result.stderr.strip()[-200:]}")
        return result.stdout

    def partition(self, node: str) -> None:
        """Take a node off the network; the scenario's end puts it back."""
        fabric = self.instance.namespace("fabric")
        self.later(f"node {node} is off the network", lambda: self.rejoin(node))
        network.ip("link", "set", f"to-{node}", "down", namespace=fabric)

    def rejoin(self, node: str) -> None:
        network.ip("link", "set", f"to-{node}", "up", namespace=self.instance.namespace("fabric"))
        self.nodes_ready()

    def stop_node(self, node: str) -> None:
        """kill -9 of a node; the scenario's end starts it again."""
        self.later(f"node {node} is stopped", self.start_nodes)
        lifecycle.stop_node(self.instance.name, node)

    def start_nodes(self) -> None:
        lifecycle.up(self.instance.name)
        self.nodes_ready()

    def nodes_ready(self) -> None:
        def ready(node: dict[str, Any]) -> bool:
            return any((one["type"], one["status"]) == ("Ready", "True") for one in node["status"]["conditions"])

        until(lambda: all(map(ready, self.get("nodes"))), 120, "every node's readiness")

    # --- a scenario's course -----------------------------------------------------------------------------------------

    def apply_secret(self, name: str, data: dict[str, str]) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}
        self.admin.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(manifest))

    def patch_secret(self, name: str, data: dict[str, str]) -> None:
        """Change some keys, as people do without helm."""
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.admin.kubectl("patch", "secret", name, "--patch-file=/dev/stdin", stdin=json.dumps({"data": encoded}))

    def values_file(self, values: dict[str, Any]) -> Path:
        """Values that are no words for a command line."""
        BUILD.mkdir(parents=True, exist_ok=True)
        path = BUILD / "values.yaml"
        path.write_text(yaml.safe_dump(values, allow_unicode=True))
        self.later(f"{path} holds values", lambda: path.unlink(missing_ok=True))
        return path

    def secret(self, name: str) -> dict[str, str]:
        return {key: base64.b64decode(value).decode() for key, value in self.get("secret", name)["data"].items()}

    def mark(self, what: str) -> None:
        """Show this moment in the plot."""
        self.marks.append((time.time(), what))

    def note(self, what: str) -> None:
        """Say it beside the figures."""
        self.outcome.notes.append(what)

    def check(self, holds: bool, what: str) -> None:
        """Turn the scenario red unless it holds."""
        if not holds:
            self.outcome.red.append(what)

    def afterwards(self, compare: Callable[[], None]) -> None:
        """Look at the answers, once they are all there."""
        self.comparisons.append(compare)

    def later(self, what: str, undo: Callable[[], object]) -> None:
        """Undo something at the scenario's end, whatever happens; `what` is said where that fails."""
        self._undo.append((what, undo))

    def clean(self) -> list[str]:
        """Undo what was done, the last first; return what is left."""
        left = []
        while self._undo:
            what, undo = self._undo.pop()
            try:
                undo()
            except Exception as error:
                left.append(f"{what} ({error})")
        return left

    @contextmanager
    def loaded(self, load: Load) -> Iterator[None]:
        """The load around the scenario, and its first and last seconds undisturbed."""
        self.first_row(load)
        load.start()
        try:
            time.sleep(2)
            yield
            time.sleep(2)
        finally:
            self.answers = load.stop()

    def first_row(self, load: Load) -> None:
        """The service's name must be there before it is read, and each pod must have found the database."""
        until(lambda: all(map(self.pod_answers, self.ready_pods())), 60, "an answer of every pod")
        load.keys["first"] = "first-" + load.service
        until(lambda: self.send(load, "first"), 60, "an answer of the release")

    def send(self, load: Load, version: str) -> bool:
        """Write, or write again with the same Idempotency-Key."""
        url = f"{self.entries()[0]}/api/v1/deployments"
        with suppress(requests.RequestException):
            answer = requests.post(url, json=load.body(version), headers=load.headers(version), timeout=5)
            return answer.status_code == 201
        return False

    def answers_now(self) -> bool:
        """Whether the Service answers from the database."""
        with suppress(requests.RequestException):
            return requests.get(f"{self.entries()[-1]}/api/v1/deployments?limit=1", timeout=3).status_code == 200
        return False

    def pod_answers(self, pod: dict[str, Any]) -> bool:
        """Whether this pod answers from the database."""
        port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
        with suppress(requests.RequestException):
            address = f"http://{pod['status']['podIP']}:{port}/api/v1/deployments?limit=1"
            return requests.get(address, timeout=3).status_code == 200
        return False

    def settle(self, load: Load) -> set[str]:
        """Send again what was not acknowledged, as a client does; return what was acknowledged under load."""
        acknowledged = {answer.version for answer in self.answers if answer.version}
        for version in sorted(load.keys.keys() - acknowledged):
            until(partial(self.send, load, version), 60, f"a second attempt at writing {version}")
        return acknowledged


class Background(threading.Thread):
    """A call beside the scenario; `finish` raises what it raised."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.call()
        except Exception as error:
            self.error = error

    def finish(self, seconds: float) -> None:
        self.join(seconds)
        if self.is_alive():
            raise DeployError(f"a command beside the scenario took more than {seconds:g} s")
        if self.error:
            raise self.error
