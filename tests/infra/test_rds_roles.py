"""infra/rds-roles.sql on a real PostgreSQL, run by a master user that, as on RDS, is not a superuser."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from flaskapp_deploy.up.postgres import PROGRAMS, Postgres
from tests.infra import template as t

PASSWORDS = {"flaskapp_owner": "owner-'pass\"word", "flaskapp": "application-'pass\"word", "master": "master"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    made = Postgres(tmp_path_factory.mktemp("postgres"), "superuser", durable=False)
    made.start()
    run(made, "postgres", made.password, "CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'master'", "postgres")
    run(made, "postgres", made.password, "CREATE DATABASE flaskapp OWNER master", "postgres")
    for _ in range(2):  # safe to repeat
        result = apply(made)
        assert result.returncode == 0, result.stderr
    yield made
    made.stop()


def apply(server: Postgres) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": str(PROGRAMS.parent / "lib"),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "master",
        "PGPASSWORD": PASSWORDS["master"],
        "PGDATABASE": "flaskapp",
        "OWNER_PASSWORD": PASSWORDS["flaskapp_owner"],
        "APPLICATION_PASSWORD": PASSWORDS["flaskapp"],
    }
    program: Path = PROGRAMS / "psql"
    return subprocess.run(
        [program, "--no-psqlrc", "--file", t.INFRA / "rds-roles.sql"],
        env=environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def run(server: Postgres, user: str, password: str, statement: str, database: str = "flaskapp") -> None:
    connection = psycopg2.connect(
        host="127.0.0.1", port=server.port, dbname=database, user=user, password=password, connect_timeout=10
    )
    try:
        connection.autocommit = True
        connection.cursor().execute(statement)
    finally:
        connection.close()


def test_the_application_writes_what_the_owner_makes_and_makes_nothing(server: Postgres) -> None:
    def as_role(role: str, statement: str) -> None:
        run(server, role, PASSWORDS[role], statement)

    as_role("flaskapp_owner", "CREATE TABLE written (id serial PRIMARY KEY)")
    as_role("flaskapp", "INSERT INTO written DEFAULT VALUES")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        as_role("flaskapp", "CREATE TABLE own (id int)")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        as_role("flaskapp", "DROP TABLE written")
