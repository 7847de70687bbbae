"""The service on a real PostgreSQL: in this process with each test in a savepoint, or as gunicorn serves it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from psycopg2.extensions import TRANSACTION_STATUS_INERROR
from sqlalchemy import Connection
from werkzeug.test import TestResponse

from flaskapp import create_app, migrate
from flaskapp.database import command_engine
from flaskapp.settings import Settings
from flaskapp_deploy.shell import free_port
from tests.postgres import Database, new_database, postgres

__all__ = ["new_database", "postgres"]

ADMIN = "test-admin-token-of-enough-letters"
SOURCE = Path(__file__).resolve().parents[2] / "src"


def decoded(response: TestResponse) -> Any:
    """Return the JSON document of a response."""
    assert response.is_json, response.text
    return response.json


@pytest.fixture(scope="session")
def template(new_database: Callable[..., Database]) -> Database:
    """A database at the newest revision, from which others are copied: no connection to it may stay open."""
    made = new_database()
    engine = command_engine(Settings.from_environment(made.environment))
    migrate.upgrade(engine, 10, print)
    return made


@pytest.fixture(scope="session")
def database(template: Database, new_database: Callable[..., Database]) -> Database:
    """The database shared by all tests that roll back."""
    return new_database(template.name)


@pytest.fixture
def own_database(template: Database, new_database: Callable[..., Database]) -> Database:
    """A database for a test that commits."""
    return new_database(template.name)


@pytest.fixture(scope="session")
def make_app() -> Iterator[Callable[[dict[str, str]], Flask]]:
    """Creates applications without background threads, which would use the test's only connection too."""
    made: list[Flask] = []

    def make(environment: dict[str, str]) -> Flask:
        app = create_app(Settings.from_environment(environment))
        app.extensions["watch"].start = lambda: None
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions["watch"].engine.dispose()


@pytest.fixture(scope="session")
def app(database: Database, make_app: Callable[[dict[str, str]], Flask]) -> Flask:
    return make_app({**database.environment, "API_ADMIN_TOKEN": ADMIN})


class Isolated:
    """Replaces the engine: each transaction, and each single statement, is a savepoint on one connection."""

    def __init__(self, connection: Connection):
        self.connection = connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self.connection.begin_nested():
            yield self.connection

    def raw_connection(self) -> "Pooled":
        return Pooled(self.connection)


class Pooled:
    """Return what the pool would return."""

    def __init__(self, connection: Connection):
        self.driver_connection: Any = connection.connection.driver_connection
        self.savepoint = connection.begin_nested()

    def cursor(self) -> Any:
        return self.driver_connection.cursor()

    def close(self) -> None:
        failed = self.driver_connection.info.transaction_status == TRANSACTION_STATUS_INERROR
        (self.savepoint.rollback if failed else self.savepoint.commit)()


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:
    """The one connection of this test, rolled back at its end."""
    watch = app.extensions["watch"]
    real = watch.engine, watch.transactional
    with real[1].connect() as connection, connection.begin() as transaction:
        watch.engine = watch.transactional = Isolated(connection)
        yield connection
        watch.engine, watch.transactional = real
        transaction.rollback()


@pytest.fixture
def client(app: Flask, connection: Connection) -> FlaskClient:
    """Sends the bootstrap token with every request."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {ADMIN}"
    return client


class Server:
    """gunicorn as it runs in production."""

    def __init__(self, environment: dict[str, str], log: Path, source: Path = SOURCE):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}"],
                cwd=source,
                env=os.environ | {"PYTHONPATH": str(source), "METRICS_PORT": "0"} | environment,
                stdout=output,
                stderr=output,
            )

    def get(self, path: str, timeout: float = 10) -> requests.Response:
        return requests.get(self.url + path, timeout=timeout)

    def wait(self, path: str = "/readyz", status: int = 200, seconds: float = 15) -> None:
        """Wait until a path answers with this status."""
        end = time.monotonic() + seconds
        seen: object = None
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                seen = self.get(path, timeout=5).status_code
            except requests.ConnectionError as error:
                seen = error
            if seen == status:
                return
            time.sleep(0.05)
        raise AssertionError(f"{path} is {seen}, not {status}, after {seconds} s\n{self.log.read_text()}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts gunicorn with this environment; ends it after the test."""
    servers: list[Server] = []

    def start(environment: dict[str, str], source: Path = SOURCE) -> Server:
        servers.append(Server(environment, tmp_path / f"gunicorn-{len(servers)}.log", source))
        return servers[-1]

    yield start
    for server in servers:
        server.process.terminate()  # all first, so that they stop in parallel
    for server in servers:
        server.process.wait(30)
