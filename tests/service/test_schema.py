"""`db upgrade|check|wait`, and which schema this code can serve on."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

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
    """They meet at the first table, which somebody else is about to make and does not."""
    database = new_database()
    hold = "BEGIN; CREATE TABLE alembic_version (held int); SELECT pg_sleep(4); ROLLBACK"
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(database.execute, hold)
        processes = [flaskapp(database, "db", "upgrade") for _ in range(4)]
        outputs = [process.communicate(timeout=60) for process in processes]
        held.result()
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert sum("went from nothing" in output for output, _ in outputs) == 1


def test_a_newer_revision_is_well(own_database: Database, serve: Callable[..., Server]) -> None:
    """The previous release meets the new schema: commands leave it alone and pods become ready."""
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
    """Answers name rules by their constraint, so a name is part of the contract."""
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
    """Expand, then contract: during a roll-out both releases serve, and a rollback comes up."""
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
