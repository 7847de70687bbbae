"""Services and environments: what runs where, and how two environments differ."""

from flask import Response
from flask_openapi3.models.tag import Tag

from flaskapp.api.blueprint import ApiBlueprint, json_response
from flaskapp.api.deployments import COLUMNS, JOINED
from flaskapp.api.schemas import (
    Diff,
    DiffQuery,
    EnvironmentList,
    EnvironmentOrder,
    Overview,
    ServiceList,
    ServicePath,
    ServiceState,
)
from flaskapp.authorization import Statement
from flaskapp.problems import BROKEN_RULE, ProblemError, described

# ruff: noqa: S608 - statements are assembled from constants; values are always bound

tags = [Tag(name="services", description=__doc__ or "")]
api = ApiBlueprint("services", tags)

LIST = Statement(
    "read", "SELECT json_build_object('items', coalesce(json_agg(name ORDER BY name), '[]'))::text FROM services"
)
ENVIRONMENTS = Statement(
    "read",
    "SELECT json_build_object('items', coalesce(json_agg(name ORDER BY position, id), '[]'))::text FROM environments",
)
# All or nothing: a missing, repeated or unknown name leaves the order unchanged.
ORDER = Statement(
    "admin",
    "SELECT 'done' FROM e LIMIT 1",
    tables="""requested AS (
        SELECT name, position FROM unnest(CAST(:order AS text[])) WITH ORDINALITY AS o (name, position)
    ), e AS (
        UPDATE environments e SET position = requested.position FROM requested, allowed
        WHERE e.name = requested.name
            AND (SELECT array_agg(name ORDER BY name) FROM requested)
                = (SELECT array_agg(name ORDER BY name) FROM environments)
        RETURNING e.id
    )""",
)

# The newest success, and the newest attempt: one index lookup each, however long the history.
CURRENT = f"""
    SELECT {COLUMNS} FROM deployments d {JOINED}
    WHERE d.service_id = service.id AND d.environment_id = environment.id AND d.status = 'succeeded'
    ORDER BY d.finished_at DESC, d.id DESC LIMIT 1
"""
LATEST = f"""
    SELECT {COLUMNS} FROM deployments d {JOINED}
    WHERE d.service_id = service.id AND d.environment_id = environment.id
    ORDER BY d.started_at DESC, d.id DESC LIMIT 1
"""
STATES = f"""
    SELECT coalesce(json_agg(
        json_build_object('environment', environment.name,
                          'current', row_to_json(current), 'latest', row_to_json(latest))
        ORDER BY environment.position, environment.id
    ), '[]')
    FROM environments environment
    CROSS JOIN LATERAL ({LATEST}) latest
    LEFT JOIN LATERAL ({CURRENT}) current ON true
"""
STATE = Statement(
    "read",
    f"""SELECT json_build_object('service', service.name, 'environments', ({STATES}))::text
        FROM services service WHERE service.name = :name""",
)
OVERVIEW = Statement(
    "read",
    f"""SELECT json_build_object(
        'environments', (SELECT coalesce(json_agg(name ORDER BY position, id), '[]') FROM environments),
        'services', coalesce(json_agg(
            json_build_object('service', service.name, 'environments', ({STATES})) ORDER BY service.name
        ), '[]')
    )::text FROM services service""",
)
DIFF = Statement(
    "read",
    f"""SELECT CASE WHEN count(DISTINCT environment.name) = cardinality(CAST(:names AS text[])) THEN (
        SELECT json_build_object('items', coalesce(json_agg(json_build_object(
            'service', service.name,
            'from', row_to_json(source), 'to', row_to_json(target),
            'same', (source.version, source.digest) IS NOT DISTINCT FROM (target.version, target.digest)
        ) ORDER BY service.name), '[]'))::text
        FROM services service
        LEFT JOIN LATERAL ({CURRENT.replace("environment.id", "(SELECT id FROM environments WHERE name = :from)")})
            source ON true
        LEFT JOIN LATERAL ({CURRENT.replace("environment.id", "(SELECT id FROM environments WHERE name = :to)")})
            target ON true
        WHERE source.id IS NOT NULL OR target.id IS NOT NULL
    ) END FROM environments environment WHERE environment.name = ANY(:names)""",
)


@api.get("/services", responses={200: ServiceList})
def index() -> Response:
    """The names of all services."""
    return json_response(LIST.run())


@api.get("/services/<name>", responses={200: ServiceState, **described(404)})
def show(path: ServicePath) -> Response:
    """What of a service runs in each environment that it was ever deployed to."""
    return json_response(state(path.name))


def state(name: str) -> str:
    """Return what of a service runs where, as JSON.

    Raises:
        ProblemError: 404, there is no such service.
    """
    content = STATE.run({"name": name})
    if content is None:
        raise ProblemError(404, "There is no such service.")
    return content


@api.get("/overview", responses={200: Overview})
def overview() -> Response:
    """What runs where: every service in every environment."""
    return json_response(OVERVIEW.run())


@api.get("/environments", responses={200: EnvironmentList})
def environments() -> Response:
    """The environments, in the order in which a release travels."""
    return json_response(ENVIRONMENTS.run())


@api.put("/environments", responses={200: EnvironmentList, **described(413, 415)})
def order(body: EnvironmentOrder) -> Response:
    """Order the environments; each must be named once. New ones come last by themselves."""
    if ORDER.run({"order": body.items}) is None:
        raise ProblemError(422, BROKEN_RULE, [("body.items", "must name every environment once")])
    return json_response(ENVIRONMENTS.run())


@api.get("/diff", responses={200: Diff, **described(404)})
def diff(query: DiffQuery) -> Response:
    """Which services differ between two environments: by version, or by image."""
    return json_response(difference(query))


def difference(query: DiffQuery) -> str:
    """Return the differences between two environments as JSON.

    Raises:
        ProblemError: 404, there is no such environment.
    """
    names = sorted({query.from_, query.to})
    content = DIFF.run({"from": query.from_, "to": query.to, "names": names})
    if content is None:
        raise ProblemError(404, "There is no such environment.")
    return content
