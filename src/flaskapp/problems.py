"""Errors as RFC 9457 problem details, each with the request's id and without internals."""

import logging
from http import HTTPStatus
from typing import Any

import psycopg2
from flask import Flask, Response, json, render_template, request
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from flaskapp.database import UnavailableError, nothing_changed, watch
from flaskapp.headers import protect
from flaskapp.logs import request_id
from flaskapp.settings import SettingsError

logger = logging.getLogger(__name__)

RETRY_AFTER = 2  # seconds: about what the prober needs to notice that the database is back
BUSY = {"57014", "55P03", "40001", "40P01"}  # statement timeout, lock timeout, serialization, deadlock
UNKNOWN = (
    "whether the change was made is unknown. Send it again with the same Idempotency-Key if it had one;"
    " otherwise look up what is recorded before you send it again."
)
BROKEN_RULE = "The input breaks a rule; `errors` lists each."
# Rules that only the database can check, by the name of their constraint.
RULES = {
    "deployments_rollback_of_fkey": ("body.rollback_of", "there is no such deployment"),
    "deployments_finished_after_started_check": ("body.finished_at", "must not be before started_at"),
    "failures_restored_after_failed_check": ("body.restored_at", "must not be before failed_at"),
}


class FieldError(BaseModel):
    """One rule that the input broke."""

    field: str = Field(description="Where: `body.version`, `query.limit`, …")
    rule: str = Field(description="What is wanted there.")


class ProblemDetails(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldError] | None = None


def described(*statuses: int) -> dict[Any, Any]:
    """Return the OpenAPI responses for these statuses."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


class ProblemError(Exception):
    """Raised to answer with an HTTP status; `errors` lists (field, rule) pairs."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: list[tuple[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, errors or [], headers or {}


def answer(status: int, detail: str, errors: list[tuple[str, str]], headers: dict[str, str]) -> Response:
    """Build the response: HTML for a browser, else problem+json."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.path,
        "request_id": request_id(),
    }
    if errors:
        body["errors"] = [{"field": field, "rule": rule} for field, rule in errors]
    if for_people():
        page = Response(render_template("error.html", **body), status, headers, mimetype="text/html")
        return protect(page)
    return Response(json.dumps(body) + "\n", status, headers, content_type="application/problem+json")


def for_people() -> bool:
    """Return whether a browser asked for a page: browsers accept HTML by name, API clients accept anything."""
    return not request.path.startswith("/api/") and "text/html" in request.headers.get("Accept", "")


def init_app(app: Flask) -> None:
    """Register a handler for every kind of error."""
    app.register_error_handler(ProblemError, lambda e: answer(e.status, e.detail, e.errors, e.headers))
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(UnavailableError, lambda e: unavailable())
    app.register_error_handler(PoolTimeout, pool_exhausted)
    # The driver's own errors, and the same wrapped by SQLAlchemy.
    app.register_error_handler(psycopg2.Error, database_error)
    app.register_error_handler(DBAPIError, lambda e: database_error(e.orig))
    app.register_error_handler(SettingsError, settings_error)
    app.register_error_handler(Exception, crash)


def http_error(error: HTTPException) -> Response:
    """Answer Flask's own errors: not found, wrong method, too large."""
    if error.response is not None:  # a redirect or a response made elsewhere
        return error.get_response(request.environ)  # type: ignore[return-value]
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return answer(error.code or 500, error.description or "", [], headers)


def unavailable(reason: str = "The database does not answer just now") -> Response:
    """Answer 503; say that nothing was changed only if that is certain, as a repeated request may be recorded twice."""
    detail = f"{reason}; nothing was changed. Try again shortly." if nothing_changed() else f"{reason}; {UNKNOWN}"
    return answer(503, detail, [], {"Retry-After": str(RETRY_AFTER)})


def pool_exhausted(error: PoolTimeout) -> Response:
    """Answer 503: no connection became free in time."""
    logger.warning("every connection is in use", extra={"busy": watch().busy, "reason": str(error)})
    return unavailable()


def settings_error(error: SettingsError) -> Response:
    """Answer 503: the settings for a new connection cannot be read at the moment."""
    watch().suspect(error)
    return unavailable()


def database_error(error: Any) -> Response:
    """Answer a driver's error: a broken constraint, a timeout, a lost database, or a bug."""
    if isinstance(error, psycopg2.IntegrityError):
        return conflict(error.diag.constraint_name)
    if not isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return crash(error)
    if error.pgcode in BUSY:
        logger.warning("statement gave up", extra={"sqlstate": error.pgcode})
        return unavailable("The database took too long over this")
    watch().suspect(error)
    return unavailable()


def conflict(constraint: str | None) -> Response:
    """Answer a violated constraint: 422 if it is a rule of the input, else 409."""
    if constraint in RULES:
        return answer(422, BROKEN_RULE, [RULES[constraint]], {})
    if constraint == "failures_open":
        return answer(409, "This deployment has an open failure report already.", [], {})
    return answer(409, f"This contradicts what is recorded already ({constraint}).", [], {})


def crash(error: Exception) -> Response:
    """Answer 500 and log the error, which is a bug."""
    logger.error("unhandled error", exc_info=error)
    return answer(500, "Something went wrong here; the request id finds it in the logs.", [], {})
