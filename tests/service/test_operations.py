"""gunicorn as in production: logs, metrics, draining, faults, rotation, malformed requests, sudden death."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from flaskapp_deploy.shell import free_port
from tests.postgres import Database
from tests.service.conftest import ADMIN, Server

HEADERS = {"Authorization": f"Bearer {ADMIN}"}
BODY = {"service": "shop", "environment": "prod", "version": "1"}


def lines(server: Server, **fields: object) -> list[dict[str, Any]]:
    """The log's lines that have these fields; every line must be JSON."""
    parsed = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [line for line in parsed if fields.items() <= line.items()]


def test_one_json_line_a_request_and_none_for_probes(serve: Callable[..., Server], database: Database) -> None:
    server = serve(database.environment)
    server.wait()
    for path in ("/livez", "/readyz", "/version"):
        assert server.get(path).status_code == 200
    headers = {"X-Request-ID": "my-id.1", "User-Agent": 'a"b\\'}
    answer = requests.get(server.url + "/api/v1/services?x=%22%0a", headers=headers, timeout=5)
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (422, "my-id.1")
    invented = requests.get(server.url + "/x", headers={"X-Request-ID": 'bad"id'}, timeout=5)
    assert len(invented.headers["X-Request-ID"]) == 32
    first, second = lines(server, logger="flaskapp.request")
    # The list that docs/service.md promises.
    assert list(first) == [
        "time",
        "level",
        "logger",
        "message",
        "request_id",
        "method",
        "path",
        "route",
        "status",
        "duration_ms",
        "bytes",
        "client",
        "user_agent",
    ]
    assert (first["request_id"], first["status"], first["route"]) == ("my-id.1", 422, "/api/v1/services")
    assert first["user_agent"] == 'a"b\\'
    assert (second["path"], second["route"]) == ("/x", None)
    time.sleep(0.5)
    assert lines(server, message="heartbeat")[0]["database_up"] in (True, False)


def test_metrics_by_route_on_their_own_port(serve: Callable[..., Server], own_database: Database) -> None:
    port = free_port()
    server = serve({**own_database.environment, "API_ADMIN_TOKEN": ADMIN, "METRICS_PORT": str(port)})
    server.wait()
    made = requests.post(server.url + "/api/v1/deployments", json=BODY, headers=HEADERS, timeout=5).json()
    for path in (f"/api/v1/deployments/{made['id']}", "/etc/passwd", "/wp-admin"):
        server.get(path)
    requests.request("SMUGGLE", server.url + "/x", timeout=5)
    assert server.get("/metrics").status_code == 404
    metrics = f"http://127.0.0.1:{port}/metrics"
    end = time.monotonic() + 5
    while 'flaskapp_database_connections{state="idle"} 4.0' not in requests.get(metrics, timeout=5).text:
        assert time.monotonic() < end
    body = requests.get(metrics, timeout=5).text
    assert 'http_requests_total{method="GET",route="/api/v1/deployments/<id>",status="200"} 1.0' in body
    assert 'http_requests_total{method="GET",route="none",status="404"} 3.0' in body
    assert 'method="other"' in body
    assert made["id"] not in body
    assert "livez" not in body
    assert "flaskapp_database_up 1.0" in body
    assert "flaskapp_schema_served 1.0" in body


def test_a_taken_metrics_port_costs_the_metrics_only(serve: Callable[..., Server], database: Database) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 - where the metrics would listen
        server = serve({**database.environment, "METRICS_PORT": str(taken.getsockname()[1])})
        server.wait()
        (warning,) = lines(server, message="no metrics of this worker")
    assert "in use" in warning["reason"]


def test_sigterm_finishes_what_is_in_flight(serve: Callable[..., Server], own_database: Database) -> None:
    server = serve({**own_database.environment, "APP_MODE": "development", "FAULT_DELAY": "1.5"})
    server.wait()
    with ThreadPoolExecutor(4) as pool, requests.Session() as kept:
        assert kept.get(server.url + "/readyz", timeout=5).status_code == 200
        slow = [pool.submit(server.get, "/api/v1/services") for _ in range(3)]
        time.sleep(0.5)
        server.process.terminate()
        assert [future.result().status_code for future in slow] == [200] * 3
    assert server.process.wait(10) == 0


@pytest.mark.parametrize(("fault", "value"), [("FAULT_DELAY", "1"), ("FAULT_ERROR_RATE", "1"), ("FAULT_UNREADY", "1")])
def test_production_refuses_faults(serve: Callable[..., Server], database: Database, fault: str, value: str) -> None:
    server = serve({**database.environment, fault: value})
    assert server.process.wait(20) == 1
    assert server.log.read_text() == (
        "flaskapp: APP_MODE: faults (FAULT_…) are refused in production; set it to development\n"
    )


def test_faults(serve: Callable[..., Server], database: Database) -> None:
    faults = {"APP_MODE": "development", "FAULT_ERROR_RATE": "1", "FAULT_UNREADY": "true"}
    server = serve({**database.environment, **faults})
    server.wait("/livez")
    time.sleep(1)
    assert server.get("/readyz").status_code == 503
    assert server.get("/api/v1/services").status_code == 500


def test_forwarded_headers_count_from_here(serve: Callable[..., Server], database: Database) -> None:
    server = serve({**database.environment, "PROXY_HOPS": "1", "TRUSTED_HOSTS": "ledger.example"})
    server.wait()
    forged = {"X-Forwarded-For": "6.6.6.6, 10.0.0.9", "X-Forwarded-Host": "ledger.example"}
    assert requests.get(server.url + "/api/v1/services", headers=forged, timeout=5).status_code == 200
    assert requests.get(server.url + "/api/v1/services", timeout=5).status_code == 400
    assert [line["client"] for line in lines(server, logger="flaskapp.request")] == ["10.0.0.9", "127.0.0.1"]


@dataclass
class Role:
    """A database role of the service's own, whose password comes from a file."""

    database: Database
    file: Path
    name: str = "app role '\""

    @property
    def quoted(self) -> str:
        return '"' + self.name.replace('"', '""') + '"'

    @property
    def environment(self) -> dict[str, str]:
        own = {"DB_USERNAME": self.name, "DB_PASSWORD": "", "DB_PASSWORD_FILE": str(self.file)}
        return {**self.database.environment, **own}

    def await_sessions(self, others: set[int]) -> set[int]:
        """Wait for a full pool that has none of these connections, and return its own."""
        end = time.monotonic() + 8
        while len(now := self.sessions()) < 4 or now & others:
            assert time.monotonic() < end, f"{len(now)} sessions, {len(now & others)} of before"
            time.sleep(0.1)
        return now

    def end_sessions(self) -> None:
        self.database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", self.name)

    def sessions(self) -> set[int]:
        rows = self.database.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s", self.name)
        return {pid for (pid,) in rows}


@pytest.fixture
def role(own_database: Database, tmp_path: Path) -> Iterator[Role]:
    made = Role(own_database, tmp_path / "password")
    own_database.execute(f"CREATE ROLE {made.quoted} LOGIN PASSWORD 'first'")
    own_database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {made.quoted}")
    made.file.write_text("first")
    yield made
    own_database.execute(f"DROP OWNED BY {made.quoted}; DROP ROLE {made.quoted}")


@contextmanager
def load(server: Server) -> Iterator[list[tuple[float, int]]]:
    """Run four clients without a pause; yield the time and the status of each answer."""
    answers: list[tuple[float, int]] = []
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.is_set():
            status = server.get("/api/v1/services").status_code
            answers.append((time.monotonic(), status))

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask) for _ in range(4)]
        try:
            yield answers
        finally:
            stopping.set()
    for future in futures:
        future.result()


def test_a_rotated_password_fails_no_request(serve: Callable[..., Server], role: Role) -> None:
    """The server has the new password first: open connections stay in use until new ones are possible."""
    server = serve({**role.environment, "DB_CONNECTION_LIFETIME": "1"})
    server.wait()
    with load(server) as answers:
        time.sleep(0.5)
        for password in ("second:/@%", "thi'rd é"):
            role.database.execute(f"ALTER ROLE {role.quoted} PASSWORD %s", password)
            before = role.sessions()
            time.sleep(1.5)
            assert before <= role.sessions()
            role.file.write_text(password + "\n")
            time.sleep(2.5)
            assert before - role.sessions()
    assert {status for _, status in answers} == {200}
    assert len(answers) > 50
    kept = lines(server, message="connections are kept beyond their lifetime")
    assert len(kept) >= 2
    assert all("authentication failed" in line["reason"] for line in kept)


def test_a_restart_before_a_rotation_leaves_no_gap_in_the_pool(serve: Callable[..., Server], role: Role) -> None:
    """All sessions end while the service is idle; a later burst is served though no new connection is possible."""
    server = serve({**role.environment, "DB_CONNECTION_LIFETIME": "2"})
    server.wait()
    before = role.await_sessions(set())
    role.end_sessions()
    role.await_sessions(before)
    role.file.write_text("second")
    with load(server) as answers:
        time.sleep(3)
    assert {status for _, status in answers} == {200}


def test_sessions_killed_amid_a_rotation_cost_a_moment(serve: Callable[..., Server], role: Role) -> None:
    """Refusals have Retry-After, and end within a second of the kill."""
    server = serve(role.environment)
    server.wait()
    kills = []
    with load(server) as answers:
        time.sleep(0.5)
        for password in ("second", "third"):
            role.database.execute(f"ALTER ROLE {role.quoted} PASSWORD %s", password)
            role.file.write_text(password)
            role.end_sessions()
            kills.append(time.monotonic())
            time.sleep(1.5)
    refused = [(moment, status) for moment, status in answers if status != 200]
    assert {status for _, status in refused} <= {503}
    assert all(any(moment - kill < 1 for kill in kills if kill < moment + 0.1) for moment, _ in refused)
    assert len(answers) > 50


@pytest.mark.parametrize("junk", [None, b"", b"abc\0", b"x"], ids=["missing", "empty", "NUL", "short"])
def test_files_that_go_wrong_cost_no_request(
    serve: Callable[..., Server], own_database: Database, tmp_path: Path, junk: bytes | None
) -> None:
    """The last good values open new connections; nothing makes `x` an administrator's token."""
    values = {**own_database.environment, "API_ADMIN_TOKEN": ADMIN}
    files = {name: tmp_path / name for name in values}
    for name, value in values.items():
        files[name].write_text(value)
    server = serve({f"{name}_FILE": str(path) for name, path in files.items()})
    server.wait()
    # As a password, `x` would be wrong, but not malformed.
    names = ["DB_PORT", "API_ADMIN_TOKEN", *(["DB_PASSWORD"] if junk != b"x" else [])]
    for name in names:
        if junk is None:
            files[name].unlink()
        else:  # at once: a file that is read half-written would be one more complaint
            (tmp_path / "new").write_bytes(junk)
            (tmp_path / "new").replace(files[name])
    for _ in range(2):
        own_database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
        time.sleep(1)
        made = requests.post(server.url + "/api/v1/deployments", json=BODY, headers=HEADERS, timeout=5)
        assert made.status_code == 201, made.text
    wrong = requests.post(
        server.url + "/api/v1/deployments", json=BODY, headers={"Authorization": "Bearer x"}, timeout=5
    )
    assert wrong.status_code == 401
    assert server.get("/livez").status_code == 200
    complaints = lines(server, message="the last good value of a setting stays in use")
    assert len(complaints) == len(names)
    assert lines(server, message="database does not answer") == []


def test_a_log_that_cannot_be_written_costs_nothing(own_database: Database, tmp_path: Path) -> None:
    """Standard error is a full disk; the database ends every connection, which is logged."""
    server = Server(own_database.environment, Path("/dev/full"))
    try:
        end = time.monotonic() + 20
        while True:
            try:
                if server.get("/readyz").status_code == 200:
                    break
            except requests.ConnectionError:
                pass
            assert time.monotonic() < end
            time.sleep(0.1)
        for _ in range(3):
            assert server.get("/api/v1/services").status_code == 200
            own_database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
            time.sleep(0.5)
        assert server.get("/api/v1/services").status_code == 200
        assert server.get("/livez").status_code == 200
    finally:
        server.stop()


def test_a_slow_reader_holds_no_connection(serve: Callable[..., Server], own_database: Database) -> None:
    """The threads are still sending, so a third client waits; their connections are back in the pool."""
    own_database.execute("INSERT INTO services (name) SELECT 's' || n FROM generate_series(1, 1500) n")
    own_database.execute("INSERT INTO environments (name, position) VALUES ('prod', 1)")
    own_database.execute(
        "INSERT INTO deployments (id, service_id, environment_id, version, link, status, finished_at)"
        " SELECT gen_random_uuid(), s.id, e.id, '1', 'https://x/' || repeat('y', 1900), 'succeeded', now()"
        " FROM services s, environments e"
    )
    port = free_port()
    server = serve({**own_database.environment, "WEB_THREADS": "2", "METRICS_PORT": str(port)})
    server.wait()
    readers = [socket.socket() for _ in range(2)]
    for reader in readers:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little is in flight
        reader.connect(("127.0.0.1", server.port))
        reader.sendall(b"GET /api/v1/overview HTTP/1.1\r\nHost: x\r\n\r\n")
    for reader in readers:
        assert reader.recv(100).startswith(b"HTTP/1.1 200 OK")
    with pytest.raises(requests.ReadTimeout):
        server.get("/api/v1/services", timeout=0.5)
    for _ in range(3):
        body = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        assert 'flaskapp_database_connections{state="busy"} 0.0' in body
        time.sleep(0.1)
        assert all(reader.recv(1000) for reader in readers)
    states = (
        "SELECT DISTINCT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    deadline = time.monotonic() + 5
    while own_database.execute(states) != [("idle",)]:  # the prober may be asking just now
        assert time.monotonic() < deadline, own_database.execute(states)
        time.sleep(0.1)
    for reader in readers:
        reader.close()
    server.wait("/api/v1/services", seconds=5)


MALFORMED = {
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "8 KB header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
    "long line": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "NUL in header": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
}


@pytest.fixture(scope="module")
def shared(template: Database, new_database: Callable[..., Database], tmp_path_factory: pytest.TempPathFactory) -> Any:
    database = new_database(template.name)
    server = Server({**database.environment, "API_ADMIN_TOKEN": ADMIN}, tmp_path_factory.mktemp("shared") / "log")
    server.wait()
    yield server, database
    server.stop()


def exchange(server: Server, *parts: bytes, pause: float = 0.0) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        for part in parts:
            sock.sendall(part)
            time.sleep(pause)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http_is_4xx(shared: tuple[Server, Database], name: str) -> None:
    server, _ = shared
    answer = exchange(server, MALFORMED[name])
    assert answer.split(b" ")[1].startswith(b"4"), answer
    assert answer.count(b"HTTP/1.1 ") == 1  # no part of it was parsed as a second request
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: application/problem+json" in head
    problem = json.loads(body)
    assert problem["status"] == int(answer.split(b" ")[1])
    assert lines(server, message="malformed request", request_id=problem["request_id"])
    assert server.get("/livez").status_code == 200


@pytest.mark.parametrize("body", [b"5\r\nab", b"zz\r\n", b"ffffffffffffffffff\r\n", b"2\r\nabc\r\n0\r\n\r\n", b""])
def test_truncated_chunks_write_nothing(shared: tuple[Server, Database], body: bytes) -> None:
    server, database = shared
    head = (
        b"POST /api/v1/deployments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + ADMIN.encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = exchange(server, head, body)
    assert not answer or answer.split(b" ")[1].startswith(b"4"), answer
    assert database.execute("SELECT count(*) FROM deployments WHERE version = 'ab'") == [(0,)]
    assert server.get("/livez").status_code == 200


def test_slow_clients_hold_neither_thread_nor_connection_for_long(shared: tuple[Server, Database]) -> None:
    """More silent clients than threads: others are still answered."""
    server, _ = shared
    waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(8)]
    try:
        for sock in waiting:
            sock.sendall(b"GET /api/v1/services HT")
        started = time.monotonic()
        assert server.get("/api/v1/services").status_code == 200
        assert time.monotonic() - started < 8
        assert lines(server, level="ERROR") == []
    finally:
        for sock in waiting:
            sock.close()


POST = b"POST /api/v1/deployments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
DRIPS = {
    "request line": (b"GET /" + b"a" * 20, b"a"),
    "headers": (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ", b"a"),
    "body": (POST + b"Content-Length: 5000\r\n\r\n{", b" "),
    "body too long": (POST + b"Content-Length: 500000\r\n\r\n{", b" "),
    "body that is expected": (POST + b"Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n{", b" "),
    "chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n{", b" "),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "chunk's size": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunk's extension": (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
    "trailers": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a"),
    "body that nobody reads": (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", b" "),
}


def drip(port: int, head: bytes, part: bytes, ended: list[float], stop: threading.Event) -> None:
    """Send a part each half second until the server ends the connection; note how long that took."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(head)
        started = time.monotonic()
        while not stop.wait(0.5):
            try:
                sock.sendall(part)
            except OSError:
                ended.append(time.monotonic() - started)
                return


@pytest.mark.parametrize(
    ("where", "number"),
    [(where, 8) for where in DRIPS] + [(w, n) for w in ("headers", "body", "chunk") for n in (4, 20)],
)
def test_dripping_clients_keep_nobody_waiting(shared: tuple[Server, Database], where: str, number: int) -> None:
    """With as many slow clients as threads, and more, other requests are answered quickly after half a second."""
    server, _ = shared
    stop = threading.Event()
    with ThreadPoolExecutor(number) as pool:
        try:
            for _ in range(number):
                pool.submit(drip, server.port, *DRIPS[where], [], stop)
            time.sleep(0.5)
            for path in ("/livez", "/api/v1/services") * 5:
                assert server.get(path, timeout=2).status_code == 200
        finally:
            stop.set()


def test_dripping_clients_are_cut(shared: tuple[Server, Database]) -> None:
    server, _ = shared
    ended: list[float] = []
    stop = threading.Event()
    with ThreadPoolExecutor(len(DRIPS)) as pool:
        for head, part in DRIPS.values():
            pool.submit(drip, server.port, head, part, ended, stop)
        stop.wait(25)
        stop.set()
    assert len(ended) == len(DRIPS)
    assert lines(server, message="malformed request", status=408)
    assert server.get("/livez").status_code == 200


def test_a_request_in_pieces_is_answered(shared: tuple[Server, Database]) -> None:
    """A request arrives with pauses between its parts, and another one right behind it on the same connection."""
    server, _ = shared
    body = json.dumps(BODY).encode()
    head = POST + b"Authorization: Bearer " + ADMIN.encode() + b"\r\n"
    chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\nX: y\r\n\r\n"
    next_one = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for request in (
        head + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
    ):
        size = len(request) // 7
        pieces = [request[start : start + size] for start in range(0, len(request), size)]
        pieces[-1] += next_one[:20]
        answer = exchange(server, *pieces, next_one[20:], pause=0.1)
        assert answer.startswith(b"HTTP/1.1 201 "), answer
        assert answer.count(b"HTTP/1.1 200 OK") == 1
        assert answer.endswith(b'{"status": "ok"}\n')


def test_a_body_is_sent_when_the_server_says_so(shared: tuple[Server, Database]) -> None:
    server, _ = shared
    body = json.dumps(BODY).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(
            POST
            + b"Authorization: Bearer %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            % (ADMIN.encode(), len(body))
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert b"HTTP/1.1 201 " in sock.recv(1000) + sock.recv(1000)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (POST + b"Content-Length: 70000\r\n\r\n" + b" " * 70000, 413),
        (b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 20000, 431),
        (b"GET /" + b"a" * 100000, 414),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"a" * 4000 + b"\r\n \r\n") * 200, 413),
        (b"GET /livez HTTP/1.1\nHost: x\n", 400),
    ],
    ids=["body", "headers", "request line", "chunks", "bare LF"],
)
def test_what_is_too_large_is_refused_at_once(shared: tuple[Server, Database], request_: bytes, status: int) -> None:
    server, _ = shared
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        with suppress(OSError):  # refused before all of it was sent
            sock.sendall(request_)
        assert sock.recv(1000).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("number", [10, 700])
def test_silent_connections_keep_nobody_waiting(shared: tuple[Server, Database], number: int) -> None:
    """More than there are threads, and more than a worker accepts: pools and browsers connect in advance."""
    server, _ = shared
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    silent = [socket.create_connection(address) for _ in range(number)]
    try:
        for _ in range(20):
            assert requests.get(f"{server.url}/livez", timeout=1, headers={"Connection": "close"}).status_code == 200
        silent[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")  # the newest is still open
        silent[-1].settimeout(2)
        assert silent[-1].recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for one in silent:
            one.close()


@pytest.mark.parametrize("number", [62, 100])
def test_kept_connections_keep_nobody_waiting(shared: tuple[Server, Database], number: int) -> None:
    """As many as a worker handles, and more: a load balancer keeps as many as it once needed."""
    server, _ = shared
    with ExitStack() as stack:
        for _ in range(number):
            session = stack.enter_context(requests.Session())
            assert session.get(f"{server.url}/api/v1/services", timeout=1).status_code == 200
        first, second = (stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(2))
        time.sleep(0.2)
        for one in (first, second):  # neither has displaced the other
            one.settimeout(2)
            one.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert one.recv(100).startswith(b"HTTP/1.1 200")


def test_who_does_not_hang_up_keeps_nobody_waiting(shared: tuple[Server, Database]) -> None:
    server, _ = shared
    with ExitStack() as stack:
        for _ in range(5):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=2))
            one.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert one.recv(100).startswith(b"HTTP/1.1 200")


def test_acknowledged_rows_survive_kill_9(serve: Callable[..., Server], own_database: Database) -> None:
    server = serve({**own_database.environment, "API_ADMIN_TOKEN": ADMIN})
    server.wait()
    acknowledged: list[str] = []

    def write() -> None:
        while True:
            try:
                answer = requests.post(server.url + "/api/v1/deployments", json=BODY, headers=HEADERS, timeout=5)
            except requests.RequestException:
                return
            if answer.status_code == 201:
                acknowledged.append(answer.json()["id"])

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(write)
        time.sleep(1.5)
        children = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True).stdout
        for pid in [server.process.pid, *map(int, children.split())]:
            os.kill(pid, signal.SIGKILL)
    assert len(acknowledged) > 20
    kept = {identifier for (identifier,) in own_database.execute("SELECT id::text FROM deployments")}
    assert set(acknowledged) <= kept
