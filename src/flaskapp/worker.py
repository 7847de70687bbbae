"""gunicorn's thread worker, whose own refusals of malformed requests are problem details like all others; its log."""

import json
import logging
import selectors
import socket
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import glogging  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker  # type: ignore[import-untyped]

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
WAITING = 500  # connections that are silent, or read their last answer; many systems allow a process 1,024 files
OURS = (errors.ConfigurationProblem, errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)


class Log(glogging.Logger):  # type: ignore[misc]
    def access(self, *_: Any) -> None:
        """The application has its own line for a request; gunicorn would format every header before it is dropped."""

    def exception(self, message: str, *values: Any, **options: Any) -> None:
        """What gunicorn caught; a client that stopped amid its request (see gunicorn.conf.py) is no error of ours."""
        stopped = isinstance(sys.exc_info()[1], BlockingIOError)
        (super().debug if stopped else super().exception)(message, *values, **options)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's, but for connections that say nothing: they hold neither a thread nor the place of another one.

    Browsers, HTTP clients with pools and load balancers open connections in advance and keep them. gunicorn lets a
    thread wait 5 s for the first byte, and accepts nobody while `worker_connections` are open, idle or not.
    """

    @property
    def worker_connections(self) -> int:
        """How many may be open: those that something is done for, and the idle ones."""
        return int(self.cfg.worker_connections) + len(self.pending_conns) + len(self.keepalived_conns)

    @worker_connections.setter
    def worker_connections(self, _: int) -> None:
        """gunicorn sets it once, to what `cfg` says."""

    def enqueue_req(self, conn: Any) -> None:
        """Give a thread to a connection that has said something; leave any other to the poller."""
        if conn.initialized or conn.data_ready or readable(conn.sock):
            conn.data_ready = True
            super().enqueue_req(conn)
        else:
            self._wait(conn, self.on_pending_socket_readable)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Let the poller see when the client has read an answer that was its last.

        gunicorn waits for that in the loop that accepts and dispatches, up to 2 s for each.
        """
        if fs.cancelled() or fs.exception() or fs.result() is not False:
            super().finish_request(conn, fs)
            return
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            self._wait(conn, self._drain)
        except OSError:  # the client has gone, or gunicorn closed the socket amid an answer that broke
            self.nr_conns -= 1
            conn.close()

    def _drain(self, conn: Any, sock: socket.socket) -> None:
        """Drop what a client still sends; unread, it would have the kernel drop the answer's end."""
        try:
            if sock.recv(65536):
                return
        except OSError:
            logger.debug("reset by the client")
        self._end(conn)

    def _wait(self, conn: Any, then: Callable[[Any, socket.socket], None]) -> None:
        """Have the poller call when there is something to read, and `murder_pending` end it where there is nothing."""
        # The longest silent first, and none that has spoken since the poller looked.
        silent = (one for one in self.pending_conns if not readable(one.sock))
        if len(self.pending_conns) >= WAITING and (one := next(silent, None)):
            self._end(one)
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + (self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(then, conn))
        self.pending_conns.append(conn)

    def _end(self, conn: Any) -> None:
        self.pending_conns.remove(conn)
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def _cap_keepalive(self, deadline: float) -> None:
        """A worker that stops waits for the silent no longer than for the kept ones."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

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
