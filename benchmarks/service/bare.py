"""Raw, behind Flask and nothing else: no checks, log, metrics or tokens; what is the most that Flask leaves of raw."""

from typing import Any

from flask import Flask, Response, request

from benchmarks.service.raw import LIST, ONE, POST, cursor
from flaskapp.models import uuid7

app = Flask(__name__)


def answer(statement: str, values: Any = None, status: int = 200) -> Response:
    with cursor() as run:
        run.execute(statement, values)
        content = run.fetchone()[0].encode() + b"\n"
    return Response(content, status, content_type="application/json")


@app.get("/api/v1/deployments/<id>")
def one(id: str) -> Response:
    return answer(ONE, (id,))


@app.get("/api/v1/deployments")
def index() -> Response:
    return answer(LIST)


@app.post("/api/v1/deployments")
def record() -> Response:
    return answer(POST, {**request.get_json(), "id": str(uuid7())}, 201)
