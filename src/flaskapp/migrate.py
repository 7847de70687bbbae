"""`db upgrade|check|wait`: the schema brought up to date by one process at a time, and waited for by the others."""

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
    """The schema is not what it should be, or did not become it in time; the message says what to do."""


def config(connection: Connection | None = None, deadline: float = math.inf) -> Config:
    """Alembic's configuration; `deadline` is of the monotonic clock, for what waits without a limit of its own."""
    settings = Config()
    settings.set_main_option("script_location", "flaskapp:migrations")
    settings.attributes.update(connection=connection, deadline=deadline)
    return settings


def current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def check(engine: Engine) -> str:
    """Say where the schema is; raise SchemaError when it is behind."""
    with engine.connect() as connection:
        revision = current(connection)
    if not serves(revision):
        raise SchemaError(f"the schema is at {revision or 'nothing'}, this code needs {NEWEST}: run `db upgrade`")
    if revision == NEWEST:
        return f"the schema is at {revision}, the newest"
    return f"the schema is at {revision}, newer than this code knows"


def wait(engine: Engine, timeout: float, say: Callable[[str], None]) -> str:
    """Wait until `check` is content, saying from time to time what for."""
    return retry(lambda: check(engine), timeout, say)


def upgrade(engine: Engine, timeout: float, say: Callable[[str], None]) -> str:
    """Bring the schema to the newest revision, one process at a time; wait for the database and for the others."""
    deadline = time.monotonic() + timeout
    return retry(lambda: upgrade_now(engine, deadline), timeout, say)


def upgrade_now(engine: Engine, deadline: float) -> str:
    """Make one attempt, which completes what another left half done; SchemaError: another process is migrating."""
    try:
        with engine.connect() as connection:
            return upgrade_on(connection, deadline)
    except (PendingRollbackError, InterfaceError, psycopg2.Error):  # what Alembic does with a connection that has ended
        raise SchemaError("the server ended the connection") from None


def upgrade_on(connection: Connection, deadline: float) -> str:
    if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}):
        raise SchemaError("another process is migrating")
    # The lock belongs to the session and ends with it, whatever happens to this process.
    connection.commit()
    revision = current(connection)
    connection.commit()
    if serves(revision):
        return f"nothing to do: the schema is at {revision}"
    command.upgrade(config(connection, deadline), "head")
    connection.commit()
    return f"the schema went from {revision or 'nothing'} to {NEWEST}"


def retry(attempt: Callable[[], str], timeout: float, say: Callable[[str], None]) -> str:
    """Repeat what fails for a passing reason."""
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
