"""Bearer tokens, checked by the same SQL statement that does the work, so that revoking one takes effect at once.

Reads are public unless API_READS is `private`; writes need a token of scope `write` or `admin`. A token limited to one
service can write only that service. The bootstrap token (API_ADMIN_TOKEN, or the file that API_ADMIN_TOKEN_FILE names)
is compared in memory and may do everything.
"""

import hashlib
import hmac
import logging
from dataclasses import dataclass
from typing import Any

import psycopg2
from flask import current_app, g, request
from sqlalchemy.engine.interfaces import DBAPICursor

from flaskapp.database import autocommit, first_line, note_change
from flaskapp.problems import ProblemError
from flaskapp.queries import Query
from flaskapp.settings import Settings

# ruff: noqa: S608 - statements are assembled from constants; values are always bound

logger = logging.getLogger(__name__)

SCOPES = {"read": "'read', 'write', 'admin'", "write": "'write', 'admin'", "admin": "'admin'"}
HINT = "Make one with `flaskapp token create`, or set API_ADMIN_TOKEN_FILE."
TRUSTED = hashlib.sha256(b"").digest()  # the identity of callers without a token of their own

TOUCH = Query("UPDATE api_tokens SET last_used_at = now() WHERE id = :id")


@dataclass(frozen=True)
class Caller:
    """Who sent the request: the SHA-256 of its token, if it had one; `trusted` for the bootstrap token."""

    hash: bytes | None
    trusted: bool = False

    @property
    def identity(self) -> bytes:
        """The 32 bytes under which this caller's idempotency keys are stored."""
        return self.hash or TRUSTED


def caller() -> Caller:
    """Return the caller of the current request."""
    if "caller" not in g:
        token = request_token()
        hashed = hashlib.sha256(token.encode()).digest() if token else None
        g.caller = Caller(hashed, hashed is not None and is_bootstrap(hashed))
    current: Caller = g.caller
    return current


def request_token() -> str | None:
    """Return the request's bearer token or, for pages in a browser, the password of HTTP Basic."""
    credentials = request.authorization
    if credentials is None:
        return None
    if credentials.type == "bearer":
        return credentials.token
    return credentials.password if credentials.type == "basic" else None


def is_bootstrap(hashed: bytes) -> bool:
    """Return whether this is the SHA-256 of the bootstrap token."""
    settings: Settings = current_app.extensions["settings"]
    secret = settings.admin_token()
    return secret is not None and hmac.compare_digest(hashlib.sha256(secret.encode()).digest(), hashed)


class Statement:
    """One SQL statement that returns one text and, where needed, checks the caller's token in the same round trip.

    `select` is a scalar subquery. `tables` are the common table expressions before it; those that write must do so only
    where `allowed` has a row. `service` is an SQL expression for the id of the service being written. `prepared` is
    passed on to Query.
    """

    def __init__(self, scope: str, select: str, tables: str = "", service: str | None = None, prepared: bool = False):
        self.scope = scope
        limit = f"service_id IS NULL OR service_id = {service}" if service else "true"
        tables = f", {tables}" if tables else ""
        self.open = Query(f"WITH allowed AS (SELECT 1) {tables} SELECT ({select})", prepared)
        guarded = f"""
            WITH token AS MATERIALIZED (
                SELECT id, scope, service_id, last_used_at FROM api_tokens
                WHERE hash = :token_hash AND revoked_at IS NULL
                    AND (expires_at IS NULL OR expires_at > statement_timestamp())
            ), allowed AS MATERIALIZED (
                SELECT 1 FROM token
                WHERE scope IN ({SCOPES[scope]}) AND ({limit})
            ) {tables}
            SELECT (SELECT id FROM token), EXISTS (SELECT FROM allowed),
                (SELECT coalesce(last_used_at < now() - interval '1 minute', true) FROM token),
                CASE WHEN EXISTS (SELECT FROM allowed) THEN ({select}) END
        """
        self.guarded = Query(guarded, prepared)

    @property
    def private(self) -> bool:
        """Whether running this needs a token."""
        settings: Settings = current_app.extensions["settings"]
        return self.scope != "read" or settings.api_reads == "private"

    def run(self, values: dict[str, Any] | None = None, cursor: DBAPICursor | None = None) -> str | None:
        """Run the statement and return its text, or None if it selected nothing.

        Raises:
            ProblemError: 401 without a valid token, 403 if the token's scope or service does not allow this.
        """
        if cursor is None:
            with autocommit() as own:
                return self.run(values, own)
        if not self.private or caller().trusted:
            free: str | None = self.open.scalar(cursor, values)
            return self._noted(free, cursor)
        if caller().hash is None:
            raise unauthorized("This needs a token.")
        self.guarded.run(cursor, {**(values or {}), "token_hash": caller().hash})
        identifier, allowed, stale, content = cursor.fetchall()[0]
        if identifier is None:
            raise unauthorized("The token is unknown, expired or revoked.")
        if not allowed:
            raise ProblemError(403, f"The token's scope or service does not allow this; it takes `{self.scope}`.")
        result = self._noted(content, cursor)
        if stale:
            touch(cursor, identifier)
        return result

    def _noted(self, content: str | None, cursor: DBAPICursor) -> str | None:
        """Return the content, having noted that an autocommitted write has changed something."""
        if content is not None and self.scope != "read" and cursor.connection.autocommit:
            note_change()
        return content


def touch(cursor: DBAPICursor, identifier: int) -> None:
    """Record a token's use. The request's own work is complete by then, so a failure here is only logged."""
    try:
        TOUCH.run(cursor, {"id": identifier})
    except psycopg2.Error as error:
        if not cursor.connection.autocommit:  # the error has aborted the request's transaction too
            raise
        logger.warning("a token's use was not noted", extra={"reason": first_line(error)})


def unauthorized(detail: str) -> ProblemError:
    """Return a 401 problem that says how to authenticate."""
    # Basic makes a browser prompt for a password; API clients use bearer tokens.
    scheme = "Bearer" if request.path.startswith("/api/") else 'Basic realm="flaskapp: any name, the token as password"'
    return ProblemError(401, f"{detail} {HINT}", headers={"WWW-Authenticate": scheme})
