"""A database that is down, refuses, or never answers: bounded waits, and recovery without a restart."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from tests.postgres import Database
from tests.service.conftest import ADMIN, Server
from tests.service.proxy import Proxy

LIMIT = 3.0  # seconds in which every request is answered
PATHS = ["/api/v1/deployments"] * 10 + ["/livez"] * 2


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    proxy = Proxy(database.server.port)
    yield proxy
    proxy.close()


def all_at_once(server: Server, paths: list[str]) -> list[tuple[str, requests.Response]]:
    """More requests than threads, each answered within the limit."""

    def ask(path: str) -> tuple[str, requests.Response]:
        started = time.monotonic()
        answer = server.get(path)
        assert time.monotonic() - started < LIMIT, path
        return path, answer

    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(ask, paths))


def assert_refused(answers: list[tuple[str, requests.Response]]) -> None:
    for path, answer in answers:
        if path == "/livez":
            assert answer.status_code == 200
            continue
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json"), answer.text
        assert int(answer.headers["Retry-After"]) > 0


def test_black_hole_under_load(serve: Callable[..., Server], own_database: Database, proxy: Proxy) -> None:
    """Every thread is in a statement when the network fails; all are freed in time, and serve again afterwards."""
    server = serve({**own_database.environment, "DB_PORT": str(proxy.port)})
    server.wait()
    assert [a.status_code for _, a in all_at_once(server, PATHS)] == [200] * len(PATHS)
    proxy.freeze()
    for _ in range(2):
        assert_refused(all_at_once(server, PATHS))
    assert server.get("/readyz").status_code == 200
    assert server.get("/readyz?verbose").json()["database"]["up"] is False
    proxy.thaw()
    server.wait("/api/v1/deployments", seconds=6)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("away", ["refused", "silent"])
def test_starts_without_a_database(serve: Callable[..., Server], database: Database, proxy: Proxy, away: str) -> None:
    proxy.freeze()
    port = 1 if away == "refused" else proxy.port
    server = serve({**database.environment, "DB_PORT": str(port)})
    server.wait("/livez")
    assert_refused(all_at_once(server, PATHS))
    assert server.get("/readyz").status_code == 503
    if away == "silent":
        proxy.thaw()
        server.wait("/readyz", seconds=6)
        server.wait("/api/v1/deployments", seconds=1)


def test_connections_closed_while_idle_fail_no_request(serve: Callable[..., Server], own_database: Database) -> None:
    """A failover or a restart closes idle connections; that is noticed before one is used."""
    server = serve(own_database.environment)
    server.wait()
    all_at_once(server, PATHS)
    ended = own_database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert ended
    time.sleep(0.2)
    assert [a.status_code for _, a in all_at_once(server, PATHS)] == [200] * len(PATHS)


def test_pool_is_one_connection_a_thread(serve: Callable[..., Server], own_database: Database) -> None:
    server = serve({**own_database.environment, "WEB_THREADS": "3"})
    server.wait()
    all_at_once(server, PATHS * 3)
    ((connections,),) = own_database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'flaskapp'"
    )
    assert 1 <= connections <= 3


def test_slow_lock_is_a_quick_503(serve: Callable[..., Server], own_database: Database) -> None:
    """Another session holds a lock: the statement times out, and the database still counts as up."""
    server = serve(own_database.environment)
    server.wait()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(own_database.execute, "BEGIN; LOCK TABLE services; SELECT pg_sleep(2.5); COMMIT")
        time.sleep(0.3)
        assert_refused(all_at_once(server, PATHS[:3]))
        assert server.get("/readyz?verbose").json()["database"]["up"] is True
        held.result()
    server.wait("/api/v1/deployments", seconds=1)


HEADERS = {"Authorization": f"Bearer {ADMIN}"}
BODY = {"service": "shop", "environment": "prod", "version": "1"}
BACKENDS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'flaskapp'"
COUNT = "SELECT count(*) FROM deployments"


def post(server: Server, **headers: str) -> requests.Response:
    path = server.url + "/api/v1/deployments"
    return requests.post(path, json=BODY, headers={**HEADERS, **headers}, timeout=10)


@pytest.fixture
def writable(serve: Callable[..., Server], own_database: Database) -> Server:
    """Serve on one connection with its statement prepared: a frozen server then receives the whole next one."""
    server = serve({**own_database.environment, "API_ADMIN_TOKEN": ADMIN, "WEB_THREADS": "1"})
    server.wait()
    assert post(server).status_code == 201
    return server


@contextmanager
def locked(database: Database, statement: str) -> Iterator[None]:
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(database.execute, f"BEGIN; {statement}; SELECT pg_sleep(4); COMMIT")
        time.sleep(1)
        yield
        held.result()


def test_a_frozen_database_leaves_the_outcome_unknown(writable: Server, own_database: Database) -> None:
    """The statement was sent: once the server runs again it records the row."""
    pids = [pid for (pid,) in own_database.execute(f"SELECT pid {BACKENDS}")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        sent = post(writable)
        refused = post(writable)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert sent.status_code == 503
    assert "unknown" in sent.json()["detail"]
    assert "nothing was changed" not in sent.json()["detail"]
    assert "nothing was changed" in refused.json()["detail"]  # it was never sent
    end = time.monotonic() + 10
    while own_database.execute(COUNT) != [(2,)]:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_commit_without_an_answer_leaves_the_outcome_unknown(writable: Server, own_database: Database) -> None:
    own_database.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.2); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON deployments DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(post, writable, **{"Idempotency-Key": "one"})
        end = time.monotonic() + 5
        while not own_database.execute(
            f"SELECT pg_terminate_backend(pid) {BACKENDS} AND query = 'COMMIT' AND state = 'active'"
        ):
            assert time.monotonic() < end
        answer = sent.result()
    assert answer.status_code == 503
    assert "unknown" in answer.json()["detail"]


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "one"}], ids=["alone", "transaction"])
def test_what_the_server_refused_has_changed_nothing(
    writable: Server, own_database: Database, key: dict[str, str]
) -> None:
    with locked(own_database, "LOCK TABLE deployments"):
        answer = post(writable, **key)
    assert answer.status_code == 503
    assert "nothing was changed" in answer.json()["detail"]
    assert own_database.execute(COUNT) == [(1,)]


def test_a_session_that_ends_before_its_commit_has_changed_nothing(writable: Server, own_database: Database) -> None:
    with locked(own_database, "LOCK TABLE idempotency_keys"), ThreadPoolExecutor(1) as pool:
        sent = pool.submit(post, writable, **{"Idempotency-Key": "one"})
        end = time.monotonic() + 5
        while not own_database.execute(f"SELECT pg_terminate_backend(pid) {BACKENDS} AND wait_event_type = 'Lock'"):
            assert time.monotonic() < end
        answer = sent.result()
    assert answer.status_code == 503
    assert "nothing was changed" in answer.json()["detail"]
    assert own_database.execute(COUNT) == [(1,)]


def test_noting_a_tokens_use_fails_no_request(writable: Server, own_database: Database) -> None:
    """The row is recorded by then; another session holds the token's."""
    own_database.execute("INSERT INTO api_tokens (name, hash, scope) VALUES ('ci', sha256('secret'), 'write')")
    with locked(own_database, "SELECT FROM api_tokens FOR UPDATE"):
        answer = post(writable, Authorization="Bearer secret")
    assert answer.status_code == 201, answer.text
    assert own_database.execute(COUNT) == [(2,)]
    assert "use was not noted" in writable.log.read_text()
