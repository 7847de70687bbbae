"""Services: what of them runs where."""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from flask import Response
from flask_openapi3.models.tag import Tag
from sqlalchemy import text

from flaskapp.api.blueprint import ApiBlueprint, json_response
from flaskapp.api.deployments import COLUMNS, JOINED
from flaskapp.api.schemas import ServiceList, ServicePath, ServiceState
from flaskapp.database import reading
from flaskapp.problems import ProblemDetails, ProblemError

api = ApiBlueprint("services")
tags = [Tag(name="services", description=__doc__ or "")]

LIST = text("SELECT json_build_object('items', coalesce(json_agg(name ORDER BY name), '[]'))::text FROM services")

# One index lookup for each environment and question, however long the history.
STATE = text(f"""
    SELECT json_build_object('service', service.name, 'environments', coalesce((
        SELECT json_agg(json_build_object('environment', environment.name, 'current', current.j, 'latest', latest.j)
                        ORDER BY environment.position, environment.id)
        FROM environments environment
        CROSS JOIN LATERAL (
            SELECT row_to_json(r) AS j FROM (
                SELECT {COLUMNS} FROM deployments d {JOINED}
                WHERE d.service_id = service.id AND d.environment_id = environment.id
                ORDER BY d.started_at DESC, d.id DESC LIMIT 1
            ) r
        ) latest
        LEFT JOIN LATERAL (
            SELECT row_to_json(r) AS j FROM (
                SELECT {COLUMNS} FROM deployments d {JOINED}
                WHERE d.service_id = service.id AND d.environment_id = environment.id AND d.status = 'succeeded'
                ORDER BY d.finished_at DESC, d.id DESC LIMIT 1
            ) r
        ) current ON true
    ), '[]'))::text FROM services service WHERE service.name = :name
""")


@api.get("/services", tags=tags, responses={200: ServiceList})
def index() -> Response:
    """The names of all services."""
    with reading() as connection:
        return json_response(connection.execute(LIST).scalar_one())


@api.get("/services/<name>", tags=tags, responses={200: ServiceState, 404: ProblemDetails})
def show(path: ServicePath) -> Response:
    """What of a service runs in each environment."""
    with reading() as connection:
        content = connection.scalar(STATE, {"name": path.name})
    if content is None:
        raise ProblemError(404, "There is no such service.")
    return json_response(content)
