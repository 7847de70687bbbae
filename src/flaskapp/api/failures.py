"""Failure reports: a deployment that succeeded and broke later, and when service was restored."""

from flask import Response, url_for
from flask_openapi3.models.tag import Tag

from flaskapp.api.blueprint import ApiBlueprint, json_response
from flaskapp.api.deployments import existing
from flaskapp.api.schemas import DeploymentPath, Failure, FailureList, FailurePath, NewFailure, Restore
from flaskapp.authorization import Statement
from flaskapp.models import uuid7
from flaskapp.problems import BROKEN_RULE, ProblemError, described

# ruff: noqa: S608 - statements are assembled from constants; values are always bound

tags = [Tag(name="failures", description=__doc__ or "")]
api = ApiBlueprint("failures", tags)

COLUMNS = "f.id, f.deployment_id AS deployment, f.failed_at, f.restored_at, f.summary, f.link"
CHANGED = f"SELECT row_to_json(r)::text FROM (SELECT {COLUMNS} FROM f) r"

REPORT = Statement(
    "write",
    CHANGED,
    tables="""f AS (
        INSERT INTO failures (id, deployment_id, failed_at, restored_at, summary, link)
        SELECT :new, d.id, coalesce(:failed_at, statement_timestamp()), :restored_at, :summary, :link
        FROM deployments d, allowed
        WHERE d.id = :id AND d.status = 'succeeded' AND d.finished_at <= coalesce(:failed_at, statement_timestamp())
        RETURNING *
    )""",
    service="(SELECT service_id FROM deployments WHERE id = :id)",
)
LIST = Statement(
    "read",
    f"""SELECT json_build_object('items', coalesce(json_agg(r), '[]'))::text FROM (
        SELECT {COLUMNS} FROM failures f WHERE f.deployment_id = :id ORDER BY f.failed_at, f.id
    ) r""",
)
GET = Statement("read", f"SELECT row_to_json(r)::text FROM (SELECT {COLUMNS} FROM failures f WHERE f.id = :id) r")
RESTORE = Statement(
    "write",
    CHANGED,
    tables="""f AS (
        UPDATE failures SET restored_at = coalesce(:restored_at, statement_timestamp())
        FROM allowed WHERE id = :id AND restored_at IS NULL RETURNING failures.*
    )""",
    service="(SELECT d.service_id FROM deployments d JOIN failures f ON f.deployment_id = d.id WHERE f.id = :id)",
)


@api.post("/deployments/<id>/failures", responses={201: Failure, **described(404, 409, 413, 415)})
def report(path: DeploymentPath, body: NewFailure) -> Response:
    """Report that a deployment broke after it had succeeded; one report at a time is open."""
    new = uuid7()
    content = REPORT.run({"id": path.id, "new": new, **body.model_dump()})
    if content is None:
        existing(path.id)
        rule = "the deployment must have succeeded, and before that"
        raise ProblemError(422, BROKEN_RULE, [("body.failed_at", rule)])
    return json_response(content, 201, Location=url_for("failures.show", id=new))


@api.get("/deployments/<id>/failures", responses={200: FailureList, **described(404)})
def index(path: DeploymentPath) -> Response:
    """The failure reports of a deployment, the oldest first."""
    existing(path.id)
    return json_response(LIST.run({"id": path.id}))


@api.get("/failures/<id>", responses={200: Failure, **described(404)})
def show(path: FailurePath) -> Response:
    """One failure report."""
    return json_response(existing_report(path))


def existing_report(path: FailurePath) -> str:
    """Return a failure report as JSON.

    Raises:
        ProblemError: 404, there is none with this id.
    """
    content = GET.run({"id": path.id})
    if content is None:
        raise ProblemError(404, "There is no such failure report.")
    return content


@api.patch("/failures/<id>", responses={200: Failure, **described(404, 409, 413, 415)})
def restore(path: FailurePath, body: Restore) -> Response:
    """Record when service was restored; repeating the same time changes nothing."""
    content = RESTORE.run({"id": path.id, **body.model_dump()})
    if content is None:
        content = existing_report(path)
        recorded = Failure.model_validate_json(content).restored_at
        if body.restored_at and body.restored_at != recorded:
            raise ProblemError(409, f"Service was restored already, at {recorded}.")
    return json_response(content)
