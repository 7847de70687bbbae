"""A baseline: raw's statements behind plain Flask, without validation, log, metrics or tokens."""

from typing import Any

from flask import Flask, Response, request

from benchmarks.service.raw import LIST, ONE, POST, cursor
from flaskapp.models import uuid7

app = Flask(__name__)


def answer(statement: str, values: Any = None, status: int = 200) -> Response:
    """Run the statement and return its JSON."""
    with cursor() as run:
        run.execute(statement, values)
        content = run.fetchone()[0].encode() + b"\n"
    return Response(content, status, content_type="application/json")


@app.get("/api/v1/deployments/<id>")
def one(id: str) -> Response:
    """One deployment."""
    return answer(ONE, (id,))


@app.get("/api/v1/deployments")
def index() -> Response:
    """The newest twenty."""
    return answer(LIST)


@app.post("/api/v1/deployments")
def record() -> Response:
    """Record a deployment."""
    return answer(POST, {**request.get_json(), "id": str(uuid7())}, 201)
