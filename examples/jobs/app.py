"""A web application that hands its work to a queue in PostgreSQL."""

from typing import Any

import tasks
from flask import Flask, request
from psycopg_pool import ConnectionPool

RESULTS = "SELECT count(*), count(DISTINCT number), count(DISTINCT worker) FROM results"

app = Flask(__name__)
pool = ConnectionPool(tasks.URL, open=True, check=ConnectionPool.check_connection)
tasks.queue.open(pool)


@app.post("/jobs")
def enqueue() -> tuple[dict[str, int], int]:
    return {"id": tasks.work.defer(number=request.json["number"], seconds=request.json.get("seconds", 1))}, 202


@app.get("/jobs")
def count() -> dict[str, Any]:
    with pool.connection() as connection:
        jobs = connection.execute("SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY 1").fetchall()
        results, numbers, workers = connection.execute(RESULTS).fetchone()
    return {"jobs": dict(jobs), "results": results, "numbers": numbers, "workers": workers}


@app.get("/health")
def health() -> str:
    return "ok"
