"""`flaskapp db upgrade|check|wait`: one process at a time migrates the schema, the others wait for it."""

import math
import time
from collections.abc import Callable

import psycopg2
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError

from flaskapp.database import first_line
from flaskapp.schema import NEWEST, serves

LOCK = 0x666C6173  # the advisory lock's key: any constant that nothing else in the database uses
SAY_EVERY = 10.0  # seconds


class SchemaError(Exception):
    """The schema is not ready, or did not become ready in time; the message says what to do."""


def config(connection: Connection | None = None, deadline: float = math.inf) -> Config:
    """Return Alembic's configuration; `deadline` (monotonic clock) limits waits that have no limit of their own."""
    settings = Config()
    settings.set_main_option("script_location", "flaskapp:migrations")
    settings.attributes.update(connection=connection, deadline=deadline)
    return settings


def current(connection: Connection) -> str | None:
    """Return the schema's revision, or None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def check(engine: Engine) -> str:
    """Return a line that says which revision the schema has.

    Raises:
        SchemaError: This code cannot serve on the schema.
    """
    with engine.connect() as connection:
        revision = current(connection)
    if not serves(revision):
        raise SchemaError(f"the schema is at {revision or 'nothing'}, this code needs {NEWEST}: run `db upgrade`")
    if revision == NEWEST:
        return f"the schema is at {revision}, the newest"
    return f"the schema is at {revision}, newer than this code knows"


def wait(engine: Engine, timeout: float, say: Callable[[str], None]) -> str:
    """Wait until `check` succeeds, for `timeout` seconds at most; `say` gets a line every ten seconds."""
    return retry(lambda: check(engine), timeout, say)


def upgrade(engine: Engine, timeout: float, say: Callable[[str], None]) -> str:
    """Migrate the schema to the newest revision, waiting for the database and for other processes that migrate.

    `timeout` is in seconds; `say` gets a line every ten seconds. Returns a line that says what was done.

    Raises:
        SchemaError: The schema was not migrated in time.
    """
    deadline = time.monotonic() + timeout
    return retry(lambda: upgrade_now(engine, deadline), timeout, say)


def upgrade_now(engine: Engine, deadline: float) -> str:
    """Make one attempt, which also completes an interrupted migration.

    Raises:
        SchemaError: Another process is migrating, or the server closed the connection.
    """
    try:
        with engine.connect() as connection:
            return upgrade_on(connection, deadline)
    except (PendingRollbackError, InterfaceError, psycopg2.Error):  # what Alembic raises on a closed connection
        raise SchemaError("the server ended the connection") from None


def upgrade_on(connection: Connection, deadline: float) -> str:
    """Migrate on this connection, under an advisory lock that ends with its session."""
    if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}):
        raise SchemaError("another process is migrating")
    connection.commit()  # the lock belongs to the session, not to the transaction
    revision = current(connection)
    connection.commit()
    if serves(revision):
        return f"nothing to do: the schema is at {revision}"
    command.upgrade(config(connection, deadline), "head")
    connection.commit()
    return f"the schema went from {revision or 'nothing'} to {NEWEST}"


def retry(attempt: Callable[[], str], timeout: float, say: Callable[[str], None]) -> str:
    """Repeat an attempt that fails with SchemaError or OperationalError, for `timeout` seconds."""
    end = time.monotonic() + timeout
    message = 0.0
    while True:
        try:
            return attempt()
        except (SchemaError, OperationalError) as error:
            reason = first_line(error)
        if time.monotonic() >= end:
            raise SchemaError(f"gave up after {timeout:g} s: {reason}")
        if time.monotonic() - message >= SAY_EVERY:
            say(f"waiting: {reason}")
            message = time.monotonic()
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
