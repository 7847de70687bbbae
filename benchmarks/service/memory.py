"""The working set of the server, beside that of a process that has only imported its libraries."""

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
STEPS = 5  # samples while the requests are sent


def working_set(*pids: int) -> float:
    """Return MiB of these processes together, as if nothing else ran on the machine.

    Written pages count by share (Pss_Anon), as forked processes have pages in common. Mapped files count once, by the
    process that maps most of them: by share they would count less the more other processes run.
    """
    rollups = [dict(re.findall(r"^(\w+):\s+(\d+) kB$", rollup(pid), re.MULTILINE)) for pid in pids]
    written = sum(int(one["Pss_Anon"]) for one in rollups)
    return (written + max(int(one["Rss"]) - int(one["Anonymous"]) for one in rollups)) / 1024


def rollup(pid: int) -> str:
    """Return the kernel's summary of a process's mappings."""
    return Path(f"/proc/{pid}/smaps_rollup").read_text()


def whole(pid: int) -> float:
    """Return MiB of a server: its main process and its workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return working_set(pid, *map(int, children))


def bare(environment: dict[str, str]) -> float:
    """Return MiB of a process that has imported the libraries and nothing else."""
    code = f"import {LIBRARIES}; print(flush=True); input()"
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        process.stdout.readline()
        size = working_set(process.pid)
        process.terminate()
    return size


def measure(stack: ExitStack, environment: dict[str, str], requests: int) -> None:
    """Print the working set after the bare import, after the start, and while `requests` are answered."""
    imported = bare(environment)
    side = Side(stack, environment)
    started = whole(side.process.pid)
    print(f"\nworking set in MiB: bare import {imported:.1f}, ready {started:.1f} ({started / imported:.2f} of it)")
    for step in range(1, STEPS + 1):
        load(side.port, get("/api/v1/deployments"), count=requests // STEPS)
        now = whole(side.process.pid)
        print(f"  after {requests * step // STEPS:>9,} requests {now:.1f} ({now / imported:.2f})", flush=True)
