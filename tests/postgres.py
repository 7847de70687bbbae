"""Fixtures: a PostgreSQL server for the whole run, and empty databases on it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg2
import pytest

from flaskapp_deploy.up.postgres import Postgres

# Characters that are special in URLs, shells and libpq; every DB_… part must survive them.
PASSWORD = "p@ss:/#%?[ ]é'\"\\&="


@dataclass(frozen=True)
class Database:
    """One database of the server; `environment` is what the service needs to reach it."""

    server: Postgres
    name: str
    port: int | None = None  # of a proxy in between

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(self.port or self.server.port),
            "DB_NAME": self.name,
            "DB_USERNAME": "postgres",
            "DB_PASSWORD": self.server.password,
        }

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement without the service, and return its rows."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.server.port,
            dbname=self.name,
            user="postgres",
            password=self.server.password,
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    directory = tmp_path_factory.mktemp("postgres")
    server = Postgres(directory, PASSWORD, durable=False, settings={"max_connections": "200"})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def new_database(postgres: Postgres) -> Callable[..., Database]:
    """Creates databases: `new_database()` an empty one, `new_database(template)` a copy."""
    numbers = count()

    def make(template: str = "template0") -> Database:
        name = f"test-{next(numbers)}"
        Database(postgres, "postgres").execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return Database(postgres, name)

    return make
