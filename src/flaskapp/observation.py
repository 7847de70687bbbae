"""What is said of every request once it is answered: its id, its log line, its metrics; one hook, as all pay for it."""

import time

from flask import Flask, Response, request

from flaskapp.logs import log_request, request_id
from flaskapp.metrics import Metrics

STARTED = "flaskapp.started"  # set in the WSGI environment when the request came in


def init_app(app: Flask) -> None:
    metrics = app.extensions["metrics"] = Metrics(app.extensions["watch"])

    @app.after_request
    def observe(response: Response) -> Response:
        answered = request._get_current_object()  # type: ignore[attr-defined]  # the proxy costs more than it hides
        seconds = time.perf_counter() - answered.environ[STARTED]
        response.headers["X-Request-ID"] = request_id()
        log_request(answered, response.status_code, response.content_length, seconds)
        metrics.count(answered, response.status_code, seconds)
        return response
