"""The database: connections that never hang, and one process-wide knowledge of whether it answers.

Three limits nest: PostgreSQL ends a statement after STATEMENT_TIMEOUT; where it doesn't (frozen, or the network gone),
the watchdog cuts any connection held longer than DEADLINE; from then on requests are refused at once, until the prober
has had an answer. No request waits longer than DEADLINE, and none opens more than its thread's one connection.
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

CONNECT_TIMEOUT = 2  # seconds, libpq's smallest
STATEMENT_TIMEOUT = 1500  # milliseconds
LOCK_TIMEOUT = 1000  # milliseconds
DEADLINE = 2.0  # seconds that a request may hold a connection
TICK = 0.2  # seconds between two looks of the watchdog
HEARTBEAT = 60.0  # seconds between two log lines that say how things are
PROBE_UP, PROBE_DOWN = 10.0, 0.5  # seconds between two probes: all is well, or something is waited for


SAFE = {"GET", "HEAD", "OPTIONS"}


class UnavailableError(Exception):
    """The database is known not to answer."""


class Model(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Model)


def connect_args(settings: Settings, **options: object) -> dict[str, Any]:
    """libpq's parameters, `options` being PostgreSQL settings of the session."""
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
    """A new connection, with the credentials of this moment."""
    parts = settings.connection_parts()
    return psycopg2.connect(connection_factory=Session, **parts, **connect_args(settings, **options))


def command_engine(settings: Settings) -> Engine:
    """For commands: one connection at a time, a statement may last, a wait for a lock may not."""
    return create_engine(
        "postgresql+psycopg2://",
        poolclass=NullPool,
        pool_reset_on_return=None,  # a connection that is closed needs no ROLLBACK, and one that is lost takes none
        creator=lambda: open_connection(settings, lock_timeout=5000),
    )


def init_app(app: Flask, settings: Settings) -> None:
    """Set up the pool (nothing connects yet) and the watch over it."""

    def connect() -> Any:
        return open_connection(
            settings,
            statement_timeout=STATEMENT_TIMEOUT,
            lock_timeout=LOCK_TIMEOUT,
            idle_in_transaction_session_timeout=5000,
        )

    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg2://"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        # A thread needs one connection, so a request never waits for one and the chart can count them.
        "pool_size": settings.web_threads,
        "max_overflow": 0,
        "pool_timeout": 1,  # whole seconds: SQLAlchemy cuts off the rest
        "pool_use_lifo": True,
        "isolation_level": "AUTOCOMMIT",
        "pool_reset_on_return": None,  # nothing is open then: a statement is its own transaction, others end theirs
        "creator": lambda: app.extensions["watch"].connect(),
    }
    db.init_app(app)
    with app.app_context():
        app.extensions["watch"] = Watch(db.engine, connect, settings.db_connection_lifetime)


def watch() -> "Watch":
    """The current application's."""
    current: Watch = current_app.extensions["watch"]
    return current


@contextmanager
def autocommit() -> Iterator[DBAPICursor]:
    """A driver's cursor for single statements, each its own transaction: no BEGIN and COMMIT to wait for.

    The pool is SQLAlchemy's, with all its guards; what it would do around a statement costs more than the statement.
    """
    database = watch()
    database.require()
    pooled = database.engine.raw_connection()
    try:
        yield pooled.cursor()
    except psycopg2.Error as error:
        if getattr(pooled.driver_connection, "closed", False):
            note_change()  # what was sent may have been done
            pooled.invalidate(error)
        raise
    finally:
        pooled.close()


@contextmanager
def transaction() -> Iterator[DBAPICursor]:
    """A cursor in a transaction, committed at the end."""
    database = watch()
    database.require()
    with database.transactional.begin() as connection:
        yield connection.connection.cursor()
        note_change()  # COMMIT follows; without an answer to it nobody knows


def note_change() -> None:
    """From here on this request has changed something, or may have."""
    g.may_have_changed = True


def nothing_changed() -> bool:
    """Whether it is certain that this request has changed nothing."""
    return request.method in SAFE or not g.get("may_have_changed", False)


class Watch:
    """Whether the database answers (`up`), when it last did, and which schema it has."""

    def __init__(self, engine: Engine, opens: Callable[[], Any], lifetime: float):
        self.engine, self.opens, self.lifetime = engine, opens, lifetime
        self.transactional = engine.execution_options(isolation_level="READ COMMITTED")
        self.up = True  # until shown otherwise: the first request may try
        self.reason = "not asked yet"
        self.answered = False
        self.revision: str | None = None
        self._spares: deque[Any] = deque()  # one at most: for a connection at the end of its lifetime
        self._spare_wanted = False
        self._busy: dict[int, tuple[float, socket.socket]] = {}
        self._thread = threading.local()
        self._wake = threading.Event()
        self._beat = 0.0  # when the next heartbeat is due
        self._started = threading.Lock()
        self.threads: list[threading.Thread] = []  # those that must live as long as the process
        event.listen(engine, "connect", self._connected, insert=True)  # before SQLAlchemy's own first questions
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)
        event.listen(engine, "close", self._closed)

    @property
    def busy(self) -> int:
        """Connections in use."""
        return len(self._busy)

    @property
    def idle(self) -> int:
        """Connections waiting in the pool."""
        pool = self.engine.pool
        return pool.checkedin() if isinstance(pool, QueuePool) else 0

    def start(self) -> None:
        """Start the two threads, once in a process (after the fork, so by the worker)."""
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
        """Names of the threads that have ended, which none ever should."""
        return [thread.name for thread in self.threads if not thread.is_alive()]

    def require(self) -> None:
        """Refuse at once what could only wait."""
        if not self.up:
            raise UnavailableError

    def suspect(self, error: Exception) -> None:
        """A connection failed: refuse until the prober, woken here, has had an answer."""
        self._down(first_line(error))

    # --- connections -----------------------------------------------------------------------------------------------

    def connect(self) -> Any:
        """What the pool asks for a new connection: the spare that this thread has claimed, else one made now."""
        if spare := vars(self._thread).pop("spare", None):
            return spare
        # Whoever waited for a place in the pool meanwhile must not begin a wait of its own.
        if not vars(self._thread).get("probing"):
            self.require()
        return self.opens()

    def _connected(self, connection: Any, record: Any) -> None:
        # A descriptor of our own: shutting it down wakes the thread that waits on libpq's, with no race for its number.
        record.info["socket"] = socket.socket(fileno=dup(connection.fileno()))
        record.info["since"] = time.monotonic()
        self._busy[id(record)] = (record.info["since"], record.info["socket"])

    def _checked_out(self, connection: Any, record: Any, proxy: object) -> None:
        # Bytes waiting on an idle connection are the server's farewell; this costs no round trip as a ping would.
        if readable(record.info["socket"]):
            raise DisconnectionError("closed by the server")
        if record.info["since"] < time.monotonic() - self.lifetime:
            self._retire()
        self._busy[id(record)] = (time.monotonic(), record.info["socket"])

    def _retire(self) -> None:
        """Give up an old connection if a new one waits, else ask for that and use the old one.

        In a rotation the server may know the new password before this process does; what is open still works then.
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
        """The watchdog: cut what is held too long, having said first that the database is down; and the heartbeat."""
        time.sleep(TICK)
        now = time.monotonic()
        self.cut(now - DEADLINE)
        if now >= self._beat:
            self._beat = now + HEARTBEAT
            # An alarm may count these: none means that no process is left, not that nobody asks.
            logger.info("heartbeat", extra={"database_up": self.up, "schema": self.revision, "busy": self.busy})

    def cut(self, before: float) -> None:
        """End connections checked out before this moment of the monotonic clock."""
        for key, (since, sock) in list(self._busy.items()):
            if since < before:
                self._busy.pop(key, None)
                self._down(f"no answer within {DEADLINE:g} s")
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:  # closed meanwhile: what we wanted
                    continue

    def _probe(self) -> None:
        self.probe()
        if self.up and serves(self.revision):
            self.fill()
            self.prepare_spare()
            self._wake.wait(min(PROBE_UP, self.lifetime))
        else:
            time.sleep(PROBE_DOWN)

    def fill(self) -> None:
        """Open what is not open of the pool, at the start and after a restart: a burst amid a rotation could not."""
        pool = self.engine.pool
        with ExitStack() as stack, suppress(psycopg2.Error, SQLAlchemyError, SettingsError):
            # Those in use are open, and waiting for them would make requests wait.
            while isinstance(pool, QueuePool) and (pool.checkedin() or pool.overflow() < 0):
                stack.enter_context(closing(pool.connect()))

    def prepare_spare(self) -> None:
        """Open a connection where one is to be replaced; where that fails, the old one serves on."""
        if not self._spare_wanted or self._spares:
            return
        try:
            self._spares.append(self.opens())
            self._spare_wanted = False
        except (psycopg2.Error, SettingsError) as error:
            logger.warning("connections are kept beyond their lifetime", extra={"reason": first_line(error)})

    def probe(self) -> None:
        """Ask for the schema's revision: an answer of any kind means that the database is there."""
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
                return  # every connection is in use, and the watchdog sees to those
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
    """Repeat a background thread's step for as long as the process lives, whatever the step meets."""
    last = ""
    while True:
        try:
            step()
        except Exception as error:
            if repr(error) != last:  # once, not twice a second
                with suppress(Exception):
                    logger.exception("a background thread met an error and goes on", extra={"background": name})
            last = repr(error)
            time.sleep(PROBE_DOWN)
        else:
            last = ""


def first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]


def readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
