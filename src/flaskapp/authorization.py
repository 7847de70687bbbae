"""Who may do what: bearer tokens, checked in the request's own statement, so that a revoked one fails at once.

Reads are public unless API_READS is `private`; writing takes a token of scope `write` or `admin`. A token limited to
one service may write that one only. The bootstrap token (API_ADMIN_TOKEN, or the file that API_ADMIN_TOKEN_FILE names)
is compared in this process and may do everything.
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

# ruff: noqa: S608 - statements are put together from constants; values are always bound

logger = logging.getLogger(__name__)

SCOPES = {"read": "'read', 'write', 'admin'", "write": "'write', 'admin'", "admin": "'admin'"}
HINT = "Make one with `flaskapp token create`, or set API_ADMIN_TOKEN_FILE."
TRUSTED = hashlib.sha256(b"").digest()  # stands for whoever needs no token of the table

TOUCH = Query("UPDATE api_tokens SET last_used_at = now() WHERE id = :id")


@dataclass(frozen=True)
class Caller:
    """`hash` of the token that came with the request, if one did."""

    hash: bytes | None
    trusted: bool = False

    @property
    def identity(self) -> bytes:
        return self.hash or TRUSTED


def caller() -> Caller:
    if "caller" not in g:
        token = request_token()
        hashed = hashlib.sha256(token.encode()).digest() if token else None
        g.caller = Caller(hashed, hashed is not None and is_bootstrap(hashed))
    current: Caller = g.caller
    return current


def request_token() -> str | None:
    """A bearer token; or, for pages in a browser, the password of HTTP Basic."""
    credentials = request.authorization
    if credentials is None:
        return None
    if credentials.type == "bearer":
        return credentials.token
    return credentials.password if credentials.type == "basic" else None


def is_bootstrap(hashed: bytes) -> bool:
    settings: Settings = current_app.extensions["settings"]
    secret = settings.admin_token()
    return secret is not None and hmac.compare_digest(hashlib.sha256(secret.encode()).digest(), hashed)


class Statement:
    """One SQL statement that gives one text, and judges the caller's token at the same time where that is needed.

    `select` is a scalar subquery; `tables` are the common table expressions before it, which change something only
    where `allowed` has a row. `service` is an expression for the id of the service that is written; `prepared` is
    Query's.
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
        settings: Settings = current_app.extensions["settings"]
        return self.scope != "read" or settings.api_reads == "private"

    def run(self, values: dict[str, Any] | None = None, cursor: DBAPICursor | None = None) -> str | None:
        """The text, or None where there is none; raises a problem where the caller may not have it."""
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
        """The content; a statement of its own that wrote it has changed something, whatever the request meets later."""
        if content is not None and self.scope != "read" and cursor.connection.autocommit:
            note_change()
        return content


def touch(cursor: DBAPICursor, identifier: int) -> None:
    """Note a token's use. What the request asked for is done by then, and does not fail for this."""
    try:
        TOUCH.run(cursor, {"id": identifier})
    except psycopg2.Error as error:
        if not cursor.connection.autocommit:  # it broke the transaction too
            raise
        logger.warning("a token's use was not noted", extra={"reason": first_line(error)})


def unauthorized(detail: str) -> ProblemError:
    # A browser asks for a password on Basic; programs are told of bearer tokens.
    scheme = "Bearer" if request.path.startswith("/api/") else 'Basic realm="flaskapp: any name, the token as password"'
    return ProblemError(401, f"{detail} {HINT}", headers={"WWW-Authenticate": scheme})
