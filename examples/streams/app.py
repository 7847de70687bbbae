"""Server-sent events, and a request that takes long."""

import time
from collections.abc import Iterator

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/events")
def events() -> Response:
    """Send one event a second."""

    def produce(seconds: int) -> Iterator[str]:
        for number in range(seconds):
            yield f"id: {number}\ndata: {time.time():.3f}\n\n"
            time.sleep(1)

    seconds = request.args.get("seconds", 3600, type=int)
    # nginx, and what is made of it, would hold the events back.
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(produce(seconds), mimetype="text/event-stream", headers=headers)


@app.get("/slow")
def slow() -> str:
    time.sleep(20)
    return "done"


@app.get("/health")
def health() -> str:
    return "ok"
