"""The baseline, frozen: raw WSGI and psycopg2, one connection a thread, no routing, validation, log or metrics.

It answers with the same bytes as the service, from the same kind of statement.
"""

# ruff: noqa: S608 - statements are assembled from constants; values are always bound

import os
import threading
from collections.abc import Iterable
from json import loads
from typing import Any
from uuid import uuid4

import psycopg2

COLUMNS = """
    d.id, s.name AS service, e.name AS environment, d.version, d.status, d.commit, d.committed_at, d.digest,
    d.chart_version, d.rollback_of, d.actor, d.link, d.started_at, d.finished_at
"""
JOINED = "JOIN services s ON s.id = d.service_id JOIN environments e ON e.id = d.environment_id"
ONE = f"SELECT row_to_json(r)::text FROM (SELECT {COLUMNS} FROM deployments d {JOINED} WHERE d.id = %s) r"
LIST = f"""
    SELECT json_build_object('items', coalesce(json_agg(row_to_json(r)), '[]'))::text FROM (
        SELECT {COLUMNS} FROM deployments d {JOINED} ORDER BY d.started_at DESC, d.id DESC LIMIT 20
    ) r
"""
POST = f"""
    WITH d AS (
        INSERT INTO deployments (id, service_id, environment_id, version, status)
        SELECT %(id)s, s.id, e.id, %(version)s, 'started' FROM services s, environments e
        WHERE s.name = %(service)s AND e.name = %(environment)s RETURNING *
    )
    SELECT row_to_json(r)::text FROM (SELECT {COLUMNS} FROM d {JOINED}) r
"""
local = threading.local()


def cursor() -> Any:
    """Return a cursor on the thread's own connection."""
    if not hasattr(local, "connection"):
        names = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USERNAME", "password": "PASSWORD"}
        parts: dict[str, Any] = {name: os.environ[f"DB_{variable}"] for name, variable in names.items()}
        local.connection = psycopg2.connect(**parts, options="-c timezone=UTC")
        local.connection.autocommit = True
    return local.connection.cursor()


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer a request (WSGI)."""
    path = environ["PATH_INFO"]
    with cursor() as run:
        if environ["REQUEST_METHOD"] == "POST":
            body = loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            run.execute(POST, {**body, "id": str(uuid4())})
        elif path == "/api/v1/deployments":
            run.execute(LIST)
        else:
            run.execute(ONE, (path.rpartition("/")[2],))
        content = run.fetchone()[0].encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    start_response("201 Created" if environ["REQUEST_METHOD"] == "POST" else "200 OK", headers)
    return [content]
