"""What all measurements use: a filled database, the servers to compare, and the load on them."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

import psycopg2

from flaskapp_deploy.shell import free_port
from flaskapp_deploy.up.postgres import PROGRAMS, Postgres

TICKS = os.sysconf("SC_CLK_TCK")
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


@contextmanager
def postgres() -> Iterator[tuple[Postgres, Path]]:
    """Run a PostgreSQL that waits for its disk as in production; yield it and its directory, removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        directory.chmod(0o755)
        server = Postgres(directory, "password", durable=True)
        server.start()
        try:
            yield server, directory
        finally:
            server.stop()


def prepared(server: Postgres, name: str, rows: int, gap: str) -> dict[str, str]:
    """Create a database of `rows` deployments, `gap` apart; return the environment that reaches it."""
    execute(server, "postgres", f"CREATE DATABASE {name}")
    environment = os.environ | {
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(server.port),
        "DB_NAME": name,
        "DB_USERNAME": "postgres",
        "DB_PASSWORD": server.password,
        "API_ADMIN_TOKEN": TOKEN,
        "METRICS_PORT": str(free_port()),
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'deploy'}:{ROOT}",
    }
    flaskapp(environment, "db", "upgrade")
    execute(server, name, FILL.format(rows=rows, gap=gap))
    execute(server, name, "VACUUM ANALYZE")
    return environment


def connect(server: Postgres, name: str) -> Any:
    """Connect to a database as the superuser."""
    return psycopg2.connect(host="127.0.0.1", port=server.port, dbname=name, user="postgres", password=server.password)


def execute(server: Postgres, name: str, statement: str) -> None:
    """Execute a statement in a database, outside of a transaction."""
    connection = connect(server, name)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def flaskapp(environment: dict[str, str], *arguments: str) -> None:
    """Run the service's command line."""
    run = [sys.executable, "-m", "flaskapp", *arguments]
    subprocess.run(run, check=True, env=environment, stdout=-3, stderr=-3)


def psql(environment: dict[str, str], command: str) -> None:
    """Run psql on the database of an environment."""
    names = {"HOST": "HOST", "PORT": "PORT", "DATABASE": "NAME", "USER": "USERNAME", "PASSWORD": "PASSWORD"}
    to_libpq = {f"PG{name}": environment[f"DB_{variable}"] for name, variable in names.items()}
    run = [str(PROGRAMS / "psql"), "--no-psqlrc", "--quiet", "--command", command]
    subprocess.run(run, check=True, env=os.environ | to_libpq)


class Side:
    """gunicorn with the service or a baseline, which answers on `port` once this exists."""

    def __init__(self, stack: ExitStack, environment: dict[str, str], application: str = ""):
        self.port = free_port()
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}"]
        if application:
            command += ["--config", "python:benchmarks.service.server", application]
        environment = environment | {"METRICS_PORT": str(free_port())}
        self.process = subprocess.Popen(command, cwd=ROOT / "src", env=environment, stdout=-3, stderr=-3)
        stack.callback(self.process.wait)
        stack.callback(self.process.terminate)
        end = time.monotonic() + 20
        path = "/api/v1/deployments" if application else "/readyz"
        while time.monotonic() < end:
            try:
                fetch(self.port, path)
                return
            except OSError:
                time.sleep(0.01)
        raise SystemExit(f"{command} did not answer within 20 s")

    def processor(self) -> float:
        """Return the seconds of CPU that its workers have taken so far."""
        pid = self.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        fields = [Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split() for worker in workers]
        return sum(int(user) + int(system) for user, system in (f[11:13] for f in fields)) / TICKS


def fetch(port: int, path: str) -> bytes:
    """Return the content of a path."""
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        content: bytes = answer.read()
        return content


def get(path: str) -> bytes:
    """Return the bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post() -> bytes:
    """Return the bytes of a POST that records a deployment."""
    head = (
        "POST /api/v1/deployments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


def load(
    port: int, request: bytes, seconds: float = 3600, rate: float = 0, clients: int = 8, count: int = 0
) -> dict[str, float]:
    """Send the request for `seconds`, or `count` times; return the figures of benchmarks.service.load."""
    numbers = [str(number) for number in (port, clients, seconds, rate, count)]
    command = [sys.executable, "-m", "benchmarks.service.load", *numbers]
    output = subprocess.run(command, input=request, capture_output=True, check=True, cwd=ROOT).stdout
    result: dict[str, float] = json.loads(output)
    if result["bad"]:
        raise SystemExit(f"{result['bad']} answers were no 2xx, the first: {result['first']}")
    return result


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that the work took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def spread(values: list[float], digits: int = 0) -> str:
    """Return `median (lowest-highest)`."""
    digits = digits or (0 if median(values) > 20 else 1)
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
