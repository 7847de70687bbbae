"""The two background threads: no exception ends them, and /livez fails if one has ended anyway."""

import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from flask import Flask

from flaskapp import create_app
from flaskapp.database import Watch
from flaskapp.settings import Settings
from tests.postgres import Database

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # how a test ends them


@pytest.fixture
def app(database: Database) -> Iterator[Flask]:
    app = create_app(Settings.from_environment(database.environment))
    yield app
    watch: Watch = app.extensions["watch"]
    end_threads(watch)
    watch.engine.dispose()


def wait_for(condition: Callable[[], Any], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def end_thread(watch: Watch, name: str) -> None:
    """Raise SystemExit in one of them, which ends it."""
    for thread in watch.threads:
        if thread.name == name and thread.ident:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def end_threads(watch: Watch) -> None:
    for thread in watch.threads:
        end_thread(watch, thread.name)
    watch._wake.set()
    for thread in watch.threads:
        thread.join(15)


ERRORS = [ValueError("x"), OSError(28, "full"), MemoryError(), KeyError(1), psycopg2.ProgrammingError("x")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_prober_survives_what_opening_a_connection_raises(app: Flask, error: Exception) -> None:
    watch: Watch = app.extensions["watch"]
    opens, calls = watch.opens, []

    def fails() -> Any:
        calls.append(1)
        raise error

    watch.opens = fails
    watch.start()
    wait_for(lambda: len(calls) >= 2)
    watch.opens = opens
    wait_for(lambda: watch.answered)
    assert app.test_client().get("/livez").status_code == 200
    assert app.test_client().get("/api/v1/services").status_code == 200


def test_the_watchdog_survives_what_a_look_raises(app: Flask) -> None:
    """One socket is broken; the next connection that is held too long is still cut."""
    watch: Watch = app.extensions["watch"]
    watch._busy[1] = (0.0, None)  # type: ignore[assignment]
    watch._busy[2] = (0.0, None)  # type: ignore[assignment]
    watch.start()
    wait_for(lambda: not watch._busy)
    assert watch.ended() == []


@pytest.mark.parametrize("name", ["watchdog", "prober"])
def test_a_dead_thread_turns_livez_red(app: Flask, name: str) -> None:
    client, watch = app.test_client(), app.extensions["watch"]
    assert client.get("/livez").json == {"status": "ok"}
    wait_for(lambda: watch.answered)
    end_thread(watch, name)
    watch._wake.set()
    wait_for(watch.ended)
    answer = client.get("/livez")
    assert answer.status_code == 503
    assert answer.json == {"status": "failed", "reason": f"background threads have ended: {name}"}
