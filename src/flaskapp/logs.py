"""Logs: one JSON object a line on standard error, one line a request, none for a probe that succeeds."""

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

FRAMES = 12  # of a traceback, the innermost
IDENTIFIER = "flaskapp.request_id"  # in the WSGI environment, where it costs less to find than in `g`
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# What a log record always has; anything else on it was given by `extra`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def line(created: float, level: str, name: str, message: str, fields: dict[str, Any]) -> str:
    """One JSON object; `created` is in seconds since 1970."""
    moment = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
    head = {"time": moment, "level": level, "logger": name, "message": message}
    return to_json(head | fields, fallback=str).decode()


class JsonFormatter(logging.Formatter):
    """A record as a line; values given by `extra` become fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {"request_id": request_id()} if has_request_context() else {}
        fields |= {key: value for key, value in vars(record).items() if key not in STANDARD}
        if record.exc_info and record.exc_info[0]:
            # Where, not what: an exception's text may hold SQL, a row's values or a password.
            frames = traceback.extract_tb(record.exc_info[2])[-FRAMES:]
            fields["error"] = record.exc_info[0].__name__
            fields["trace"] = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
        return line(record.created, record.levelname, record.name, record.getMessage(), fields)


class Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error. A line that cannot be written is lost: it must cost neither a request nor a thread."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leave out logging's own complaint, which would go to the same place."""


def configuration(level: str) -> dict[str, Any]:
    """For logging.config.dictConfig, and for gunicorn's `logconfig_dict`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"standard_error": {"()": Handler, "formatter": "json"}},
        "root": {"level": level, "handlers": ["standard_error"]},
        # gunicorn brings handlers of its own, which would print each line twice.
        "loggers": {
            "gunicorn.error": {"level": level, "handlers": [], "propagate": True},
            "alembic": {"level": "WARNING"},
        },
    }


def request_id() -> str:
    """The caller's X-Request-ID where it is well-formed, else a new one."""
    environ = request.environ
    if IDENTIFIER not in environ:
        header = environ.get("HTTP_X_REQUEST_ID", "")
        # It tells requests apart and keeps no secret.
        environ[IDENTIFIER] = header if VALID_ID.fullmatch(header) else f"{random.getrandbits(128):032x}"
    return str(environ[IDENTIFIER])


def log_request(request: Request, status: int, length: int | None, seconds: float) -> None:
    """The line of a request that was answered; written here, as a log record would cost more than the line."""
    if not logger.isEnabledFor(logging.INFO):
        return
    rule = request.url_rule
    fields = {
        "request_id": request_id(),
        "method": request.method,
        "path": request.path,
        # The template, so that a thousand deployments are one route.
        "route": rule.rule if rule else None,
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
        "bytes": length,
        "client": request.remote_addr,
        "user_agent": request.environ.get("HTTP_USER_AGENT", "")[:200],
    }
    message = f"{request.method} {request.path} {status}"
    with suppress(OSError, ValueError, AttributeError):  # full, closed, never open: see Handler
        sys.stderr.write(line(time.time(), "INFO", logger.name, message, fields) + "\n")
