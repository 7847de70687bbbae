"""The working set of a worker: its proportional share of memory (PSS), as the kernel counts it."""

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.service.setup import Side, get, load

LIBRARIES = (
    "flask, flask_openapi3, flask_sqlalchemy, gunicorn.app.wsgiapp, gunicorn.workers.gthread, prometheus_client, "
    "psycopg2, pydantic, sqlalchemy.dialects.postgresql.psycopg2"
)
STEPS = 5  # looks while the requests are sent


def working_set(pid: int) -> float:
    """MiB, shared pages counted by their share."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB$", told, re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def whole(pid: int) -> float:
    """MiB of a server: the process that was started, and its workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(working_set(int(one)) for one in (str(pid), *children))


def bare(environment: dict[str, str]) -> float:
    """MiB of a process that has imported the libraries and nothing else."""
    code = f"import {LIBRARIES}; print(flush=True); input()"
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        process.stdout.readline()
        found = working_set(process.pid)
        process.terminate()
    return found


def measure(stack: ExitStack, environment: dict[str, str], requests: int) -> None:
    """After the bare import, after the start, and while so many requests are answered."""
    imported = bare(environment)
    side = Side(stack, environment)
    started = whole(side.process.pid)
    print(f"\nworking set in MiB: bare import {imported:.1f}, ready {started:.1f} ({started / imported:.2f} of it)")
    for step in range(1, STEPS + 1):
        load(side.port, get("/api/v1/deployments"), count=requests // STEPS)
        now = whole(side.process.pid)
        print(f"  after {requests * step // STEPS:>9,} requests {now:.1f} ({now / imported:.2f})", flush=True)
