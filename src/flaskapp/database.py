"""Database connections with bounded waits, and one process-wide record of whether the database answers.

Three limits nest. PostgreSQL cancels a statement after STATEMENT_TIMEOUT. If it can't (it is frozen, or the network is
down), the watchdog cuts every connection held longer than DEADLINE. From then on requests are refused at once, until
the prober gets an answer. No request waits longer than DEADLINE, and none uses more than its thread's one connection.
"""

import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from os import dup
from typing import Any

import psycopg2
from flask import Flask, current_app, g, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import NullPool, QueuePool

from flaskapp.queries import Session
from flaskapp.schema import serves
from flaskapp.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 2  # seconds, libpq's minimum
STATEMENT_TIMEOUT = 1500  # milliseconds
LOCK_TIMEOUT = 1000  # milliseconds
DEADLINE = 2.0  # seconds that a request may hold a connection
TICK = 0.2  # seconds between two checks by the watchdog
HEARTBEAT = 60.0  # seconds between two log lines with the current state
PROBE_UP, PROBE_DOWN = 10.0, 0.5  # seconds between two probes: while all is well, and while waiting for something

SAFE = {"GET", "HEAD", "OPTIONS"}


class UnavailableError(Exception):
    """The database does not answer, as far as this process knows."""


class Model(DeclarativeBase):
    """The base class of all tables."""


db = SQLAlchemy(model_class=Model)


def connect_args(settings: Settings, **options: object) -> dict[str, Any]:
    """Return libpq's connection parameters; `options` are PostgreSQL settings for the session."""
    session = {"timezone": "UTC", **options}
    arguments: dict[str, Any] = {
        "application_name": "flaskapp",
        "connect_timeout": CONNECT_TIMEOUT,
        "tcp_user_timeout": 2000,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "sslmode": settings.db_sslmode,
        "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
    }
    if settings.db_sslrootcert:
        arguments["sslrootcert"] = str(settings.db_sslrootcert)
    return arguments


def open_connection(settings: Settings, **options: object) -> Any:
    """Open a new connection with the current credentials; `options` are PostgreSQL settings for the session.

    Raises:
        psycopg2.OperationalError: The server refused, or did not answer within CONNECT_TIMEOUT.
        SettingsError: No token for the database could be made.
    """
    parts = settings.connection_parts()
    return psycopg2.connect(connection_factory=Session, **parts, **connect_args(settings, **options))


def command_engine(settings: Settings) -> Engine:
    """Create an engine for commands: one connection at a time, no limit on statements, 5 s on lock waits."""
    return create_engine(
        "postgresql+psycopg2://",
        poolclass=NullPool,
        pool_reset_on_return=None,  # a connection about to be closed needs no ROLLBACK, and a lost one can't take it
        creator=lambda: open_connection(settings, lock_timeout=5000),
    )


def init_app(app: Flask, settings: Settings) -> None:
    """Set up the connection pool and its Watch; nothing connects yet."""

    def connect() -> Any:
        return open_connection(
            settings,
            statement_timeout=STATEMENT_TIMEOUT,
            lock_timeout=LOCK_TIMEOUT,
            idle_in_transaction_session_timeout=5000,
        )

    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg2://"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        # One connection for each thread: no request waits for one, and the chart can count them.
        "pool_size": settings.web_threads,
        "max_overflow": 0,
        "pool_timeout": 1,  # SQLAlchemy takes whole seconds only
        "pool_use_lifo": True,
        "isolation_level": "AUTOCOMMIT",
        "pool_reset_on_return": None,  # no transaction is open on return: `transaction` ends its own
        "creator": lambda: app.extensions["watch"].connect(),
    }
    db.init_app(app)
    with app.app_context():
        app.extensions["watch"] = Watch(db.engine, connect, settings.db_connection_lifetime)


def watch() -> "Watch":
    """Return the current application's Watch."""
    current: Watch = current_app.extensions["watch"]
    return current


@contextmanager
def autocommit() -> Iterator[DBAPICursor]:
    """Yield a driver cursor on which each statement is its own transaction, without round trips for BEGIN and COMMIT.

    The pool, with its checks, is SQLAlchemy's; its execution layer is left out, as it costs more than the statement.

    Raises:
        UnavailableError: The database does not answer.
    """
    database = watch()
    database.require()
    pooled = database.engine.raw_connection()
    try:
        yield pooled.cursor()
    except psycopg2.Error as error:
        if getattr(pooled.driver_connection, "closed", False):
            note_change()  # the server may have executed what was sent
            pooled.invalidate(error)
        raise
    finally:
        pooled.close()


@contextmanager
def transaction() -> Iterator[DBAPICursor]:
    """Yield a driver cursor in a transaction that is committed at the end.

    Raises:
        UnavailableError: The database does not answer.
    """
    database = watch()
    database.require()
    with database.transactional.begin() as connection:
        yield connection.connection.cursor()
        note_change()  # COMMIT follows; if its answer is lost, the outcome is unknown


def note_change() -> None:
    """Note that this request has changed something, or may have."""
    g.may_have_changed = True


def nothing_changed() -> bool:
    """Return whether this request has certainly changed nothing."""
    return request.method in SAFE or not g.get("may_have_changed", False)


class Watch:
    """What this process knows of the database: whether it answers (`up`), and its schema's revision.

    Two background threads keep that up to date: a watchdog, which cuts connections held too long, and a prober.
    """

    def __init__(self, engine: Engine, opens: Callable[[], Any], lifetime: float):
        self.engine, self.opens, self.lifetime = engine, opens, lifetime
        self.transactional = engine.execution_options(isolation_level="READ COMMITTED")
        self.up = True  # until shown otherwise, so that the first request tries
        self.reason = "not asked yet"
        self.answered = False
        self.revision: str | None = None
        self._spares: deque[Any] = deque()  # one at most: it replaces a connection at the end of its lifetime
        self._spare_wanted = False
        self._busy: dict[int, tuple[float, socket.socket]] = {}
        self._thread = threading.local()
        self._wake = threading.Event()
        self._beat = 0.0  # when the next heartbeat is due
        self._started = threading.Lock()
        self.threads: list[threading.Thread] = []  # must live as long as the process
        event.listen(engine, "connect", self._connected, insert=True)  # before SQLAlchemy's own first queries
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)
        event.listen(engine, "close", self._closed)

    @property
    def busy(self) -> int:
        """The number of connections in use."""
        return len(self._busy)

    @property
    def idle(self) -> int:
        """The number of open connections that wait in the pool."""
        pool = self.engine.pool
        return pool.checkedin() if isinstance(pool, QueuePool) else 0

    def start(self) -> None:
        """Start the two threads, once a process; the worker calls this, as threads don't survive a fork."""
        if not self._started.acquire(blocking=False):
            return
        steps = {"watchdog": self._guard, "prober": self._probe}
        threads = [
            threading.Thread(target=repeat, args=(name, step), name=name, daemon=True) for name, step in steps.items()
        ]
        try:
            for thread in threads:
                thread.start()
        finally:
            self.threads += threads

    def ended(self) -> list[str]:
        """Return the names of background threads that have ended, which none ever should."""
        return [thread.name for thread in self.threads if not thread.is_alive()]

    def require(self) -> None:
        """Raise UnavailableError if the database does not answer: waiting would not help."""
        if not self.up:
            raise UnavailableError

    def suspect(self, error: Exception) -> None:
        """Note that a connection failed: requests are refused until the prober, woken here, gets an answer."""
        self._down(first_line(error))

    # --- connections -----------------------------------------------------------------------------------------------

    def connect(self) -> Any:
        """Return a connection for the pool: the spare that this thread has claimed, else a new one."""
        if spare := vars(self._thread).pop("spare", None):
            return spare
        # A thread that has waited for its turn in the pool must not start a second wait.
        if not vars(self._thread).get("probing"):
            self.require()
        return self.opens()

    def _connected(self, connection: Any, record: Any) -> None:
        # A duplicate descriptor: its number stays ours, and shutting it down wakes the thread that waits on libpq's.
        record.info["socket"] = socket.socket(fileno=dup(connection.fileno()))
        record.info["since"] = time.monotonic()
        self._busy[id(record)] = (record.info["since"], record.info["socket"])

    def _checked_out(self, connection: Any, record: Any, proxy: object) -> None:
        # Bytes waiting on an idle connection: the server has closed it. Unlike a ping, this costs no round trip.
        if readable(record.info["socket"]):
            raise DisconnectionError("closed by the server")
        if record.info["since"] < time.monotonic() - self.lifetime:
            self._retire()
        self._busy[id(record)] = (time.monotonic(), record.info["socket"])

    def _retire(self) -> None:
        """Replace an old connection if a spare is ready; else request a spare and use the old connection once more.

        During a rotation the server may have the new password before this process does; open connections still work.
        """
        try:
            self._thread.spare = self._spares.pop()
        except IndexError:
            self._spare_wanted = True
        else:
            raise DisconnectionError("at the end of its lifetime")

    def _checked_in(self, connection: Any, record: Any) -> None:
        self._busy.pop(id(record), None)

    def _closed(self, connection: Any, record: Any) -> None:
        self._busy.pop(id(record), None)
        if "socket" in record.info:
            record.info.pop("socket").close()

    # --- the two threads -------------------------------------------------------------------------------------------

    def _guard(self) -> None:
        """Do the watchdog's step: cut connections held too long, and log the heartbeat when it is due."""
        time.sleep(TICK)
        now = time.monotonic()
        self.cut(now - DEADLINE)
        if now >= self._beat:
            self._beat = now + HEARTBEAT
            # An alarm can count these: none at all means that no process is left, not that there are no requests.
            logger.info("heartbeat", extra={"database_up": self.up, "schema": self.revision, "busy": self.busy})

    def cut(self, before: float) -> None:
        """Cut connections checked out before this time of the monotonic clock."""
        for key, (since, sock) in list(self._busy.items()):
            if since < before:
                self._busy.pop(key, None)
                self._down(f"no answer within {DEADLINE:g} s")
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:  # closed in the meantime
                    continue

    def _probe(self) -> None:
        """Do the prober's step: ask the database, then keep the pool full or try again soon."""
        self.probe()
        if self.up and serves(self.revision):
            self.fill()
            self.prepare_spare()
            self._wake.wait(min(PROBE_UP, self.lifetime))
        else:
            time.sleep(PROBE_DOWN)

    def fill(self) -> None:
        """Open every connection of the pool, so that a burst during a password rotation needs no new one."""
        pool = self.engine.pool
        with ExitStack() as stack, suppress(psycopg2.Error, SQLAlchemyError, SettingsError):
            # Connections in use are open already; waiting for them would make requests wait.
            while isinstance(pool, QueuePool) and (pool.checkedin() or pool.overflow() < 0):
                stack.enter_context(closing(pool.connect()))

    def prepare_spare(self) -> None:
        """Open a spare if a connection is due for replacement; if that fails, the old one stays in use."""
        if not self._spare_wanted or self._spares:
            return
        try:
            self._spares.append(self.opens())
            self._spare_wanted = False
        except (psycopg2.Error, SettingsError) as error:
            logger.warning("connections are kept beyond their lifetime", extra={"reason": first_line(error)})

    def probe(self) -> None:
        """Query the schema's revision; any answer at all means that the database is up."""
        self._wake.clear()
        self._thread.probing = True
        try:
            with self.engine.connect() as connection:
                self.revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) != "42P01":  # no such table: an empty database, which answers
                self.suspect(error)
                return
            self.revision = None
        except (SQLAlchemyError, SettingsError) as error:
            if self.up and isinstance(error, SQLAlchemyError):
                return  # every connection is in use; the watchdog deals with those that hang
            self.suspect(error)
            return
        if not self.up:
            logger.warning("database answers again")
        self.up, self.answered, self.reason = True, True, "answers"

    def _down(self, reason: str) -> None:
        if self.up:
            logger.warning("database does not answer", extra={"reason": reason})
        self.up, self.reason = False, reason
        self._wake.set()


def repeat(name: str, step: Callable[[], None]) -> None:
    """Repeat a background thread's step for as long as the process lives, whatever exception it raises."""
    last = ""
    while True:
        try:
            step()
        except Exception as error:
            if repr(error) != last:  # log it once, not twice a second
                with suppress(Exception):
                    logger.exception("a background thread met an error and goes on", extra={"background": name})
            last = repr(error)
            time.sleep(PROBE_DOWN)
        else:
            last = ""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, the driver's own where SQLAlchemy wraps it."""
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]


def readable(sock: socket.socket) -> bool:
    """Return whether a read from the socket would not block."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
