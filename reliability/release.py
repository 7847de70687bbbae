"""The release under test on the local cluster: made, changed, and looked at."""

import base64
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import requests

from flaskapp_deploy import programs, shell
from flaskapp_deploy.cluster import controlplane, lifecycle
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.images import image
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.up.install import ensure_admin_token, ensure_namespace

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/release"
CHART = BUILD / "charts/flaskapp"  # a copy of this run's own
LEDGER, VALUES = ROOT / "environments/ledger.yaml", Path(__file__).with_name("values.yaml")
RELEASE, NAMESPACE = "ledger", "release-scenarios"
DATABASE = f"{RELEASE}-postgresql"
DATABASE_POD = f"{DATABASE}-0"
WEB = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=web"
WAIT = ("--wait", "--wait-for-jobs", "--timeout=4m")
# What another one owns, back to the chart; a release that came from Helm 3 is not applied by the server unless told.
TAKE_BACK = ("--server-side=true", "--force-conflicts")
MIGRATION = '''"""A column that the release before doesn't know."""

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

until = partial(shell.wait_until, every=0.5)


def conditions(document: dict[str, Any]) -> set[str]:
    """Return the types of an object's conditions that hold."""
    return {one["type"] for one in document["status"].get("conditions", []) if one["status"] == "True"}


def answers(address: str) -> bool:
    """Return whether the release answers at this address from its database."""
    with suppress(requests.RequestException):
        return requests.get(f"{address}/api/v1/deployments?limit=1", timeout=3).status_code == 200
    return False


def scale(cluster: Cluster, deployment: str, replicas: int) -> None:
    """Scale a Deployment, and wait until it has so many pods."""
    cluster.kubectl("scale", f"deployment/{deployment}", f"--replicas={replicas}")
    cluster.kubectl("rollout", "status", f"deployment/{deployment}", "--timeout=2m")


def released_chart(folder: Path) -> Path:
    """Leave charts and environments of version 0.2.0 in a folder; return the chart, whose defaults are the ledger's."""
    git = partial(shell.run, "git", cwd=ROOT)
    revision = git("tag", "--list", "v0.2.0").stdout.strip()
    if not revision:
        new = "charts/flaskapp/templates/_workloads.tpl"
        revision = git("log", "--diff-filter=A", "--format=%H^", "--", new).stdout.split()[-1]
    git("archive", f"--output={folder}/released.tar", revision, "charts", "environments")
    with tarfile.open(folder / "released.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder / "charts/flaskapp"


class Release:
    """One release in one namespace, used by one scenario after another."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.admin, self.system = cluster.admin(NAMESPACE), cluster.admin("kube-system")
        self.releaser = Cluster(self._kubeconfig("releaser", "flaskapp:release"), "", NAMESPACE)
        self.settings: tuple[str, ...] = ()  # of every upgrade: what a mutation takes away

    def _kubeconfig(self, user: str, group: str) -> Path:
        path = self.cluster.state / f"{user}.scenarios.kubeconfig"
        return controlplane.kubeconfig(self.cluster, path, user, group, namespace=NAMESPACE)

    # --- made --------------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Bring the images to the nodes, and the release to a namespace that enforces Pod Security `restricted`."""
        self._give_nodes_the_cores()
        built = image.build_image(ROOT, name="flaskapp")
        lifecycle.load_images(self.cluster.name, {built.reference: built.archive} | image.chart_archives())
        self.image = built.reference
        # The same content by another name: a new image, as the Deployment sees it.
        self.other_image = self.image.replace("/flaskapp:", "/flaskapp-other:")
        lifecycle.name_image(self.cluster.name, self.image, self.other_image)
        shutil.rmtree(BUILD / "charts", ignore_errors=True)
        shutil.copytree(ROOT / "charts", BUILD / "charts")
        self.build_dependencies(CHART)
        ensure_namespace(self.admin)
        self.admin.kubectl("apply", "-f", str(ROOT / "infra/helm-release-role.yaml"))
        self.token = ensure_admin_token(self.admin)

    def _give_nodes_the_cores(self) -> None:
        """Let the pods go before whatever else runs here: a node has its cores for itself."""
        for node in self.cluster.nodes:
            group = self.cluster.namespace(node)
            for file, value in ((f"cpu/{group}/cpu.shares", "16384"), (f"{group}/cpu.weight", "5000")):
                path = Path("/sys/fs/cgroup") / file
                if path.exists():
                    path.write_text(value)

    def build(self, name: str, change: Callable[[Path], object]) -> str:
        """Build the application with changed source, bring the image to the nodes, and return its reference."""
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as directory:
            context = Path(directory)
            shutil.copy(ROOT / "requirements.lock", context)
            shutil.copytree(ROOT / "src", context / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            change(context)
            built = image.build_image(context, name=name)
        lifecycle.load_images(self.cluster.name, {built.reference: built.archive})
        return built.reference

    def build_newer(self, fails: bool = False) -> str:
        """Build the application with one migration more, which adds a column and a table, or fails after it did."""

        def add_migration(context: Path) -> None:
            versions = context / "src/flaskapp/migrations/versions"
            newest = max(path.name[:4] for path in versions.glob("[0-9]*.py"))
            failure = '    raise RuntimeError("this migration fails")\n' if fails else ""
            (versions / "9999_region.py").write_text(MIGRATION.format(newest=newest) + failure)

        return self.build("flaskapp-broken" if fails else "flaskapp-newer", add_migration)

    # --- changed -----------------------------------------------------------------------------------------------------

    def upgrade(
        self,
        *settings: str,
        image: str = "",
        chart: Path = CHART,
        values: dict[str, Any] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Upgrade by helm with the scenarios' values and these, as a user who may release and no more."""
        arguments = self.upgrade_arguments(*settings, image=image, chart=chart)
        return self.releaser.helm(*arguments, *WAIT, f"--set-json={json.dumps(values or {})}", check=check)

    def upgrade_arguments(self, *settings: str, image: str = "", chart: Path = CHART) -> list[str]:
        """Return the arguments of an upgrade that does not wait."""
        repository, _, tag = (image or self.image).rpartition(":")
        arguments = ["upgrade", RELEASE, str(chart), "--install", f"--values={LEDGER}", f"--values={VALUES}"]
        arguments += ["--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}"]
        return [*arguments, *self.settings, *settings]

    def roll_back(self, revision: int = 0) -> None:
        """Roll back to a revision, or to the one before."""
        self.releaser.helm("rollback", RELEASE, str(revision), *WAIT)

    def uninstall(self, release: str = RELEASE) -> None:
        """Uninstall, and wait for the end of the pods."""
        self.releaser.helm("uninstall", release, "--wait", "--timeout=3m")

    def build_dependencies(self, chart: Path) -> None:
        """Put the subchart into the chart."""
        self.releaser.helm("dependency", "build", "--skip-refresh", str(chart))

    def install_released(self) -> None:
        """Install by the chart of version 0.2.0, whose defaults are the ledger's, with the data that is there."""
        self.uninstall()
        repository, _, tag = self.image.rpartition(":")
        values = [f"--values={VALUES}", "--set", f"image.repository={repository},secrets.existingSecret=flaskapp-admin"]
        with tempfile.TemporaryDirectory(prefix="flaskapp-chart-") as directory:
            chart = released_chart(Path(directory))
            self.build_dependencies(chart)
            self.releaser.helm("install", RELEASE, str(chart), *values, "--set-string", f"image.tag={tag}", *WAIT)

    def run(self, *command: str, admin: bool = False) -> None:
        """Run a program with the releaser's rights, or the administrator's."""
        kubeconfig = self._kubeconfig("administrator", "system:masters") if admin else self.releaser.kubeconfig
        path = f"{programs.binaries('kubernetes')}:{programs.binaries('chart')}:{os.environ['PATH']}"
        shell.run(*command, env={"KUBECONFIG": str(kubeconfig), "PATH": path})

    def baseline(self) -> None:
        """Bring the release to where scenarios expect it; pods that nobody changed stay."""
        if "another operation" in self.upgrade(check=False).stderr:  # an interrupted run's
            self.roll_back()
        self.upgrade()
        self.wait_for_pods(2, 120, in_all=2)

    def change_login(self, username: str, password: str) -> None:
        """Change the database's Secret, as people do without helm."""
        data = {"username": username, "password": password}
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.admin.kubectl("patch", "secret", DATABASE, "--patch-file=/dev/stdin", stdin=json.dumps({"data": encoded}))

    # --- looked at ---------------------------------------------------------------------------------------------------

    def get(self, kind: str, name: str = "", selector: str = "") -> Any:
        """Return an object, or a list's items."""
        arguments = [name] if name else ["--selector", selector] if selector else []
        document = json.loads(self.admin.kubectl("get", kind, *arguments, "--output=json").stdout)
        return document if name else document["items"]

    @property
    def app(self) -> str:
        """The name of the web Deployment, and of what is named after it: a release of 0.2.0 keeps its own."""
        [deployment] = self.get("deployments", selector=WEB)
        return str(deployment["metadata"]["name"])

    def web_pods(self) -> list[dict[str, Any]]:
        """Return the web pods, those that are leaving included."""
        return list(self.get("pods", selector=WEB))

    def ready_pods(self) -> list[dict[str, Any]]:
        """Return the web pods that are ready and not leaving."""
        pods = self.web_pods()
        return [pod for pod in pods if "Ready" in conditions(pod) and "deletionTimestamp" not in pod["metadata"]]

    def uids(self) -> set[str]:
        """Return the identities of the ready pods: others after a rollout."""
        return {pod["metadata"]["uid"] for pod in self.ready_pods()}

    def restarts(self) -> dict[str, int]:
        """Return how often each web pod's containers were restarted."""
        return {
            pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
            for pod in self.web_pods()
        }

    def wait_for_pods(self, ready: int, seconds: float, in_all: int | None = None) -> float:
        """Wait until so many web pods are ready, of so many in all; return the seconds."""

        def reached() -> bool:
            return len(self.ready_pods()) == ready and in_all in (None, len(self.web_pods()))

        return until(reached, seconds, f"the release with {ready} pods")

    def wait_for_answer(self, seconds: float) -> float:
        """Wait until the Service answers from the database; return the seconds."""
        return until(lambda: answers(self.entries()[-1]), seconds, "the database")

    def database_pod(self) -> dict[str, Any]:
        """Return PostgreSQL's pod."""
        return dict(self.get("pod", DATABASE_POD))

    def database_pod_uid(self) -> str:
        """Return the identity of PostgreSQL's pod; empty where there is none."""
        return self.admin.kubectl("get", "pod", DATABASE_POD, "--output=jsonpath={.metadata.uid}", check=False).stdout

    def database_node(self) -> str:
        """Return the node with PostgreSQL."""
        return str(self.database_pod()["spec"]["nodeName"])

    def other_node(self) -> str:
        """Return the node without PostgreSQL."""
        [node] = set(self.cluster.nodes) - {self.database_node()}
        return node

    def pod_addresses(self) -> list[str]:
        """Return a URL of each ready pod."""
        pods = [(pod["status"]["podIP"], pod["spec"]["containers"][0]["ports"][0]) for pod in self.ready_pods()]
        return [f"http://{address}:{port['containerPort']}" for address, port in pods]

    def entries(self, *without: str) -> list[str]:
        """Return URLs that lead to the Service: its address by the host's route, and each node's own port."""
        [service] = self.get("services", selector=WEB)
        spec = service["spec"]
        nodes = [self.cluster.node_address(node) for node in self.cluster.nodes if node not in without]
        by_node = [f"http://{address}:{spec['ports'][0]['nodePort']}" for address in nodes]
        return [f"http://{spec['clusterIP']}", *by_node]

    def execute(self, pod: str, container: str, *command: str, check: bool = True) -> str:
        """Run a command in a container; return what it printed."""
        return self.admin.kubectl("exec", pod, f"--container={container}", "--", *command, check=check).stdout.strip()

    def log(self, pod: str, *options: str) -> str:
        """Return a pod's log."""
        return self.admin.kubectl("logs", pod, *options).stdout

    def sql(self, statement: str, pod: str = DATABASE_POD) -> str:
        """Run a statement as the superuser, over the socket."""
        psql = ["psql", "--no-psqlrc", "-qAtX", "--username=postgres", "--dbname=flaskapp", "--command", statement]
        return self.execute(pod, "postgresql", *psql)

    def rows(self, service: str) -> dict[str, int]:
        """Return how often each version of a service is in the database."""
        lines = self.sql(
            "SELECT d.version, count(*) FROM deployments d JOIN services s ON s.id = d.service_id"
            f" WHERE s.name = '{service}' GROUP BY 1"
        )
        return {version: int(count) for version, count in (line.split("|") for line in lines.splitlines())}

    def secret(self, name: str) -> dict[str, str]:
        """Return a Secret's content."""
        return {key: base64.b64decode(value).decode() for key, value in self.get("secret", name)["data"].items()}

    def revision(self) -> int:
        """Return the release's revision."""
        history = self.releaser.helm("history", RELEASE, "--max=1", "--output=json").stdout
        return int(json.loads(history)[-1]["revision"])
