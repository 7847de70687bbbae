"""The service against raw WSGI and against the ORM, the sides alternating in one run; medians and spread.

Every side is gunicorn with one worker and four threads, and eight clients that keep their connection. The service runs
as in production: log, metrics, request id, headers, checks, and the token for what is written.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

import psycopg2

from pipeline.postgres import PROGRAMS, Postgres, free_port

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "benchmark-token-of-enough-letters"  # noqa: S105 - of a server that lives for this run
BODY = b'{"service": "service-1", "environment": "environment-1", "version": "1.0.0"}'
FILL = """
    INSERT INTO services (name) SELECT 'service-' || n FROM generate_series(1, 10) n;
    INSERT INTO environments (name, position) SELECT 'environment-' || n, n FROM generate_series(1, 3) n;
    INSERT INTO deployments (id, service_id, environment_id, version, commit, committed_at, status, actor, started_at,
                             finished_at)
    SELECT gen_random_uuid(), 1 + n % 10, 1 + n % 3, '1.' || n, lpad(to_hex(n), 12, '0'), t - interval '1 hour',
           CASE WHEN n % 12 = 0 THEN 'failed' ELSE 'succeeded' END, 'pipeline', t, t + interval '2 minutes'
    FROM (SELECT n, now() - n * {gap} AS t FROM generate_series(1, {rows}) n) numbered

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large table")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o755)
        server = Postgres(directory, "password", durable=True)
        server.start()
        stack.callback(server.stop)
        environment = prepared(server, "small", 10_000, "interval '5 minutes'")
        speeds(stack, environment, options)
        growth(stack, server, environment, options)
        imports(server, directory)
        start(environment)


def prepared(server: Postgres, name: str, rows: int, gap: str) -> dict[str, str]:
    """A database of so many deployments; the environment that reaches it."""
    execute(server, "postgres", f"CREATE DATABASE {name}")
    environment = os.environ | {
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(server.port),
        "DB_NAME": name,
        "DB_USERNAME": "postgres",
        "DB_PASSWORD": server.password,
        "API_ADMIN_TOKEN": TOKEN,
        "METRICS_PORT": str(free_port()),
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
    }
    flaskapp(environment, "db", "upgrade")
    execute(server, name, FILL.format(rows=rows, gap=gap))
    execute(server, name, "VACUUM ANALYZE")
    return environment


def execute(server: Postgres, name: str, statement: str) -> Any:
    connection = psycopg2.connect(
        host="127.0.0.1", port=server.port, dbname=name, user="postgres", password=server.password
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else None
    connection.close()
    return rows


def speeds(stack: ExitStack, environment: dict[str, str], options: argparse.Namespace) -> None:
    ports = {
        "flaskapp": gunicorn(stack, environment),
        "raw": gunicorn(stack, environment, "benchmarks.service.raw:app"),
        "orm": gunicorn(stack, environment, "benchmarks.service.orm:app"),
    }
    newest = json.loads(fetch(ports["flaskapp"], "/api/v1/deployments"))["items"][0]["id"]
    same_bytes(ports, f"/api/v1/deployments/{newest}")
    cases = {
        "GET one": (get(f"/api/v1/deployments/{newest}"), ("flaskapp", "raw", "orm")),
        "GET twenty": (get("/api/v1/deployments"), ("flaskapp", "raw", "orm")),
        "POST": (post(), ("flaskapp", "raw")),
    }
    print(f"{'requests a second':<20}{'flaskapp':>18}{'raw':>18}{'orm':>18}{'of raw':>9}{'of orm':>9}")
    for name, (request, sides) in cases.items():
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for side in sides:  # warm
            load(ports[side], request, 1)
        for _ in range(options.rounds):
            for side in sides:
                rates[side].append(load(ports[side], request, options.seconds)["rate"])
        shown = "".join(f"{spread(rates[side]) if side in rates else '':>18}" for side in ports)
        mine = median(rates["flaskapp"])
        ratios = "".join(f"{mine / median(rates[side]):>9.2f}" for side in sides[1:])
        print(f"{name:<20}{shown}{ratios}", flush=True)
        if name == "GET one":
            half = median(rates["flaskapp"]) / 2
            waits = [load(ports["flaskapp"], request, options.seconds, half) for _ in range(options.rounds)]
            p50, p99 = (median(wait[p] for wait in waits) for p in ("p50", "p99"))
            print(f"  at half of that: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)


def growth(stack: ExitStack, server: Postgres, small: dict[str, str], options: argparse.Namespace) -> None:
    """The same number of deployments in range, in a small table and in a large one."""
    large = prepared(server, "large", options.rows, "interval '5 minutes'")
    ports = {"small": gunicorn(stack, small), "large": gunicorn(stack, large)}
    today = datetime.now(UTC).date()
    range_ = f"environment=environment-1&from={today.replace(day=1)}&to={today}"
    paths = {
        "DORA": f"/api/v1/dora?{range_}",
        "overview": "/api/v1/overview",
        "GET twenty": "/api/v1/deployments",
    }
    print(f"\n{'milliseconds':<20}{'10 thousand':>18}{f'{options.rows:,}':>18}{'ratio':>9}")
    for name, path in paths.items():
        times: dict[str, list[float]] = {side: [] for side in ports}
        for _ in range(options.rounds + 1):
            for side, port in ports.items():
                times[side].append(load(port, get(path), options.seconds / 2, clients=1)["p50"])
        small_ms, large_ms = (times[side][1:] for side in ("small", "large"))
        ratio = median(large_ms) / median(small_ms)
        print(f"{name:<20}{spread(small_ms):>18}{spread(large_ms):>18}{ratio:>9.2f}", flush=True)


def imports(server: Postgres, directory: Path) -> None:
    """`flaskapp import` against psql's COPY of the same rows into the same table with the same indexes."""
    rows = 100_000
    source = prepared(server, "source", rows, "interval '5 minutes'")
    lines, table = directory / "lines", directory / "table"
    flaskapp(source, "export", str(lines))
    psql(source, f"\\copy deployments to '{table}'")
    seconds: dict[str, list[float]] = {"import": [], "copy": []}
    for _ in range(3):
        execute(server, "source", "TRUNCATE deployments CASCADE")
        seconds["import"].append(timed(lambda: flaskapp(source, "import", str(lines))))
        execute(server, "source", "TRUNCATE deployments CASCADE")
        seconds["copy"].append(timed(lambda: psql(source, f"\\copy deployments from '{table}'")))
    ratio = median(seconds["copy"]) / median(seconds["import"])
    mine, theirs = spread(seconds["import"], 1), spread(seconds["copy"], 1)
    print(f"\n{rows:,} rows in seconds: import {mine}, COPY {theirs}, of COPY {ratio:.2f}")


def flaskapp(environment: dict[str, str], *arguments: str) -> None:
    run = [sys.executable, "-m", "flaskapp", *arguments]
    subprocess.run(run, check=True, env=environment, stdout=-3, stderr=-3)


def psql(environment: dict[str, str], command: str) -> None:
    names = {"HOST": "HOST", "PORT": "PORT", "DATABASE": "NAME", "USER": "USERNAME", "PASSWORD": "PASSWORD"}
    to_libpq = {f"PG{name}": environment[f"DB_{variable}"] for name, variable in names.items()}
    run = [str(PROGRAMS / "psql"), "--no-psqlrc", "--quiet", "--command", command]
    subprocess.run(run, check=True, env=os.environ | to_libpq)


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def start(environment: dict[str, str]) -> None:
    """From the process's start to /readyz, against the bare import of the libraries; and the memory of both."""
    bare_code = (
        "import flask, flask_openapi3, flask_sqlalchemy, gunicorn.app.wsgiapp, gunicorn.workers.gthread, "
        "prometheus_client, psycopg2, pydantic, sqlalchemy.dialects.postgresql.psycopg2, resource; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    bare, ready = [], []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", bare_code], check=True, env=environment, stdout=-3)
        bare.append(time.perf_counter() - began)
        with ExitStack() as stack:
            began = time.perf_counter()
            gunicorn(stack, environment)
            ready.append(time.perf_counter() - began)
    ratio = median(ready) / median(bare)
    print(f"\nseconds to /readyz {spread(ready, 2)}, bare import {spread(bare, 2)}, ratio {ratio:.2f}")


def gunicorn(stack: ExitStack, environment: dict[str, str], application: str = "") -> int:
    """Start a side; its port once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"]
    if application:
        command += ["--config", "python:benchmarks.service.server", application]
    environment = environment | {"METRICS_PORT": str(free_port())}
    process = subprocess.Popen(command, cwd=ROOT / "src", env=environment, stdout=-3, stderr=-3)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    end = time.monotonic() + 20
    path = "/api/v1/deployments" if application else "/readyz"
    while time.monotonic() < end:
        try:
            fetch(port, path)
            return port
        except OSError:
            time.sleep(0.01)
    raise SystemExit(f"{command} did not answer within 20 s")


def fetch(port: int, path: str) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        content: bytes = answer.read()
        return content


def same_bytes(ports: dict[str, int], path: str) -> None:
    if fetch(ports["flaskapp"], path) != fetch(ports["raw"], path):
        raise SystemExit("the baseline gives other bytes than the service; it would measure something else")


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post() -> bytes:
    head = (
        "POST /api/v1/deployments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


def load(port: int, request: bytes, seconds: float, rate: float = 0, clients: int = 8) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.service.load", str(port), str(clients), str(seconds), str(rate)]
    output = subprocess.run(command, input=request, capture_output=True, check=True, cwd=ROOT).stdout
    result: dict[str, float] = json.loads(output)
    if result["bad"]:
        raise SystemExit(f"{result['bad']} answers were no 2xx, the first: {result['first']}")
    return result


def spread(values: list[float], digits: int = 0) -> str:
    """`median (lowest-highest)`."""
    digits = digits or (0 if median(values) > 20 else 1)
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    main()
