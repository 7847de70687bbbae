"""gunicorn's thread worker, extended: slow clients hold no thread, and malformed requests get problem details."""

import json
import logging
import selectors
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import glogging, http  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker  # type: ignore[import-untyped]

from flaskapp.database import readable
from flaskapp.incoming import FRAMING, MAX_HEAD, Incoming, TooLargeError

logger = logging.getLogger(__name__)

# Malformed requests whose status is not 400.
STATUSES: dict[type[Exception], int] = {
    errors.ForbiddenProxyRequest: 403,
    errors.LimitRequestLine: 414,
    errors.ExpectationFailed: 417,
    errors.LimitRequestHeaders: 431,
    errors.UnsupportedTransferCoding: 501,
}
WAITING = 500  # idle connections, and those being drained; many systems allow a process 1,024 open files
REQUEST_TIMEOUT = 10.0  # seconds from a request's first byte to its last
RECEIVED = 16 * 1024 * 1024  # bytes that all incomplete requests may hold together
RECV = 32 * 1024  # bytes
OURS = (errors.ConfigurationProblem, errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)


class Log(glogging.Logger):  # type: ignore[misc]
    """gunicorn's logger without access lines, as the application writes its own."""

    def access(self, *_: Any) -> None:
        """Skip gunicorn's access line, which costs the formatting of every header."""

    def exception(self, message: str, *values: Any, **options: Any) -> None:
        """Log an exception; on level DEBUG if a client stopped in the middle of its request (see gunicorn.conf.py)."""
        stopped = isinstance(sys.exc_info()[1], BlockingIOError)
        (super().debug if stopped else super().exception)(message, *values, **options)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's thread worker, in which idle and slow connections occupy no thread and count towards no limit.

    Browsers, HTTP clients with pools and load balancers open connections in advance and keep them. gunicorn lets a
    thread wait 5 s for the first byte, and accepts no connection while `worker_connections` are open, idle or not. It
    does not limit how long a request takes to arrive, and a thread waits for each byte of it. Here the main loop reads,
    and a thread gets the request when it is complete. No hook of gunicorn's covers that, so this overrides methods of
    ThreadWorker; pyproject.toml pins gunicorn's minor version for that reason.
    """

    max_body = 64 * 1024  # bytes to read before a thread starts; set by gunicorn.conf.py

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.reading: deque[Any] = deque()  # connections with an incomplete request, the oldest first

    @property
    def worker_connections(self) -> int:
        """The limit of open connections: the configured number of active ones, and all that are idle or incomplete."""
        others = len(self.pending_conns) + len(self.keepalived_conns) + len(self.reading)
        return int(self.cfg.worker_connections) + others

    @worker_connections.setter
    def worker_connections(self, _: int) -> None:
        """Ignore gunicorn's own assignment, of the configured number."""

    def enqueue_req(self, conn: Any) -> None:
        """Give a thread to a connection whose next request is complete; leave any other to the poller."""
        conn.incoming, conn.place = Incoming(self.max_body), None
        if self.cfg.is_ssl:  # here it would read ciphertext
            super().enqueue_req(conn)
            return
        if conn.parser:  # what followed the previous request
            conn.incoming.data += conn.parser.unreader.take_buffered()
        conn.sock.setblocking(False)
        if not self._receive(conn):
            self._wait(conn, self._read_on)
            if conn.incoming.data:
                self._begin(conn)

    def _receive(self, conn: Any) -> bool:
        """Read what has arrived; False if the request is incomplete, else a thread has it now or it has ended."""
        incoming = conn.incoming
        try:
            if not (incoming.data and incoming.whole()):
                data = conn.sock.recv(RECV)
                incoming.data += data
                if data and not incoming.whole():
                    if incoming.continues:
                        incoming.continues = False
                        conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                    return False
        except BlockingIOError:
            return False
        except TooLargeError as error:
            self._leave(conn)
            self._refuse(conn, HTTPStatus(error.status), "TooLarge")
            return True
        except OSError:  # reset by the client
            incoming.data.clear()
        self._leave(conn)
        if incoming.data:  # complete, or all that the client will send
            self._start(conn)
        else:
            self.nr_conns -= 1
            conn.close()
        return True

    def _start(self, conn: Any) -> None:
        if conn.parser is None:
            conn.initialized = True
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
        conn.parser.unreader.unread(bytes(conn.incoming.data))
        conn.incoming.data = bytearray()
        conn.data_ready = True
        super().enqueue_req(conn)

    def _begin(self, conn: Any) -> None:
        """Give a request whose first bytes have arrived REQUEST_TIMEOUT seconds for the rest."""
        self.pending_conns.remove(conn)
        conn.place = self.reading
        if len(self.reading) >= min(WAITING, max(8, RECEIVED // (MAX_HEAD + FRAMING * self.max_body))):
            self._expire(self.reading[0])
        conn.timeout = time.monotonic() + REQUEST_TIMEOUT
        self.reading.append(conn)

    def _read_on(self, conn: Any, _: socket.socket) -> None:
        if conn.incoming is None:  # refused after the poller had reported it
            return
        if not self._receive(conn) and conn.incoming.data and conn.place is self.pending_conns:
            self._begin(conn)

    def _leave(self, conn: Any) -> None:
        """Unregister a connection from the poller, if it is registered."""
        if conn.place is not None:
            conn.place.remove(conn)
            self.poller.unregister(conn.sock)
            conn.place = None

    def _expire(self, conn: Any) -> None:
        self._leave(conn)
        self._refuse(conn, HTTPStatus.REQUEST_TIMEOUT, "RequestTimeout")

    def _refuse(self, conn: Any, status: HTTPStatus, reason: str) -> None:
        conn.incoming = None
        refuse(conn.sock, conn.client, status, reason)
        self._linger(conn)

    def murder_pending(self) -> None:
        """Close connections that have been idle for too long, and refuse requests that did not arrive in time."""
        super().murder_pending()
        while self.reading and self.reading[0].timeout <= time.monotonic():
            self._expire(self.reading[0])

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Close the connection after a body that is too long, instead of reading the rest of it."""
        return not conn.incoming.oversized and bool(super()._keepalive_after(conn, keepalive))

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Leave closing a connection to the poller, until the client has read its last answer.

        gunicorn waits for that in its main loop, up to 2 s for each connection.
        """
        if fs.cancelled() or fs.exception() or fs.result() is not False:
            super().finish_request(conn, fs)
            return
        self._linger(conn)

    def _linger(self, conn: Any) -> None:
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            self._wait(conn, self._drain)
        except OSError:  # the client is gone, or gunicorn closed the socket after an answer that failed
            self.nr_conns -= 1
            conn.close()

    def _drain(self, conn: Any, sock: socket.socket) -> None:
        """Discard what the client still sends: unread, it would make the kernel reset the connection."""
        try:
            if sock.recv(65536):
                return
        except OSError:
            logger.debug("reset by the client")
        self._end(conn)

    def _wait(self, conn: Any, then: Callable[[Any, socket.socket], None]) -> None:
        """Let the poller call `then` when there is something to read; `murder_pending` ends it if nothing arrives."""
        # The longest idle first, but none with data that the poller has not reported yet.
        idle = (one for one in self.pending_conns if not readable(one.sock))
        if len(self.pending_conns) >= WAITING and (one := next(idle, None)):
            self._end(one)
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + (self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(then, conn))
        self.pending_conns.append(conn)
        conn.place = self.pending_conns

    def _end(self, conn: Any) -> None:
        self._leave(conn)
        self.nr_conns -= 1
        conn.close()

    def _cap_keepalive(self, deadline: float) -> None:
        """Apply the deadline of a stopping worker to idle connections too, not only to kept ones."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Refuse what can't be parsed as a request; leave any other error to gunicorn."""
        if not isinstance(exc, errors.ParseException) or isinstance(exc, OURS):
            super().handle_error(req, client, addr, exc)
            return
        refuse(client, addr, HTTPStatus(STATUSES.get(type(exc), 400)), type(exc).__name__)


def refuse(client: socket.socket, addr: Any, status: HTTPStatus, reason: str) -> None:
    """Log a malformed request and send its refusal."""
    identifier = uuid.uuid4().hex
    logger.warning(
        "malformed request",
        extra={"request_id": identifier, "status": status, "client": addr and addr[0], "reason": reason},
    )
    try:
        client.sendall(refusal(status, reason, identifier))
    except OSError:
        logger.debug("the client is gone")


def refusal(status: HTTPStatus, reason: str, identifier: str) -> bytes:
    """Return a whole HTTP response with problem details; it closes the connection."""
    detail = f"This is no well-formed HTTP request ({reason})."
    if status == HTTPStatus.REQUEST_TIMEOUT:
        detail = f"The request did not come in within {REQUEST_TIMEOUT:g} s."
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status,
        "detail": detail,
        "request_id": identifier,
    }
    content = json.dumps(body).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"X-Request-ID: {identifier}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
