"""Logs on standard error: one JSON object a line, one line a request, none for probes."""

import logging
import random
import re
import sys
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Request, has_request_context, request
from pydantic_core import to_json

logger = logging.getLogger("flaskapp.request")

FRAMES = 12  # the innermost of a traceback
IDENTIFIER = "flaskapp.request_id"  # in the WSGI environment, which is quicker to read than `g`
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The attributes of every log record; any other attribute comes from `extra`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def line(created: float, level: str, name: str, message: str, fields: dict[str, Any]) -> str:
    """Return a log line as a JSON object; `created` is in seconds since 1970."""
    moment = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
    head = {"time": moment, "level": level, "logger": name, "message": message}
    return to_json(head | fields, fallback=str).decode()


class JsonFormatter(logging.Formatter):
    """Formats a log record as one JSON line; values passed by `extra` become fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, with the request's id and, for an exception, its type and stack."""
        fields: dict[str, Any] = {"request_id": request_id()} if has_request_context() else {}
        fields |= {key: value for key, value in vars(record).items() if key not in STANDARD}
        if record.exc_info and record.exc_info[0]:
            # Not the exception's text, which may hold SQL, a row's values or a password.
            frames = traceback.extract_tb(record.exc_info[2])[-FRAMES:]
            fields["error"] = record.exc_info[0].__name__
            fields["trace"] = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
        return line(record.created, record.levelname, record.name, record.getMessage(), fields)


class Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error; a line that cannot be written is dropped, so that logging never fails a request."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop logging's own error report, which would go to standard error too."""


def configuration(level: str) -> dict[str, Any]:
    """Return the logging configuration for `logging.config.dictConfig` and for gunicorn's `logconfig_dict`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"standard_error": {"()": Handler, "formatter": "json"}},
        "root": {"level": level, "handlers": ["standard_error"]},
        # gunicorn adds handlers of its own, which would print each line twice.
        "loggers": {
            "gunicorn.error": {"level": level, "handlers": [], "propagate": True},
            "alembic": {"level": "WARNING"},
        },
    }


def request_id() -> str:
    """Return the current request's id: its X-Request-ID if that is well formed, else 32 random hex digits."""
    environ = request.environ
    if IDENTIFIER not in environ:
        header = environ.get("HTTP_X_REQUEST_ID", "")
        # Not a secret, so `random` is good enough.
        environ[IDENTIFIER] = header if VALID_ID.fullmatch(header) else f"{random.getrandbits(128):032x}"
    return str(environ[IDENTIFIER])


def log_request(request: Request, status: int, length: int | None, seconds: float) -> None:
    """Write the line of an answered request, without a log record, which would cost more than the line."""
    if not logger.isEnabledFor(logging.INFO):
        return
    rule = request.url_rule
    fields = {
        "request_id": request_id(),
        "method": request.method,
        "path": request.path,
        # The route's template, so that all deployments share one value.
        "route": rule.rule if rule else None,
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
        "bytes": length,
        "client": request.remote_addr,
        "user_agent": request.environ.get("HTTP_USER_AGENT", "")[:200],
    }
    message = f"{request.method} {request.path} {status}"
    with suppress(OSError, ValueError, AttributeError):  # full, closed or missing standard error: see Handler
        sys.stderr.write(line(time.time(), "INFO", logger.name, message, fields) + "\n")
