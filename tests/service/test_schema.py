"""`db upgrade|check|wait`, and which schema this code can serve on."""

import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from flaskapp import migrate, schema
from flaskapp.database import Model, command_engine
from flaskapp.settings import Settings
from tests.postgres import Database
from tests.service.conftest import ADMIN, SOURCE, Server


def flaskapp(database: Database, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flaskapp", *arguments],
        cwd=SOURCE,
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | database.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(database: Database, *arguments: str) -> tuple[int, str]:
    with flaskapp(database, *arguments) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, (output + errors).strip()


def set_revision(database: Database, revision: str) -> None:
    database.execute("UPDATE alembic_version SET version_num = %s", revision)


def test_known_revisions_are_alembics() -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    assert [script.revision for script in scripts.walk_revisions()] == list(reversed(schema.KNOWN))
    assert scripts.get_heads() == [schema.NEWEST]


def test_models_are_what_the_migrations_make(database: Database) -> None:
    with command_engine(Settings.from_environment(database.environment)).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Model.metadata) == []


def test_upgrade_twice_and_check(new_database: Callable[..., Database]) -> None:
    database = new_database()
    assert run(database, "db", "check") == (
        1,
        f"flaskapp: the schema is at nothing, this code needs {schema.NEWEST}: run `db upgrade`",
    )
    assert run(database, "db", "upgrade") == (0, f"the schema went from nothing to {schema.NEWEST}")
    assert run(database, "db", "upgrade") == (0, f"nothing to do: the schema is at {schema.NEWEST}")
    assert run(database, "db", "check")[0] == 0


def test_many_upgrade_at_once(new_database: Callable[..., Database]) -> None:
    """They meet at the first table, which another session has begun to create and rolls back."""
    database = new_database()
    hold = "BEGIN; CREATE TABLE alembic_version (held int); SELECT pg_sleep(4); ROLLBACK"
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(database.execute, hold)
        processes = [flaskapp(database, "db", "upgrade") for _ in range(4)]
        outputs = [process.communicate(timeout=60) for process in processes]
        held.result()
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert sum("went from nothing" in output for output, _ in outputs) == 1


LAYOUT = """
    SELECT 'column', table_name, column_name, data_type || is_nullable || coalesce(column_default, '')
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) || convalidated
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT 'index', indrelid::regclass::text, relname, pg_get_indexdef(indexrelid) || indisvalid
    FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'revision', '', '', version_num FROM alembic_version
    ORDER BY 1, 2, 3, 4
"""


class Killer:
    """Ends the session before or after a statement, given by its number."""

    def __init__(self, database: Database, engine: Engine, moment: str, number: int):
        self.database, self.number, self.count, self.killed = database, number, 0, False
        event.listen(engine, f"{moment}_cursor_execute", self)

    def __call__(self, connection: Any, cursor: Any, *_: Any) -> None:
        self.count += 1
        if self.count == self.number and not self.killed:
            self.killed = True
            self.database.execute("SELECT pg_terminate_backend(%s, 10000)", cursor.connection.info.backend_pid)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_upgrade_killed_at_any_statement_can_be_repeated(
    new_database: Callable[..., Database], own_database: Database, moment: str
) -> None:
    """Interrupt before and after each statement of all revisions: a second attempt completes the migration."""
    clean = own_database.execute(LAYOUT)
    for number in count(1):
        database = new_database()
        engine = command_engine(Settings.from_environment(database.environment))
        killer = Killer(database, engine, moment, number)
        try:
            migrate.upgrade_now(engine, time.monotonic() + 30)
        except (OperationalError, migrate.SchemaError):
            migrate.upgrade(engine, 30, print)
        assert database.execute(LAYOUT) == clean, f"statement {number}"
        if not killer.killed:
            break
    assert number > 20


@pytest.mark.parametrize("index", ["deployments_finished", "deployments_started"])
def test_what_an_interrupted_older_release_left_is_completed(
    own_database: Database, new_database: Callable[..., Database], index: str
) -> None:
    """An invalid index, and tables that exist without the revision that creates them."""
    clean = own_database.execute(LAYOUT)
    own_database.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass")
    set_revision(own_database, {"deployments_finished": "0001", "deployments_started": "0002"}[index])
    assert own_database.execute(LAYOUT) != clean
    assert run(own_database, "db", "upgrade")[0] == 0
    assert own_database.execute(LAYOUT) == clean


@contextmanager
def reader(database: Database) -> Iterator[None]:
    """A transaction that has read the deployments and stays open, as a backup's does."""
    name = "SELECT pid FROM pg_stat_activity WHERE application_name = 'reader' AND query LIKE '%%sleep%%'"
    with ThreadPoolExecutor(1) as pool:
        read = "SET application_name = 'reader'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM deployments"
        held = pool.submit(database.execute, f"{read}; SELECT pg_sleep(600)")
        while not (rows := database.execute(name)):
            time.sleep(0.05)
        time.sleep(0.5)
        try:
            yield
        finally:
            database.execute("SELECT pg_terminate_backend(%s)", rows[0][0])
            assert isinstance(held.exception(), psycopg2.Error)


def at_revision(database: Database, revision: str) -> None:
    """Remove an index of the newest revisions."""
    index = {"0001": "deployments_finished", "0002": "deployments_started"}[revision]
    database.execute(f"DROP INDEX {index}")
    set_revision(database, revision)


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_an_upgrade_waits_for_a_long_reader(own_database: Database, revision: str) -> None:
    """The transaction lasts longer than the command waits for locks."""
    clean = own_database.execute(LAYOUT)
    at_revision(own_database, revision)
    with reader(own_database):
        process = flaskapp(own_database, "db", "upgrade")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(8)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, ""), output
    assert own_database.execute(LAYOUT) == clean


@pytest.mark.parametrize("how", ["timeout", "SIGKILL"])
def test_an_upgrade_interrupted_while_it_waits_for_a_reader_can_be_repeated(own_database: Database, how: str) -> None:
    clean = own_database.execute(LAYOUT)
    at_revision(own_database, "0002")
    invalid = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('deployments_started') AND NOT indisvalid"
    with reader(own_database):
        process = flaskapp(own_database, "db", "upgrade", "--timeout", "3" if how == "timeout" else "60")
        end = time.monotonic() + 30
        while not own_database.execute(invalid):
            assert time.monotonic() < end
            time.sleep(0.05)
        if how == "SIGKILL":
            process.kill()
        _, errors = process.communicate(timeout=60)
        assert how == "SIGKILL" or errors.startswith(
            "flaskapp: gave up after 3 s: canceling statement due to statement"
        )
        assert own_database.execute(invalid)
        again = [flaskapp(own_database, "db", "upgrade") for _ in range(2)]
        time.sleep(2)
    for process in again:
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, ""), output
    assert own_database.execute(LAYOUT) == clean


def test_a_newer_revision_is_well(own_database: Database, serve: Callable[..., Server]) -> None:
    """The previous release finds the new schema: its commands change nothing and its pods become ready."""
    set_revision(own_database, "9999")
    for command in ("upgrade", "check", "wait"):
        code, output = run(own_database, "db", command)
        assert code == 0
        assert "9999" in output
    assert own_database.execute("SELECT version_num FROM alembic_version") == [("9999",)]
    serve(own_database.environment).wait("/readyz")


def test_wait_says_what_for_and_has_a_limit(new_database: Callable[..., Database]) -> None:
    code, output = run(new_database(), "db", "wait", "--timeout", "1")
    lines = output.splitlines()
    assert code == 1
    assert lines[0].startswith("waiting: the schema is at nothing")
    assert lines[-1].startswith("flaskapp: gave up after 1 s: the schema is at nothing")


def test_wait_for_an_absent_database(database: Database) -> None:
    process = flaskapp(Database(database.server, "nowhere"), "db", "wait", "--timeout", "0.5")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert 'database "nowhere" does not exist' in errors
    assert "Traceback" not in errors


def test_not_ready_on_an_empty_database_until_upgraded(
    new_database: Callable[..., Database], serve: Callable[..., Server]
) -> None:
    database = new_database()
    server = serve(database.environment)
    server.wait("/livez")
    server.wait("/readyz", status=503)
    assert run(database, "db", "upgrade")[0] == 0
    server.wait("/readyz", seconds=15)
    assert server.get("/readyz?verbose").json()["schema"] == {"revision": schema.NEWEST, "served": True}


@pytest.mark.parametrize(("revision", "served"), [(None, False), (schema.NEWEST, True), ("9999", True)])
def test_serves(revision: str | None, served: bool) -> None:
    assert schema.serves(revision) is served


def test_constraints_are_named_as_the_models_name_them(database: Database) -> None:
    """Answers name rules by their constraint, so the names are part of the contract."""
    declared = {str(c.name) for table in Model.metadata.tables.values() for c in table.constraints}
    made = database.execute(
        "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
        " AND contype <> 'n' AND conrelid <> 'alembic_version'::regclass"
    )
    assert {name for (name,) in made} == declared


def previous_source(directory: Path) -> Path:
    """The code as it was before the newest revision was added, from the repository's history."""
    newest = next((SOURCE / "flaskapp/migrations/versions").glob(f"{schema.NEWEST}_*.py"))
    log = ["git", "log", "--diff-filter=A", "--format=%H", "-1", "--", str(newest)]
    added = subprocess.run(log, cwd=SOURCE, capture_output=True, text=True, check=True).stdout.strip()
    commit = f"{added}^" if added else "HEAD"
    archive = subprocess.run(["git", "archive", commit, "."], cwd=SOURCE, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(directory, filter="data")
    return directory


def test_the_previous_code_works_on_the_new_schema(
    own_database: Database, serve: Callable[..., Server], tmp_path: Path
) -> None:
    """Expand, then contract: both releases serve during a rollout, and a rollback starts."""
    source = previous_source(tmp_path)
    versions = sorted(path.name[:4] for path in (source / "flaskapp/migrations/versions").glob("0*.py"))
    assert tuple(versions) == schema.KNOWN[:-1]
    old = serve({**own_database.environment, "API_ADMIN_TOKEN": ADMIN}, source)
    new = serve({**own_database.environment, "API_ADMIN_TOKEN": ADMIN})
    old.wait()
    new.wait()
    headers = {"Authorization": f"Bearer {ADMIN}"}
    for writer, reader in ((old, new), (new, old)):
        body = {"service": "shop", "environment": "prod", "version": "1"}
        made = requests.post(writer.url + "/api/v1/deployments", json=body, headers=headers, timeout=5)
        assert made.status_code == 201, made.text
        path = f"/api/v1/deployments/{made.json()['id']}"
        ended = requests.patch(reader.url + path, json={"status": "succeeded"}, headers=headers, timeout=5)
        assert ended.status_code == 200, ended.text
        assert writer.get(path).json() == ended.json()
    assert old.get("/api/v1/services/shop").json() == new.get("/api/v1/services/shop").json()
