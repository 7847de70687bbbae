"""/livez, /readyz and /version, answered before Flask: they are cheap, need no database and leave no log line.

Live: the process answers, and the background threads that it needs are alive. Ready: the process has started (the
database has answered once, with a schema that this code can serve) and is not draining. A database outage later does
not make it unready, as a Service without endpoints helps nobody: requests get a quick 503, and `/readyz?verbose` shows
the cause.
"""

import json
import signal
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

from flaskapp import __version__
from flaskapp.database import Watch
from flaskapp.observation import STARTED
from flaskapp.schema import serves

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Answer = tuple[str, dict[str, Any]]


class Probes:
    """A WSGI middleware that answers the three paths and passes all other requests on."""

    def __init__(self, application: "WSGIApplication", watch: Watch, never_ready: bool = False):
        self.application, self.watch, self.never_ready = application, watch, never_ready
        self.started = False
        self.draining = False
        self.paths: dict[str, Callable[[], Answer]] = {
            "/livez": self.live,
            "/readyz": self.ready,
            "/version": lambda: ("200 OK", {"version": __version__, "schema": self.watch.revision}),
        }

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a probe, or pass the request on; note when it arrived."""
        self.watch.start()
        environ[STARTED] = time.perf_counter()
        probe = self.paths.get(environ.get("PATH_INFO", ""))
        if probe is None or environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return self.application(environ, start_response)
        status, body = probe()
        if probe == self.ready and "verbose" not in environ.get("QUERY_STRING", ""):
            body = {"status": body["status"]}
        content = json.dumps(body).encode() + b"\n"
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
        ]
        start_response(status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]

    def live(self) -> Answer:
        """Answer /livez: 503 only for what a restart repairs."""
        if ended := self.watch.ended():
            reason = f"background threads have ended: {', '.join(ended)}"
            return "503 Service Unavailable", {"status": "failed", "reason": reason}
        return "200 OK", {"status": "ok"}

    def ready(self) -> Answer:
        """Answer /readyz: once started, 200 until draining."""
        watch = self.watch
        self.started = self.started or (watch.answered and serves(watch.revision))
        ready = self.started and not self.draining and not self.never_ready
        return "200 OK" if ready else "503 Service Unavailable", {
            "status": "ok" if ready else "draining" if self.draining else "starting",
            "database": {"up": watch.up, "reason": watch.reason},
            "schema": {"revision": watch.revision, "served": serves(watch.revision)},
        }

    def drain_on_sigterm(self) -> None:
        """Make /readyz answer `draining` after SIGTERM, in front of the handler that is already set."""
        previous = signal.getsignal(signal.SIGTERM)

        def drain(number: int, frame: FrameType | None) -> None:
            self.draining = True
            if callable(previous):
                previous(number, frame)

        signal.signal(signal.SIGTERM, drain)
