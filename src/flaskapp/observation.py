"""Each answered request's id, log line and metrics, in one hook to keep its cost low."""

import time

from flask import Flask, Response, request

from flaskapp.logs import log_request, request_id
from flaskapp.metrics import Metrics

STARTED = "flaskapp.started"  # in the WSGI environment: when the request arrived, by `time.perf_counter`


def init_app(app: Flask) -> None:
    """Create the metrics, and observe every response."""
    metrics = app.extensions["metrics"] = Metrics(app.extensions["watch"])

    @app.after_request
    def observe(response: Response) -> Response:
        answered = request._get_current_object()  # type: ignore[attr-defined]  # each access by the proxy costs time
        seconds = time.perf_counter() - answered.environ[STARTED]
        response.headers["X-Request-ID"] = request_id()
        log_request(answered, response.status_code, response.content_length, seconds)
        metrics.count(answered, response.status_code, seconds)
        return response
