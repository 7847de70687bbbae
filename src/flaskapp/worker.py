"""gunicorn's thread worker, whose own refusals of malformed requests are problem details like all others; its log."""

import json
import logging
import selectors
import socket
import time
import uuid
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import glogging  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from flaskapp.database import readable

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
    def enqueue_req(self, conn: Any) -> None:
        """Give a thread to a connection that has said something; leave any other to the poller.

        gunicorn lets a thread wait 5 s for the first byte, so a few connections that were opened in advance (browsers,
        HTTP clients with pools, load balancers) would keep everyone else waiting, the kubelet's probes included.
        """
        if self.nr_conns >= self.worker_connections and self.pending_conns:
            self._close(self.pending_conns.popleft())
        if conn.initialized or conn.data_ready or readable(conn.sock):
            conn.data_ready = True
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _close(self, conn: Any) -> None:
        """End the one that has been silent for longest: others want its place."""
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

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
