"""A database that is away, refuses, or has turned into a black hole: bounded answers, and recovery by itself."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.postgres import Database
from tests.service.conftest import Server
from tests.service.proxy import Proxy

LIMIT = 3.0  # seconds in which every request is answered, come what may
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
    """Every thread is stuck in a statement when the network goes; all are freed in time, and serve again after."""
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
    """A failover or a restart ends idle connections; that is seen before one is used."""
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
    """Another session's lock: the statement gives up by itself, and the database counts as up."""
    server = serve(own_database.environment)
    server.wait()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(own_database.execute, "BEGIN; LOCK TABLE services; SELECT pg_sleep(2.5); COMMIT")
        time.sleep(0.3)
        assert_refused(all_at_once(server, PATHS[:3]))
        assert server.get("/readyz?verbose").json()["database"]["up"] is True
        held.result()
    server.wait("/api/v1/deployments", seconds=1)
