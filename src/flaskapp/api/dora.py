"""The four DORA metrics: deployment frequency, lead time, change failure rate and recovery time.

A change is a finished attempt that is not itself a rollback. It failed if it ended so (`failed`, `rolled_back`), or if
a failure report says that it broke later. Service was restored
- after `rolled_back`: when the attempt ended, counted from its start;
- after `failed`: with the next success there;
- after a report: at the time it gives, else with the next success there.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response
from flask_openapi3.models.tag import Tag

from flaskapp.api.blueprint import ApiBlueprint, json_response
from flaskapp.api.schemas import Dora, DoraQuery
from flaskapp.authorization import Statement
from flaskapp.problems import ProblemError, described

# ruff: noqa: S608 - statements are assembled from constants; values are always bound

tags = [Tag(name="dora", description=__doc__ or "")]
api = ApiBlueprint("dora", tags)

DEFAULT_DAYS = 30

TABLES = """
    place AS (SELECT id FROM environments WHERE name = :environment),
    bounds AS (
        SELECT CAST(:from AS date)::timestamp AT TIME ZONE :tz AS since,
               (CAST(:to AS date) + 1)::timestamp AT TIME ZONE :tz AS until
    ),
    ended AS MATERIALIZED (
        SELECT d.id, d.service_id, d.status, d.rollback_of, d.committed_at, d.started_at, d.finished_at
        FROM deployments d, bounds
        WHERE d.environment_id = (SELECT id FROM place) AND d.status <> 'started'
            AND d.finished_at >= bounds.since AND d.finished_at < bounds.until {of_service}
    ),
    changes AS MATERIALIZED (
        SELECT e.*, r.failed_at AS reported_at, r.restored_at,
               e.status <> 'succeeded' OR r.failed_at IS NOT NULL AS failed
        FROM ended e
        LEFT JOIN LATERAL (
            SELECT failed_at, restored_at FROM failures f WHERE f.deployment_id = e.id ORDER BY failed_at LIMIT 1
        ) r ON true
        WHERE e.rollback_of IS NULL
    ),
    recoveries AS (
        SELECT extract(epoch FROM CASE
            WHEN c.status = 'rolled_back' THEN c.finished_at - c.started_at
            WHEN c.restored_at IS NOT NULL THEN c.restored_at - c.reported_at
            ELSE next.finished_at - coalesce(c.reported_at, c.finished_at)
        END) AS seconds
        FROM changes c
        LEFT JOIN LATERAL (
            SELECT d.finished_at FROM deployments d
            WHERE d.service_id = c.service_id AND d.environment_id = (SELECT id FROM place)
                AND d.status = 'succeeded' AND d.finished_at > coalesce(c.reported_at, c.finished_at)
            ORDER BY d.finished_at LIMIT 1
        ) next ON true
        WHERE c.failed
    ),
    leads AS (
        SELECT extract(epoch FROM finished_at - committed_at) AS seconds
        FROM changes WHERE status = 'succeeded' AND committed_at <= finished_at
    ),
    daily AS (
        SELECT (finished_at AT TIME ZONE :tz)::date AS day,
               count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
               count(*) FILTER (WHERE status <> 'succeeded') AS failed
        FROM ended GROUP BY 1
    )
"""
QUARTILES = """json_build_object(
    'count', count(seconds),
    'median', round(percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::numeric, 3),
    'p90', round(percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds)::numeric, 3)
)"""
SELECT = f"""
    SELECT json_build_object(
        'environment', :environment, 'service', CAST(:service AS text),
        'from', CAST(:from AS date), 'to', CAST(:to AS date), 'time_zone', CAST(:tz AS text),
        'deployments', (SELECT count(*) FROM ended WHERE status = 'succeeded'),
        'deployments_per_day', round((SELECT count(*) FROM ended WHERE status = 'succeeded')
                                     / (CAST(:to AS date) - CAST(:from AS date) + 1)::numeric, 3),
        'lead_time', (SELECT {QUARTILES} FROM leads),
        'change_failure_rate', (SELECT json_build_object(
            'changes', count(*), 'failed', count(*) FILTER (WHERE failed), 'rate', round(avg(failed::int), 4)
        ) FROM changes),
        'recovery_time', (SELECT {QUARTILES} FROM recoveries),
        'unrecovered', (SELECT count(*) FROM recoveries WHERE seconds IS NULL),
        'daily', (
            SELECT json_agg(json_build_object('day', g::date, 'succeeded', coalesce(succeeded, 0),
                                              'failed', coalesce(failed, 0)) ORDER BY g)
            FROM generate_series(CAST(:from AS date)::timestamp, CAST(:to AS date)::timestamp, interval '1 day') g
            LEFT JOIN daily ON daily.day = g::date
        )
    )::text FROM place
"""
OF_ENVIRONMENT = Statement("read", SELECT, TABLES.format(of_service=""))
OF_SERVICE = Statement(
    "read",
    f"{SELECT} WHERE EXISTS (SELECT FROM services WHERE name = :service)",
    TABLES.format(of_service="AND d.service_id = (SELECT id FROM services WHERE name = :service)"),
)


@api.get("/dora", responses={200: Dora, **described(404)})
def show(query: DoraQuery) -> Response:
    """The four metrics of an environment, or of one service in it, for a range of days in a time zone."""
    return json_response(figures(query))


def figures(query: DoraQuery) -> str:
    """Return the metrics as JSON: durations in seconds, days in the query's time zone, by default the last 30.

    Raises:
        ProblemError: 404, there is no such environment or service.
    """
    to = query.to or datetime.now(UTC).astimezone(ZoneInfo(query.tz)).date()
    start = query.from_ or to - timedelta(days=DEFAULT_DAYS - 1)
    values: dict[str, Any] = {
        "environment": query.environment,
        "service": query.service,
        "from": start,
        "to": to,
        "tz": query.tz,
    }
    content = (OF_SERVICE if query.service else OF_ENVIRONMENT).run(values)
    if content is None:
        raise ProblemError(404, "There is no such environment or service.")
    return content
