"""The four metrics, compared with a slow and obvious calculation on the same rows."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from statistics import quantiles
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from flaskapp.models import uuid7
from tests.service.conftest import decoded
from tests.service.test_deployments import post

MINUTE = timedelta(minutes=1)
START = datetime(2026, 3, 28, 22, tzinfo=UTC)  # Europe's clocks go forward on the 29th


@dataclass
class Attempt:
    service: str
    status: str
    finished: datetime
    lasted: timedelta
    lead: timedelta | None
    rollback: bool
    broke: timedelta | None
    restored: timedelta | None
    id: UUID


def attempts() -> st.SearchStrategy[list[Attempt]]:
    minutes = st.integers(0, 2 * 24 * 60).map(lambda n: n * MINUTE)
    one = st.builds(
        Attempt,
        service=st.sampled_from(["a", "b"]),
        status=st.sampled_from(["succeeded", "succeeded", "failed", "rolled_back"]),
        finished=minutes.map(lambda d: START + d),
        lasted=st.integers(0, 60).map(lambda n: n * MINUTE),
        lead=st.none() | minutes,
        rollback=st.booleans(),
        broke=st.none() | st.integers(0, 100).map(lambda n: n * MINUTE),
        restored=st.none() | st.integers(0, 100).map(lambda n: n * MINUTE),
        id=st.builds(uuid7),
    )
    # Two attempts that end at the same time would make "the next" ambiguous.
    return st.lists(one, max_size=12, unique_by=lambda a: (a.service, a.finished))


def percentiles(seconds: list[float]) -> dict[str, Any]:
    if not seconds:
        return {"count": 0, "median": None, "p90": None}
    cuts = quantiles(seconds, n=10, method="inclusive") if len(seconds) > 1 else seconds * 9
    return {"count": len(seconds), "median": pytest.approx(cuts[4]), "p90": pytest.approx(cuts[8])}


def reckon(rows: list[Attempt], first: date, last: date, zone: ZoneInfo, service: str | None) -> dict[str, Any]:
    """Calculate row by row, literally as defined."""
    mine = [a for a in rows if service in (None, a.service)]
    ended = [a for a in mine if first <= a.finished.astimezone(zone).date() <= last]
    changes = [a for a in ended if not a.rollback]
    successes = [a for a in ended if a.status == "succeeded"]
    recoveries: list[float | None] = []
    failed = 0
    for a in changes:
        report = a.finished + a.broke if a.status == "succeeded" and a.broke is not None else None
        if a.status == "succeeded" and report is None:
            continue
        failed += 1
        if a.status == "rolled_back":
            recoveries.append(a.lasted.total_seconds())
            continue
        if report and a.restored is not None:
            recoveries.append(a.restored.total_seconds())
            continue
        since = report or a.finished
        later = [b.finished for b in rows if b.service == a.service and b.status == "succeeded" and b.finished > since]
        recoveries.append((min(later) - since).total_seconds() if later else None)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    on = {day: [a for a in ended if a.finished.astimezone(zone).date() == day] for day in days}
    leads = [a.lead.total_seconds() for a in changes if a.status == "succeeded" and a.lead is not None]
    return {
        "deployments": len(successes),
        "deployments_per_day": pytest.approx(len(successes) / len(days), abs=0.001),
        "lead_time": percentiles(leads),
        "change_failure_rate": {
            "changes": len(changes),
            "failed": failed,
            "rate": pytest.approx(failed / len(changes), abs=0.0001) if changes else None,
        },
        "recovery_time": percentiles([r for r in recoveries if r is not None]),
        "unrecovered": recoveries.count(None),
        "daily": [
            {
                "day": str(day),
                "succeeded": sum(a.status == "succeeded" for a in on[day]),
                "failed": sum(a.status != "succeeded" for a in on[day]),
            }
            for day in days
        ],
    }


def store(connection: Connection, rows: list[Attempt]) -> None:
    connection.execute(text("INSERT INTO environments (name, position) VALUES ('prod', 1)"))
    connection.execute(text("INSERT INTO services (name) VALUES ('a'), ('b')"))
    first = uuid7()
    insert = text("""
        INSERT INTO deployments (id, service_id, environment_id, version, status, committed_at, started_at, finished_at,
                                 rollback_of)
        SELECT :id, s.id, e.id, '1', :status, :committed, :started, :finished, CAST(:of AS uuid)
        FROM services s, environments e WHERE s.name = :service AND e.name = 'prod'
    """)
    old = datetime(2025, 1, 1, tzinfo=UTC)
    one = {"id": first, "status": "succeeded", "committed": None, "started": old, "finished": old, "service": "a"}
    connection.execute(insert, {**one, "of": None})
    for a in rows:
        values = {
            "id": a.id,
            "status": a.status,
            "committed": a.finished - a.lead if a.lead is not None else None,
            "started": a.finished - a.lasted,
            "finished": a.finished,
            "of": first if a.rollback else None,
            "service": a.service,
        }
        connection.execute(insert, values)
        if a.status == "succeeded" and a.broke is not None:
            broke = a.finished + a.broke
            report = text("INSERT INTO failures (id, deployment_id, failed_at, restored_at) VALUES (:i, :d, :f, :r)")
            restored = broke + a.restored if a.restored is not None else None
            connection.execute(report, {"i": uuid7(), "d": a.id, "f": broke, "r": restored})


ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Kiritimati", "America/St_Johns"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attempts(),
    st.sampled_from(ZONES),
    st.none() | st.just("a"),
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_as_reckoned_by_hand(
    client: FlaskClient,
    connection: Connection,
    rows: list[Attempt],
    zone: str,
    service: str | None,
    skipped: int,
    length: int,
) -> None:
    first = date(2026, 3, 28) + timedelta(days=skipped)
    last = first + timedelta(days=length)
    savepoint = connection.begin_nested()
    try:
        store(connection, rows)
        query = {"environment": "prod", "from": first, "to": last, "tz": zone, "service": service}
        answer = decoded(client.get("/api/v1/dora", query_string={k: v for k, v in query.items() if v}))
        expected = reckon(rows, first, last, ZoneInfo(zone), service)
        assert {name: answer[name] for name in expected} == expected
    finally:
        savepoint.rollback()


@pytest.mark.parametrize(
    ("moment", "zone", "day"),
    [
        ("2026-03-28T22:59:59Z", "Europe/Berlin", "2026-03-28"),
        ("2026-03-28T23:00:00Z", "Europe/Berlin", "2026-03-29"),
        ("2026-03-29T21:59:59Z", "Europe/Berlin", "2026-03-29"),  # a day of 23 hours
        ("2026-03-29T22:00:00Z", "Europe/Berlin", "2026-03-30"),
        ("2026-03-28T23:30:00Z", "UTC", "2026-03-28"),
        ("2025-11-02T05:30:00Z", "America/New_York", "2025-11-02"),  # 01:30 twice
        ("2025-11-02T06:30:00Z", "America/New_York", "2025-11-02"),
    ],
)
def test_days_are_the_zones_own(client: FlaskClient, moment: str, zone: str, day: str) -> None:
    post(client, status="succeeded", finished_at=moment)
    query = {"environment": "staging", "from": "2025-10-01", "to": "2026-04-30", "tz": zone}
    daily = decoded(client.get("/api/v1/dora", query_string=query))["daily"]
    assert [item["day"] for item in daily if item["succeeded"]] == [day]


def test_thirty_days_by_default(client: FlaskClient) -> None:
    post(client, status="succeeded")
    answer = decoded(client.get("/api/v1/dora?environment=staging"))
    assert len(answer["daily"]) == 30
    assert answer["daily"][-1] == {"day": str(datetime.now(UTC).date()), "succeeded": 1, "failed": 0}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("environment=staging&tz=Mars/Olympus", 422),
        ("environment=staging&tz=../UTC", 422),
        ("environment=staging&tz=EST5EDT4,M3.2.0,M11.1.0", 422),
        ("environment=staging&from=2026-02-30", 422),
        ("environment=staging&from=0001-01-01", 422),
        ("environment=staging&from=99999-01-01", 422),
        ("environment=staging&from=2026-01-02&to=2026-01-01", 422),
        ("environment=staging&from=2024-01-01&to=2026-01-01", 422),
        ("environment=staging&from=2001-01-01", 422),
        ("environment=none", 404),
        ("environment=staging&service=none", 404),
    ],
)
def test_bad_question(client: FlaskClient, query: str, status: int) -> None:
    post(client)
    assert client.get(f"/api/v1/dora?{query}").status_code == status
