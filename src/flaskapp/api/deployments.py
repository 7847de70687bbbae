"""Deployments: one row for each attempt to put a version of a service into an environment."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from flask import Response, url_for
from flask_openapi3.models.tag import Tag
from sqlalchemy import Connection, text

from flaskapp.api.blueprint import ApiBlueprint, json_response
from flaskapp.api.schemas import Deployment, DeploymentPage, DeploymentPath, DeploymentQuery, Finish, NewDeployment
from flaskapp.database import reading, writing
from flaskapp.models import uuid7
from flaskapp.problems import ProblemDetails, ProblemError

api = ApiBlueprint("deployments")
tags = [Tag(name="deployments", description=__doc__ or "")]

# A deployment as the API shows it. PostgreSQL makes the JSON: no row is taken apart and put together again here.
COLUMNS = """
    d.id, s.name AS service, e.name AS environment, d.version, d.status, d.commit, d.committed_at, d.digest,
    d.chart_version, d.rollback_of, d.actor, d.link, d.started_at, d.finished_at
"""
JOINED = "JOIN services s ON s.id = d.service_id JOIN environments e ON e.id = d.environment_id"

GET = text(f"SELECT row_to_json(r)::text FROM (SELECT {COLUMNS} FROM deployments d {JOINED} WHERE d.id = :id) r")

# The names must be there; where they are not, nothing is inserted.
INSERT = text(f"""
    WITH d AS (
        INSERT INTO deployments (id, service_id, environment_id, version, commit, committed_at, digest, chart_version,
                                 status, rollback_of, actor, link, started_at, finished_at)
        SELECT :id, s.id, e.id, :version, :commit, :committed_at, :digest, :chart_version,
               :status, :rollback_of, :actor, :link, coalesce(:started_at, :finished_at, statement_timestamp()),
               CASE WHEN :status <> 'started' THEN coalesce(:finished_at, statement_timestamp()) END
        FROM services s, environments e WHERE s.name = :service AND e.name = :environment
        RETURNING *
    )
    SELECT row_to_json(r)::text FROM (SELECT {COLUMNS} FROM d {JOINED}) r
""")
ADD_SERVICE = text("INSERT INTO services (name) VALUES (:service) ON CONFLICT DO NOTHING")
ADD_ENVIRONMENT = text("""
    INSERT INTO environments (name, position) SELECT :environment, coalesce(max(position), 0) + 1 FROM environments
    ON CONFLICT DO NOTHING
""")

FINISH = text(f"""
    WITH d AS (
        UPDATE deployments SET status = :status, finished_at = coalesce(:finished_at, statement_timestamp())
        WHERE id = :id AND status = 'started' RETURNING *
    )
    SELECT row_to_json(r)::text FROM (SELECT {COLUMNS} FROM d {JOINED}) r
""")


@api.post("/deployments", tags=tags, responses={201: Deployment, 422: ProblemDetails})
def record(body: NewDeployment) -> Response:
    """Record a deployment as it starts, or as it ended."""
    values = {**body.model_dump(), "id": uuid7()}
    with writing() as connection:
        content = connection.scalar(INSERT, values) or with_new_names(connection, values)
    return json_response(content, 201, Location=url_for("deployments.show", id=values["id"]))


def with_new_names(connection: Connection, values: dict[str, object]) -> str:
    connection.execute(ADD_SERVICE, values)
    connection.execute(ADD_ENVIRONMENT, values)
    content: str = connection.execute(INSERT, values).scalar_one()
    return content


@api.get("/deployments", tags=tags, responses={200: DeploymentPage, 422: ProblemDetails})
def index(query: DeploymentQuery) -> Response:
    """Deployments, the newest first."""
    filters = {"service": "s.name = :service", "environment": "e.name = :environment", "status": "d.status = :status"}
    values = query.model_dump(exclude_none=True)
    where = " AND ".join(filters[name] for name in filters if name in values) or "true"
    statement = text(f"""
        SELECT json_build_object('items', coalesce(json_agg(r), '[]'))::text FROM (
            SELECT {COLUMNS} FROM deployments d {JOINED} WHERE {where}
            ORDER BY d.started_at DESC, d.id DESC LIMIT :limit
        ) r
    """)
    with reading() as connection:
        return json_response(connection.execute(statement, values).scalar_one())


@api.get("/deployments/<id>", tags=tags, responses={200: Deployment, 404: ProblemDetails})
def show(path: DeploymentPath) -> Response:
    """One deployment."""
    with reading() as connection:
        content = connection.scalar(GET, {"id": path.id})
    if content is None:
        raise ProblemError(404, "There is no such deployment.")
    return json_response(content)


@api.patch("/deployments/<id>", tags=tags, responses={200: Deployment, 404: ProblemDetails, 409: ProblemDetails})
def finish(path: DeploymentPath, body: Finish) -> Response:
    """Tell the outcome of a deployment; telling the same one again changes nothing."""
    with writing() as connection:
        content = connection.scalar(FINISH, {"id": path.id, **body.model_dump()})
        if content is None:
            content = connection.scalar(GET, {"id": path.id})
            check_repetition(content, body)
    return json_response(content)


def check_repetition(content: str | None, body: Finish) -> None:
    """The deployment was not waiting for an outcome: it is unknown, or has one."""
    if content is None:
        raise ProblemError(404, "There is no such deployment.")
    recorded = Deployment.model_validate_json(content)
    if recorded.status != body.status or (body.finished_at and body.finished_at != recorded.finished_at):
        raise ProblemError(409, f"This deployment ended already: {recorded.status} at {recorded.finished_at}.")
