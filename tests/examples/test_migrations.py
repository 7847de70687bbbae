"""Migrations by Flask-Migrate, Alembic and Django, whose version 2 adds a revision that version 1 doesn't know.

Without LONG=1 by Flask-Migrate alone.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests
import yaml

from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.images import image
from flaskapp_deploy.kubernetes import Cluster
from tests.chart.render import merged
from tests.kubernetes import ROOT
from tests.reliability.test_release import get, url, wait

LONG = bool(os.environ.get("LONG"))
CLIENTS, RATE = 4, 20  # requests a second at most, of all clients
APPLICATIONS = ROOT / "examples/migrations"
ALEMBIC = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("item", sa.Column("price", sa.Integer))
"""
DJANGO = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.AddField("Item", "price", models.IntegerField(null=True))]
"""


@dataclass(frozen=True)
class Tool:
    """What version 2 of an example adds: a column, in `source` after a line of version 1, and a revision."""

    source: str
    after: str
    column: str
    revision: str
    text: str
    table: str = "item"

    def make_version_2(self, directory: Path) -> None:
        """Add them to a copy of version 1."""
        source = directory / self.source
        text = source.read_text()
        assert text.count(self.after) == 1
        source.write_text(text.replace(self.after, self.after + self.column))
        (directory / self.revision).write_text(self.text)


TOOLS = {
    "flask-migrate": Tool(
        "app.py",
        "    name = db.Column(db.String, nullable=False)\n",
        "    price = db.Column(db.Integer)\n",
        "migrations/versions/0002_price.py",
        ALEMBIC,
    ),
    "alembic": Tool(
        "app.py",
        '    sa.Column("name", sa.String, nullable=False),\n',
        '    sa.Column("price", sa.Integer),\n',
        "migrations/versions/0002_price.py",
        ALEMBIC,
    ),
    "django": Tool(
        "shop/models.py",
        "    name = models.TextField()\n",
        "    price = models.IntegerField(null=True)\n",
        "shop/migrations/0002_price.py",
        DJANGO,
        table="shop_item",
    ),
}
RUN = list(TOOLS) if LONG else ["flask-migrate"]


@pytest.fixture(scope="module")
def versions(kubernetes: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """References of both versions by each tool, loaded on every node."""
    references, archives = {}, image.chart_archives()
    for name in RUN:
        tool = TOOLS[name]
        second = tmp_path_factory.mktemp(name) / name
        shutil.copytree(APPLICATIONS / name, second)
        tool.make_version_2(second)
        built = [image.build_image(directory, name=name) for directory in (APPLICATIONS / name, second)]
        archives |= {each.reference: each.archive for each in built}
        references[name] = (built[0].reference, built[1].reference)
    lifecycle.load_images(kubernetes.name, archives)
    return references


class Shop:
    """A release of an example, as its clients see it."""

    def __init__(self, name: str, releaser: Cluster, admin: Cluster, versions: tuple[str, str]) -> None:
        self.name, self.releaser, self.admin, self.tool = name, releaser, admin, TOOLS[name]
        self.first, self.second = versions
        self.web = "app.kubernetes.io/instance=shop,app.kubernetes.io/component=web"

    def upgrade(self, image: str, *, values: dict[str, Any] | None = None, waits: bool = True) -> None:
        repository, _, tag = image.rpartition(":")
        settings = {
            "image": {"repository": repository, "tag": tag},
            "resources": {"requests": {"cpu": "20m"}},
            "postgresql": {"primary": {"persistence": {"enabled": False}}},
        }
        file = ROOT / f"build/examples/{self.releaser.namespace}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(merged(settings, values or {})))
        arguments = [f"--values={each}" for each in (APPLICATIONS / self.name / "values.yaml", file)]
        arguments += ["--wait", "--wait-for-jobs", "--timeout=3m"] if waits else []
        self.releaser.helm("upgrade", "shop", str(ROOT / "charts/flaskapp"), "--install", *arguments)

    def roll_back(self, revision: int) -> None:
        self.releaser.helm("rollback", "shop", str(revision), "--wait", "--wait-for-jobs", "--timeout=3m")

    def pods(self) -> list[Any]:
        """The pods that serve or shall, without those that leave."""
        pods = get(self.admin, "pods", selector=self.web)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def images(self) -> set[str]:
        return {pod["spec"]["containers"][0]["image"] for pod in self.pods()}

    def replace_a_pod(self, image: str) -> str:
        """Delete a pod of this version; return the name of the one that takes its place."""

        def names() -> set[str]:
            return {pod["metadata"]["name"] for pod in self.pods() if pod["spec"]["containers"][0]["image"] == image}

        before = names()
        self.admin.kubectl("delete", "pod", min(before), "--wait=false")
        wait(lambda: bool(names() - before), 60, "a pod in its place")
        return min(names() - before)

    def is_ready(self, name: str) -> bool:
        conditions = get(self.admin, "pod", name)["status"].get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def in_database(self, *command: str) -> str:
        return self.admin.kubectl(
            "exec", "shop-postgresql-0", "--container=postgresql", "--", *command, "--username=postgres"
        ).stdout.strip()

    def sql(self, statement: str) -> str:
        return self.in_database("psql", "--no-psqlrc", "-qAt", "--dbname=app", f"--command={statement}")

    def has_price(self) -> bool:
        where = f"table_name = '{self.tool.table}' AND column_name = 'price'"
        return self.sql(f"SELECT count(*) FROM information_schema.columns WHERE {where}") == "1"

    def migration_log(self) -> str:
        selector = "app.kubernetes.io/instance=shop,app.kubernetes.io/component=migration"
        log = self.admin.kubectl("logs", f"--selector={selector}", "--container=migrate", "--tail=-1", check=False)
        return log.stdout  # empty until the container has started

    @contextmanager
    def load(self, what: str) -> Iterator[None]:
        """Send requests from several clients, reads and writes in turn, all the time; none may fail."""
        address, stop, failures = url(self.admin, "shop"), Event(), []

        def send(client: int) -> int:
            number = 0
            while not stop.wait(CLIENTS / RATE):
                number += 1
                method, data = ("POST", {"name": f"item {client}-{number}"}) if number % 2 else ("GET", None)
                try:
                    answer = requests.request(method, address, data=data, timeout=10)
                    assert answer.ok, f"{answer.status_code} {answer.text[:200]}"
                except (requests.RequestException, AssertionError) as error:
                    failures.append(f"{method} {error}")
            return number

        with ThreadPoolExecutor(CLIENTS) as pool:
            sent = [pool.submit(send, client) for client in range(CLIENTS)]
            try:
                yield
            finally:
                stop.set()
                count = sum(each.result() for each in sent)
        print(f"\n{self.name}: {what}: {count} requests, {len(failures)} failed")
        assert not failures, failures[:5]


@pytest.fixture(scope="module", params=RUN)
def shop(
    request: pytest.FixtureRequest,
    releaser: Callable[[str], Cluster],
    admin: Callable[[str], Cluster],
    versions: dict[str, tuple[str, str]],
) -> Iterator[Shop]:
    """Version 1, with a dump of its database in the server's pod."""
    name = request.param
    namespace = f"migrations-{name}"
    made = Shop(name, releaser(namespace), admin(namespace), versions[name])
    made.upgrade(made.first)
    made.in_database("pg_dump", "--format=custom", "--dbname=app", "--file=/tmp/1.dump")
    yield made
    admin(namespace).kubectl("delete", "namespace", namespace, "--wait=false")


def test_an_upgrade_and_a_rollback(shop: Shop) -> None:
    with shop.load("an upgrade and a rollback"):
        shop.upgrade(shop.second)
        assert shop.images() == {shop.second}
        assert shop.has_price()
        shop.roll_back(1)
        assert shop.images() == {shop.first}
        assert "nothing to do" in shop.migration_log()
        shop.releaser.helm("test", "shop")
    assert shop.has_price()


def test_a_pod_is_replaced_while_a_newer_migration_is_stuck(shop: Shop) -> None:
    """It has changed the schema, and has not ended."""
    [*_, last] = json.loads(shop.releaser.helm("history", "shop", "--output=json").stdout)
    values = json.loads(shop.releaser.helm("get", "values", "shop", "--output=json").stdout)
    command = " ".join(values["migrations"]["command"])
    stuck = {"migrations": {"command": ["sh", "-c", f"{command} && echo stuck && sleep 600"]}}
    with shop.load("a newer migration is stuck, a pod is replaced, a rollback"):
        shop.upgrade(shop.second, values=stuck, waits=False)
        wait(lambda: "stuck" in shop.migration_log(), 60, "the migration")
        name = shop.replace_a_pod(shop.first)
        wait(lambda: shop.is_ready(name), 120, "the pod of version 1")
        shop.roll_back(last["revision"])
        assert shop.images() == {shop.first}


def test_a_restored_database_makes_pods_wait(shop: Shop) -> None:
    shop.upgrade(shop.second)
    shop.in_database("pg_restore", "--clean", "--if-exists", "--dbname=app", "/tmp/1.dump")
    assert not shop.has_price()
    name = shop.replace_a_pod(shop.second)
    waiting = f"the migration of {shop.second} has not finished"
    log = ("logs", name, "--container=wait-for-schema")
    wait(lambda: waiting in shop.admin.kubectl(*log, check=False).stdout, 60, "the pod that waits")
    assert not shop.is_ready(name)
    shop.upgrade(shop.second, values={"migrations": {"retry": 1}})
    assert shop.has_price()
    assert shop.is_ready(name), "the pod that waited was replaced"


def test_an_image_without_python_on_its_path(
    releaser: Callable[[str], Cluster], admin: Callable[[str], Cluster], versions: dict[str, tuple[str, str]]
) -> None:
    """The database, a migration in each of two pods, and the test of the release."""
    namespace = "migrations-no-python"
    shop = Shop("flask-migrate", releaser(namespace), admin(namespace), versions["flask-migrate"])
    python = ["/usr/local/bin/python3", "-m"]
    migrations = {"mode": "initContainer", "command": [*python, "flask", "db", "upgrade"]}
    shop.upgrade(
        shop.first, values={"env": {"PATH": "/nowhere"}, "command": [*python, "gunicorn"], "migrations": migrations}
    )
    shop.releaser.helm("test", "shop")
    logs = [
        shop.admin.kubectl("logs", pod["metadata"]["name"], "--container=migration-lock").stdout for pod in shop.pods()
    ]
    assert [log.splitlines()[-2:] for log in logs] == [["run", "recorded"]] * 2
    assert shop.sql("SELECT count(*) FROM flaskapp.migrations WHERE finished_at IS NOT NULL") == "1"
    assert requests.get(url(shop.admin, "shop"), timeout=10).json() == {"items": []}
    admin(namespace).kubectl("delete", "namespace", namespace, "--wait=false")
