"""A proxy for the database as native sidecar, as Cloud SQL's: every pod of the release goes through it.

The server is charts/postgresql in a release of its own. Only the proxy knows its address; everything else is told
127.0.0.1. The proxy stands in for Google's: it forwards a port.
"""

import json
from collections.abc import Callable
from typing import Any

from flaskapp_deploy.kubernetes import Cluster
from tests.examples.test_jobs import Queue
from tests.kubernetes import ROOT
from tests.reliability.test_release import get, wait

PROXY = """
import asyncio, os, signal

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

async def pump(source, sink):
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()

async def accept(reader, writer):
    from_server, to_server = await asyncio.open_connection("postgresql", 5432)
    await asyncio.gather(pump(reader, to_server), pump(from_server, writer), return_exceptions=True)

async def main():
    server = await asyncio.start_server(accept, "127.0.0.1", 5432)
    await server.serve_forever()

asyncio.run(main())
"""
# The kubelet asks from outside the pod's network, so it can't open a port of 127.0.0.1.
LISTENS = "import socket; socket.create_connection(('127.0.0.1', 5432)).close()"
COUNT = "import psycopg; print(psycopg.connect().execute('SELECT count(*) FROM results').fetchone())"
# libpq reads these by itself. A URL in the server's Secret would name the server.
NAMES = {
    "url": "",
    "host": "PGHOST",
    "port": "PGPORT",
    "name": "PGDATABASE",
    "username": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
}


def values(image: str) -> dict[str, Any]:
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    proxy = {
        "name": "proxy",
        "image": image,
        "command": ["python", "-c", PROXY],
        "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["python", "-c", LISTENS]}, "periodSeconds": 1, "timeoutSeconds": 5},
        "securityContext": restricted,
    }
    return {
        "postgresql": {"enabled": False},
        "database": {
            "host": "127.0.0.1",
            "name": "flaskapp",
            "existingSecret": "postgresql",
            "secretKeys": {"username": "username"},
            "owner": {"username": "flaskapp_owner"},
            "env": NAMES,
        },
        "initContainers": [proxy],
        "cronJobs": {"count": {"schedule": "0 0 1 1 *", "command": ["python", "-c", COUNT]}},
    }


def test_migration_web_worker_and_cron_job_go_through_it(
    releaser: Callable[[str], Cluster], admin: Callable[[str], Cluster], references: dict[str, str]
) -> None:
    queue = Queue("jobs", releaser("example-proxy"), references["jobs"])
    server = ["--values", str(ROOT / "charts/postgresql-values.yaml"), "--wait", "--timeout=3m"]
    queue.cluster.helm("install", "postgresql", str(ROOT / "charts/postgresql"), *server)
    setting = f"--set-json={json.dumps(values(queue.image))}"
    queue.upgrade(setting)

    # The migration has ended, although its proxy serves until it is told to stop.
    [migration] = get(queue.cluster, "jobs", selector=f"{queue.instance},app.kubernetes.io/component=migration")
    assert migration["status"]["succeeded"] == 1
    for number in range(8):
        assert queue.ask("POST", "/jobs", json={"number": number, "seconds": 5}).status_code == 202
    wait(lambda: "doing" in queue.counts()["jobs"], 30, "the workers' first job")
    first = queue.workers()
    # A worker that ends needs its proxy to the last: the rows of its running jobs.
    queue.upgrade(setting, "--set", "config.STEP=1")
    assert not first & queue.workers()
    wait(lambda: queue.counts()["jobs"] == {"succeeded": 8}, 60, "the jobs")
    assert (queue.counts()["results"], queue.counts()["numbers"]) == (8, 8)

    person = admin("example-proxy")
    person.kubectl("create", "job", "count-now", "--from=cronjob/jobs-count")
    person.kubectl("wait", "--for=condition=complete", "job/count-now", "--timeout=60s")
    assert person.kubectl("logs", "job/count-now").stdout.strip().endswith("(8,)")
