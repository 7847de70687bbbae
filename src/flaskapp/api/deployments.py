"""Deployments: one row for each attempt to put a version of a service into an environment."""

import hashlib
from functools import cache
from typing import Any
from uuid import UUID

from flask import Response, request, url_for
from flask_openapi3.models.tag import Tag
from sqlalchemy.engine.interfaces import DBAPICursor

from flaskapp.api.blueprint import ApiBlueprint, json_response
from flaskapp.api.cursors import Cursor
from flaskapp.api.schemas import (
    PAGE,
    Deployment,
    DeploymentPage,
    DeploymentPath,
    DeploymentQuery,
    Finish,
    IdempotencyHeader,
    NewDeployment,
)
from flaskapp.authorization import Statement, caller
from flaskapp.database import transaction
from flaskapp.models import uuid7
from flaskapp.problems import ProblemError, described
from flaskapp.queries import Query

# ruff: noqa: S608 - statements are assembled from constants; values are always bound

tags = [Tag(name="deployments", description=__doc__ or "")]
api = ApiBlueprint("deployments", tags)

# A deployment as the API shows it. PostgreSQL builds the JSON, which is passed on as it is.
COLUMNS = """
    d.id, s.name AS service, e.name AS environment, d.version, d.status, d.commit, d.committed_at, d.digest,
    d.chart_version, d.rollback_of, d.actor, d.link, d.started_at, d.finished_at
"""
JOINED = "JOIN services s ON s.id = d.service_id JOIN environments e ON e.id = d.environment_id"
CHANGED = f"SELECT row_to_json(r)::text FROM (SELECT {COLUMNS} FROM d {JOINED}) r"

GET = Statement(
    "read",
    f"SELECT row_to_json(r)::text FROM (SELECT {COLUMNS} FROM deployments d {JOINED} WHERE d.id = :id) r",
    prepared=True,
)

# The service and the environment must exist; otherwise nothing is inserted.
RECORD = Statement(
    "write",
    CHANGED,
    tables="""d AS (
        INSERT INTO deployments (id, service_id, environment_id, version, commit, committed_at, digest, chart_version,
                                 status, rollback_of, actor, link, started_at, finished_at)
        SELECT :id, s.id, e.id, :version, :commit, :committed_at, :digest, :chart_version,
               :status, :rollback_of, :actor, :link, coalesce(:started_at, :finished_at, statement_timestamp()),
               CASE WHEN :status <> 'started' THEN coalesce(:finished_at, statement_timestamp()) END
        FROM services s, environments e, allowed WHERE s.name = :service AND e.name = :environment
        RETURNING *
    )""",
    service="(SELECT id FROM services WHERE name = :service)",
    prepared=True,
)
ADD_SERVICE = Query("INSERT INTO services (name) VALUES (:service) ON CONFLICT DO NOTHING")
ADD_ENVIRONMENT = Query("""
    INSERT INTO environments (name, position) SELECT :environment, coalesce(max(position), 0) + 1 FROM environments
    ON CONFLICT DO NOTHING
""")

FINISH = Statement(
    "write",
    CHANGED,
    tables="""d AS (
        UPDATE deployments SET status = :status, finished_at = coalesce(:finished_at, statement_timestamp())
        FROM allowed WHERE id = :id AND status = 'started' RETURNING deployments.*
    )""",
    service="(SELECT service_id FROM deployments WHERE id = :id)",
)

# An answer is kept for a day, for its caller only.
KEY_LOCK = Query("SELECT pg_try_advisory_xact_lock(:lock)")
KEY_FOUND = Statement(
    "write",
    """SELECT encode(fingerprint, 'hex') || answer FROM idempotency_keys
       WHERE caller = :caller AND key = :key AND created_at > now() - interval '1 day'""",
)
KEY_KEEP = Query("""
    INSERT INTO idempotency_keys (caller, key, fingerprint, answer) VALUES (:caller, :key, :fingerprint, :answer)
    ON CONFLICT (caller, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = now()
""")


@api.post("/deployments", responses={201: Deployment, **described(409, 413, 415)})
def record(header: IdempotencyHeader, body: NewDeployment) -> Response:
    """Record a deployment as it starts, or as it ended.

    With an `Idempotency-Key`, the same request sent again within a day gets the same answer and adds nothing.
    """
    values = {**body.model_dump(), "id": uuid7()}
    if header.idempotency_key is None:
        content = RECORD.run(values) or with_new_names(values)
    else:
        content = once(header.idempotency_key, values)
    identifier = Deployment.model_validate_json(content).id if header.idempotency_key else values["id"]
    return json_response(content, 201, Location=url_for("deployments.show", id=identifier))


def with_new_names(values: dict[str, Any], cursor: DBAPICursor | None = None) -> str:
    """Add the service and the environment where they are new, then the deployment; return its JSON."""
    if cursor is None:
        with transaction() as own:
            return with_new_names(values, own)
    ADD_SERVICE.run(cursor, values)
    ADD_ENVIRONMENT.run(cursor, values)
    content = RECORD.run(values, cursor)
    if content is None:
        raise ProblemError(503, "A name was being added by somebody else. Try again.", headers={"Retry-After": "1"})
    return content


def once(key: str, values: dict[str, Any]) -> str:
    """Record the deployment, or return the earlier answer if this caller has used this key before.

    Raises:
        ProblemError: 409, a request with this key is in flight; 422, it was used with another body.
    """
    fingerprint = hashlib.sha256(request.get_data()).digest()
    own_key = {"caller": caller().identity, "key": key}
    lock = hashlib.sha256(own_key["caller"] + key.encode()).digest()[:8]  # type: ignore[operator]
    with transaction() as cursor:
        if not KEY_LOCK.scalar(cursor, {"lock": int.from_bytes(lock, signed=True)}):
            raise ProblemError(409, "A request with this Idempotency-Key is in flight.", headers={"Retry-After": "1"})
        result = KEY_FOUND.run(own_key, cursor)
        if result is None:
            content = RECORD.run(values, cursor) or with_new_names(values, cursor)
            KEY_KEEP.run(cursor, {**own_key, "fingerprint": fingerprint, "answer": content})
            return content
    if result[:64] != fingerprint.hex():
        raise ProblemError(422, "This Idempotency-Key came before with another body.")
    return result[64:]


@api.get("/deployments", responses={200: DeploymentPage})
def index(query: DeploymentQuery) -> Response:
    """Deployments, the newest first; `next` is the cursor of the page after this."""
    return json_response(page(query))


# The condition of each filter, by the query parameter's name.
FILTERS = {
    "service": "s.name = :service",
    "environment": "e.name = :environment",
    "status": "d.status = :status",
    "since": "d.started_at >= :since",
    "until": "d.started_at < :until",
    "cursor": "(d.started_at, d.id) < (:cursor_time, :cursor_id)",
}


def page(query: DeploymentQuery) -> str:
    """Return a page of deployments as JSON."""
    values = query.model_dump(exclude_defaults=True)
    asked = tuple(name for name in (*FILTERS, "limit") if name in values)
    if query.cursor is not None:
        cursor = Cursor.decode(query.cursor)
        values |= {"cursor_time": cursor.time, "cursor_id": cursor.id}
    content = listing(asked).run(values)
    assert content is not None
    return content


@cache
def listing(asked: tuple[str, ...]) -> Statement:
    """Return the statement for a set of parameters; there are 128 sets at most.

    The best plan depends on the parameters' values. Most requests have none and read the newest page, which has a
    constant limit, so that PostgreSQL plans it once.
    """
    where = " AND ".join(FILTERS[name] for name in asked if name in FILTERS) or "true"
    limit = ":limit" if "limit" in asked else str(PAGE)
    return Statement(
        "read",
        f"""
        SELECT json_build_object(
            'items', coalesce(json_agg(r.item) FILTER (WHERE r.number <= {limit}), '[]'),
            'next', max({Cursor.SQL}) FILTER (WHERE r.number = {limit} AND r.more)
        )::text FROM (
            SELECT row_to_json(i) AS item, i.started_at, i.id, row_number() OVER w AS number,
                   lead(true, 1, false) OVER w AS more
            FROM (
                SELECT {COLUMNS} FROM deployments d {JOINED} WHERE {where}
                ORDER BY d.started_at DESC, d.id DESC LIMIT {limit} + 1
            ) i
            WINDOW w AS (ORDER BY i.started_at DESC, i.id DESC)
        ) r
        """,
        prepared=not asked,
    )


@api.get("/deployments/<id>", responses={200: Deployment, **described(404)})
def show(path: DeploymentPath) -> Response:
    """One deployment."""
    return json_response(existing(path.id))


def existing(identifier: UUID) -> str:
    """Return a deployment as JSON.

    Raises:
        ProblemError: 404, there is none with this id.
    """
    content = GET.run({"id": identifier})
    if content is None:
        raise ProblemError(404, "There is no such deployment.")
    return content


@api.patch("/deployments/<id>", responses={200: Deployment, **described(404, 409, 413, 415)})
def finish(path: DeploymentPath, body: Finish) -> Response:
    """Record the outcome of a deployment; repeating the same outcome changes nothing."""
    content = FINISH.run({"id": path.id, **body.model_dump()})
    if content is None:
        content = existing(path.id)
        check_repetition(content, body)
    return json_response(content)


def check_repetition(content: str, body: Finish) -> None:
    """Check that the outcome already recorded is the same.

    Raises:
        ProblemError: 409, it is another one.
    """
    recorded = Deployment.model_validate_json(content)
    if recorded.status != body.status or (body.finished_at and body.finished_at != recorded.finished_at):
        raise ProblemError(409, f"This deployment ended already: {recorded.status} at {recorded.finished_at}.")
