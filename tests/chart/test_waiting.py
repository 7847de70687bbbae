"""The commands with which pods wait for the database, its schema or the Service, and under which migrations run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from flaskapp_deploy.programs import packages
from flaskapp_deploy.up.postgres import PROGRAMS, Postgres
from tests.chart.postgresql_server import has_debian_packages
from tests.chart.render import merged, one, render
from tests.postgres import Database, new_database, postgres

__all__ = ["new_database", "postgres"]  # pytest finds these fixtures by their names

pytestmark = pytest.mark.skipif(not has_debian_packages(), reason="needs Debian's static busybox")
VALUES = {
    "image": {"repository": "localhost/shop", "tag": "1"},
    "migrations": {"command": ["upgrade"]},
    "postgresql": {"enabled": True, "auth": {"existingSecret": "database"}},
}


def container(name: str, kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return a container of the Job's or the Deployment's pod, as it is rendered."""
    spec = one(render("flaskapp", merged(VALUES, values)), kind)["spec"]["template"]["spec"]
    [rendered] = [each for each in [*spec["initContainers"], *spec["containers"]] if each["name"] == name]
    return dict(rendered)


@dataclass
class Machine:
    """Runs containers of a pod as processes: they share a folder, and log in with the files of another one."""

    folder: Path
    database: Database
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def log_in(self, **secret: str) -> None:
        """Write the Secret's keys, as the kubelet does."""
        (self.folder / "login").mkdir(exist_ok=True)
        for file in (self.folder / "login").iterdir():
            file.unlink()
        for key, value in secret.items():
            (self.folder / "login" / key).write_text(value)

    def start(
        self,
        name: str,
        *command: str,
        kind: str = "Deployment",
        image: str = "shop:1",
        pod: str = "pod",
        values: dict[str, Any] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a container, with `command` in place of the application's."""
        repository, _, tag = image.partition(":")
        values = merged({"image": {"repository": f"localhost/{repository}", "tag": tag}}, values or {})
        rendered = container(name, kind, values)
        state = self.folder / pod
        state.mkdir(exist_ok=True)
        if not (state / "busybox").exists():
            (state / "busybox").symlink_to(packages.busybox())
        words = [word.replace("/run/flaskapp/", f"{state}/") for word in rendered["command"]]
        words = [*words[: words.index("run.sh") + 2], *command] if "run.sh" in words else words
        environment = {item["name"]: item.get("value", "") for item in rendered["env"]}
        environment |= {"STATE": str(state), "TOOLS": str(state), "LOGIN": str(self.folder / "login")}
        environment |= {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "PGHOST": "127.0.0.1"}
        environment |= {"PGPORT": str(self.database.port or self.database.server.port)}
        environment |= {"PGDATABASE": self.database.name, "PGUSER": "postgres"}
        process = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.processes.append(process)
        return process

    def migrate(self, *command: str, image: str = "shop:1", pod: str = "pod") -> tuple[int, str]:
        """Run the pod of a migration to its end; return its exit status and output."""
        lock = self.start("migration-lock", kind="Job", image=image, pod=pod)
        migrate = self.start("migrate", *command, kind="Job", image=image, pod=pod)
        output, _ = migrate.communicate(timeout=30)
        lock.send_signal(signal.SIGTERM)
        assert lock.wait(10) == 0
        for file in ("decision", "succeeded", "recorded"):  # the next pod has a folder of its own
            (self.folder / pod / file).unlink(missing_ok=True)
        return migrate.returncode, output

    def waits(self, image: str = "shop:1") -> bool:
        """Return whether a pod of this version waits for its migration."""
        process = self.start("wait-for-schema", image=image)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                assert process.wait(10) == 0
                return False
            assert f"the migration of localhost/{image} has not finished" in line
            return True
        finally:
            end(process)

    def rows(self) -> list[tuple[Any, ...]]:
        """The record: images and whether their migrations have finished."""
        return self.database.execute("SELECT image, finished_at IS NOT NULL FROM flaskapp.migrations ORDER BY number")


def end(process: subprocess.Popen[str]) -> None:
    """End a process with its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    if process.stdout:
        process.stdout.close()


@pytest.fixture
def machine(tmp_path: Path, new_database: Callable[..., Database], postgres: Postgres) -> Iterator[Machine]:
    made = Machine(tmp_path, new_database())
    made.log_in(password=postgres.password)
    yield made
    for process in made.processes:
        end(process)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)


REPEAT = {"migrations": {"waitCommand": ["check"]}}


def test_a_check_is_repeated_until_it_succeeds(machine: Machine, tmp_path: Path) -> None:
    flag = tmp_path / "schema"
    process = machine.start("wait-for-schema", "test", "-e", str(flag), values=REPEAT)
    time.sleep(1)
    assert process.poll() is None
    flag.touch()
    assert process.wait(10) == 0


@pytest.mark.parametrize("check", ["exit 1", "exec sleep 60"], ids=["fails", "hangs"])
def test_a_pod_that_waits_ends_at_once(machine: Machine, tmp_path: Path, check: str) -> None:
    flag = tmp_path / "flag"
    process = machine.start("wait-for-schema", "sh", "-c", f"touch {flag}; {check}", values=REPEAT)
    until(flag.exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(2) == 128 + signal.SIGTERM


LOGIN = {
    "postgresql": {"enabled": False},
    "migrations": {"command": []},
    "database": {"host": "db", "name": "shop", "username": "shop", "existingSecret": "db"},
}
PORT = merged(LOGIN, {"database": {"secretKeys": {"password": ""}}})


def test_a_pod_waits_for_the_port(machine: Machine, postgres: Postgres) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        machine.database = Database(postgres, machine.database.name, unused.getsockname()[1])
        process = machine.start("wait-for-database", values=PORT)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("waiting for the database: 127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
    machine.database = Database(postgres, machine.database.name)
    assert machine.start("wait-for-database", values=PORT).wait(10) == 0


def test_a_pod_waits_until_it_is_let_in(machine: Machine, postgres: Postgres) -> None:
    machine.log_in(password="wrong")
    process = machine.start("wait-for-database", values=LOGIN)
    assert process.stdout is not None
    assert 'password authentication failed for user "postgres"' in process.stdout.readline()
    machine.log_in(password=postgres.password)
    assert process.wait(10) == 0


@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "postgres"])
def test_a_url_is_enough(machine: Machine, postgres: Postgres, scheme: str) -> None:
    machine.database.execute("SELECT 1")
    password = quote(postgres.password, safe="")
    url = f"{scheme}://postgres:{password}@127.0.0.1:{postgres.port}/{machine.database.name}"
    machine.log_in(url=f"{url}?application_name=waiting")
    process = machine.start("wait-for-database", values=LOGIN)
    assert process.wait(10) == 0, process.stdout


def test_pods_wait_for_the_migration_of_their_own_version(machine: Machine) -> None:
    assert machine.waits()
    assert machine.migrate("echo", "one column more") == (0, "one column more\n")
    assert machine.rows() == [("localhost/shop:1", True)]
    assert not machine.waits()
    assert machine.waits("shop:2")


def test_an_earlier_version_leaves_a_newer_schema_alone(machine: Machine) -> None:
    machine.migrate("true")
    machine.migrate("true", image="shop:2")
    status, output = machine.migrate("false")
    assert (status, output.count("\n")) == (0, 1)
    assert output.startswith("migrate: nothing to do: ")
    assert "localhost/shop:2" in output
    assert not machine.waits()
    # Going forward again is no rollback.
    assert machine.migrate("echo", "again", image="shop:2") == (0, "again\n")
    assert machine.rows() == [("localhost/shop:1", True), ("localhost/shop:2", True)]


def test_what_a_failed_migration_left_is_a_newer_schema_too(machine: Machine) -> None:
    machine.migrate("true")
    assert machine.migrate("sh", "-c", "echo 'half of it'; exit 3", image="shop:2") == (3, "half of it\n")
    assert machine.waits("shop:2")
    assert not machine.waits()
    assert "nothing to do" in machine.migrate("false")[1]
    assert machine.migrate("true", image="shop:2") == (0, "")
    assert not machine.waits("shop:2")


def test_what_has_never_finished_runs_after_a_later_one_too(machine: Machine) -> None:
    assert machine.migrate("false") == (1, "")
    machine.migrate("true", image="shop:2")
    assert machine.waits()
    assert machine.migrate("echo", "finished now") == (0, "finished now\n")
    assert not machine.waits()


def test_a_restored_record_makes_pods_wait(machine: Machine) -> None:
    machine.migrate("true")
    machine.migrate("true", image="shop:2")
    machine.database.execute("DELETE FROM flaskapp.migrations WHERE image = 'localhost/shop:2'")
    assert machine.waits("shop:2")
    assert machine.migrate("echo", "again", image="shop:2") == (0, "again\n")
    assert not machine.waits("shop:2")


def test_one_migration_at_a_time_and_an_index_that_is_built_concurrently(machine: Machine) -> None:
    """Whoever waited for the lock in a query would hold up the index, and be waited for."""
    machine.database.execute("CREATE TABLE items (name text)")
    flag = machine.folder / "flag"
    index = "CREATE INDEX CONCURRENTLY i ON items (name)"
    psql = f'PGPASSWORD=$(cat "$LOGIN/password") psql --quiet --command="{index}"'
    build = f"until [ -e {flag} ]; do sleep 0.1; done; {psql}"
    machine.start("migration-lock", kind="Job", pod="first")
    first = machine.start("migrate", "sh", "-c", build, kind="Job", pod="first")
    until((machine.folder / "first/decision").exists)
    waiting = machine.start("migration-lock", kind="Job", image="shop:2", pod="second")
    second = machine.start("migrate", "echo", "second", kind="Job", image="shop:2", pod="second")
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waiting for the lock: another migration of this database is at work\n"
    flag.touch()
    assert first.communicate(timeout=20)[0] == ""
    assert second.communicate(timeout=20)[0] == "second\n"


def test_the_command_is_told_to_end(machine: Machine) -> None:
    flag = machine.folder / "flag"
    script = f"trap 'echo rolled back; exit 5' TERM; touch {flag}; while :; do sleep 0.1; done"
    machine.start("migration-lock", kind="Job")
    process = machine.start("migrate", "sh", "-c", script, kind="Job")
    until(flag.exists)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=5)[0] == "rolled back\n"
    assert process.returncode == 5
    assert machine.rows() == [("localhost/shop:1", False)]


def test_a_command_that_the_image_lacks_is_named(machine: Machine) -> None:
    status, output = machine.migrate("absent-tool", "db", "upgrade")
    assert status == 127
    assert "absent-tool" in output


def test_a_role_that_may_not_keep_a_record(machine: Machine, postgres: Postgres) -> None:
    machine.database.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    machine.log_in(username="reader", password="reader")
    lock = machine.start("migration-lock", kind="Job")
    status, output = machine.start("migrate", "true", kind="Job"), ""
    output, _ = status.communicate(timeout=20)
    assert status.returncode == 1
    assert "error: migrations can't be recorded: " in output
    assert "permission denied for database" in output
    assert "migrations.record" in output
    # The next attempt in the same pod finds a new decision.
    machine.database.execute(f'GRANT CREATE ON DATABASE "{machine.database.name}" TO reader')
    assert machine.start("migrate", "true", kind="Job").wait(20) == 0
    assert lock.poll() is None
    machine.database.execute("DROP OWNED BY reader CASCADE; DROP ROLE reader")


def test_the_application_may_read_the_record_and_no_more(machine: Machine, postgres: Postgres) -> None:
    machine.migrate("true")
    machine.database.execute("CREATE ROLE application LOGIN PASSWORD 'application'")
    machine.log_in(username="application", password="application")
    assert not machine.waits()
    machine.database.execute("DROP ROLE application")


def test_the_test_of_a_release_waits_for_the_service(tmp_path: Path) -> None:
    """A node learns of a new Service some seconds after the pods are ready."""
    pod = one(render("flaskapp", merged(VALUES, {"health": {"path": "/readyz"}})), "Pod", "test-http")
    *command, url = pod["spec"]["containers"][0]["command"]
    assert (command[0], url) == ("/bin/busybox", "http://web:80/readyz")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        url = "http://{}:{}/readyz".format(*server.getsockname())
        words = [packages.busybox(), *command[1:], url]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "Connection refused" in "".join(process.stdout.readline() for _ in range(2))
            server.listen()
            for status in ("503 Service Unavailable", "302 Found"):
                asking, _ = server.accept()
                assert asking.recv(4096).startswith(b"GET /readyz HTTP/1.1\r\n")
                asking.sendall(f"HTTP/1.0 {status}\r\nLocation: https://web/\r\n\r\n".encode())
                asking.close()
            output = process.stdout.read()
            assert process.wait(10) == 0
            assert output.startswith("HTTP/1.0 503 Service Unavailable\n")
            assert output.endswith(f"{url}: HTTP/1.0 302 Found\n")
