"""gunicorn's thread worker, whose own refusals of malformed requests are problem details like all others; its log."""

import json
import logging
import socket
import uuid
from http import HTTPStatus
from typing import Any

from gunicorn import glogging  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

logger = logging.getLogger(__name__)

# What is no plain 400.
STATUSES: dict[type[Exception], int] = {
    errors.ForbiddenProxyRequest: 403,
    errors.LimitRequestLine: 414,
    errors.ExpectationFailed: 417,
    errors.LimitRequestHeaders: 431,
    errors.UnsupportedTransferCoding: 501,
}
OURS = (errors.ConfigurationProblem, errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)


class Log(glogging.Logger):  # type: ignore[misc]
    def access(self, *_: Any) -> None:
        """The application has its own line for a request; gunicorn would format every header before it is dropped."""


class Worker(ThreadWorker):  # type: ignore[misc]
    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Refuse what could not be read as a request; leave anything else to gunicorn."""
        if not isinstance(exc, errors.ParseException) or isinstance(exc, OURS):
            super().handle_error(req, client, addr, exc)
            return
        status = HTTPStatus(STATUSES.get(type(exc), 400))
        identifier, reason = uuid.uuid4().hex, type(exc).__name__
        logger.warning(
            "malformed request",
            extra={"request_id": identifier, "status": status, "client": addr and addr[0], "reason": reason},
        )
        try:
            client.sendall(refusal(status, reason, identifier))
        except OSError:  # the client has gone
            logger.debug("nobody to refuse")


def refusal(status: HTTPStatus, reason: str, identifier: str) -> bytes:
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status,
        "detail": f"This is no well-formed HTTP request ({reason}).",
        "request_id": identifier,
    }
    content = json.dumps(body).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"X-Request-ID: {identifier}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
