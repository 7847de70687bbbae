"""Pages, repeated requests, failure reports, states and differences."""

import base64
import hashlib
import json
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from flaskapp.api import services
from flaskapp.api.cursors import Cursor
from flaskapp.database import command_engine
from flaskapp.logs import JsonFormatter
from flaskapp.problems import ProblemError
from flaskapp.settings import Settings
from tests.postgres import Database
from tests.service.conftest import ADMIN, Server, decoded
from tests.service.test_deployments import MINIMAL, post

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS, st.uuids())
def test_cursor_round_trip(moment: datetime, identifier: UUID) -> None:
    assert Cursor.decode(Cursor(moment, identifier).encode()) == Cursor(moment, identifier)


@given(st.text(max_size=64) | st.binary(max_size=48).map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_any_other_cursor_is_refused_or_harmless(text: str) -> None:
    with suppress(ProblemError):
        cursor = Cursor.decode(text)
        assert Cursor.decode(cursor.encode()) == cursor


def test_pages_survive_inserts(client: FlaskClient) -> None:
    """Rows added while a client reads the pages neither repeat nor hide any."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    # Every time twice, so that the order depends on the id too.
    expected = {post(client, started_at=(start + timedelta(hours=n // 2)).isoformat())["id"] for n in range(7)}
    seen: list[str] = []
    cursor = ""
    while True:
        answer = decoded(client.get(f"/api/v1/deployments?limit=3{cursor}"))
        seen += [item["id"] for item in answer["items"]]
        post(client, started_at=(start + timedelta(days=1)).isoformat())
        if answer["next"] is None:
            break
        cursor = f"&cursor={answer['next']}"
    assert len(seen) == 7
    assert set(seen) == expected


def test_last_page_has_no_next(client: FlaskClient) -> None:
    for _ in range(2):
        post(client)
    assert decoded(client.get("/api/v1/deployments?limit=2"))["next"] is None
    page = decoded(client.get("/api/v1/deployments?limit=1"))
    last = decoded(client.get(f"/api/v1/deployments?limit=1&cursor={page['next']}"))
    assert (len(last["items"]), last["next"]) == (1, None)


@pytest.mark.parametrize("cursor", ["x", "é", "A" * 31, "A" * 33, "f" + "_" * 31, "%00"])
def test_bad_cursor_is_named(client: FlaskClient, cursor: str) -> None:
    answer = client.get(f"/api/v1/deployments?cursor={cursor}")
    assert answer.status_code == 422
    assert decoded(answer)["errors"][0]["field"] == "query.cursor"


def test_range_of_time(client: FlaskClient) -> None:
    for hour in (1, 2, 3):
        post(client, started_at=f"2026-01-01T0{hour}:00:00Z", version=str(hour))
    query = {"since": "2026-01-01T03:00:00+01:00", "until": "2026-01-01T03:00:00Z"}
    assert [i["version"] for i in decoded(client.get("/api/v1/deployments", query_string=query))["items"]] == ["2"]


def keyed(client: FlaskClient, key: str, **fields: Any) -> Any:
    return client.post("/api/v1/deployments", json={**MINIMAL, **fields}, headers={"Idempotency-Key": key})


def test_same_key_same_answer(client: FlaskClient) -> None:
    first = keyed(client, "k")
    assert first.status_code == 201
    client.patch(first.headers["Location"], json={"status": "failed"})
    again = keyed(client, "k")
    assert (again.status_code, again.json, again.headers["Location"]) == (201, first.json, first.headers["Location"])
    assert keyed(client, "k", version="2").status_code == 422
    assert keyed(client, "other").json["id"] != first.json["id"]
    assert len(decoded(client.get("/api/v1/deployments"))["items"]) == 2


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb"])
def test_bad_key_is_named(client: FlaskClient, key: str) -> None:
    answer = keyed(client, key)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"] == "header.Idempotency-Key"


def test_a_refused_request_leaves_its_key_free(client: FlaskClient) -> None:
    assert keyed(client, "k", rollback_of=str(uuid4())).status_code == 422
    assert keyed(client, "k").status_code == 201


def test_a_key_in_flight_is_409(client: FlaskClient, database: Database) -> None:
    """The advisory lock that a request with this key holds until it has been answered."""
    digest = hashlib.sha256(hashlib.sha256(ADMIN.encode()).digest() + b"k").digest()
    engine = command_engine(Settings.from_environment(database.environment))
    with engine.begin() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int.from_bytes(digest[:8], signed=True)})
        refused = keyed(client, "k")
        assert (refused.status_code, refused.headers["Retry-After"]) == (409, "1")
    assert keyed(client, "k").status_code == 201
    assert len(decoded(client.get("/api/v1/deployments"))["items"]) == 1


def test_a_key_is_free_after_a_day(client: FlaskClient, connection: Connection) -> None:
    age = text("UPDATE idempotency_keys SET created_at = created_at - CAST(:by AS interval)")
    assert keyed(client, "k").status_code == 201
    connection.execute(age, {"by": "23 hours 59 minutes"})
    assert keyed(client, "k", version="2").status_code == 422
    connection.execute(age, {"by": "1 minute"})
    assert keyed(client, "k", version="2").json["version"] == "2"


def test_a_hundred_at_once_leave_one_row(serve: Callable[..., Server], own_database: Database) -> None:
    server = serve({**own_database.environment, "API_ADMIN_TOKEN": ADMIN})
    server.wait()
    headers = {"Authorization": f"Bearer {ADMIN}", "Idempotency-Key": "the-one"}

    def send(_: int) -> requests.Response:
        return requests.post(server.url + "/api/v1/deployments", json=MINIMAL, headers=headers, timeout=10)

    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(send, range(100)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.text for answer in answers if answer.status_code == 201}) == 1
    assert own_database.execute("SELECT count(*) FROM deployments") == [(1,)]


def test_failure_report(client: FlaskClient) -> None:
    ended = post(client, status="succeeded", finished_at="2026-01-01T10:00:00Z")
    path = f"/api/v1/deployments/{ended['id']}/failures"
    made = client.post(path, json={"failed_at": "2026-01-01T11:00:00Z", "summary": "errors"})
    assert made.status_code == 201
    assert client.get(made.headers["Location"]).json == made.json
    assert client.post(path, json={}).status_code == 409
    early = client.patch(made.headers["Location"], json={"restored_at": "2026-01-01T10:30:00Z"})
    assert (early.status_code, decoded(early)["errors"][0]["field"]) == (422, "body.restored_at")
    restoration = {"restored_at": "2026-01-01T12:00:00Z"}
    restored = client.patch(made.headers["Location"], json=restoration)
    assert decoded(restored)["restored_at"] == "2026-01-01T12:00:00+00:00"
    assert client.patch(made.headers["Location"], json=restoration).json == restored.json
    other = client.patch(made.headers["Location"], json={"restored_at": "2026-01-01T13:00:00Z"})
    assert other.status_code == 409
    assert client.get(path).json == {"items": [restored.json]}


@pytest.mark.parametrize("status", ["started", "failed", "rolled_back"])
def test_only_a_success_can_break_later(client: FlaskClient, status: str) -> None:
    made = post(client, status=status)
    assert client.post(f"/api/v1/deployments/{made['id']}/failures", json={}).status_code == 422


def test_a_failure_is_not_before_its_deployment(client: FlaskClient) -> None:
    made = post(client, status="succeeded", finished_at="2026-01-01T10:00:00Z")
    body = {"failed_at": "2026-01-01T09:00:00Z"}
    assert client.post(f"/api/v1/deployments/{made['id']}/failures", json=body).status_code == 422


def test_absent_failure(client: FlaskClient) -> None:
    for path in (f"/api/v1/failures/{uuid4()}", f"/api/v1/deployments/{uuid4()}/failures"):
        assert client.get(path).status_code == 404
    assert client.patch(f"/api/v1/failures/{uuid4()}", json={}).status_code == 404


def test_environments_are_ordered(client: FlaskClient) -> None:
    for environment in ("production", "dev", "staging"):
        post(client, environment=environment)
    path = "/api/v1/environments"
    assert decoded(client.get(path))["items"] == ["production", "dev", "staging"]
    order = ["dev", "staging", "production"]
    assert decoded(client.put(path, json={"items": order}))["items"] == order
    for bad in (order[:2], [*order, "dev"], [*order[:2], "none"]):
        assert client.put(path, json={"items": bad}).status_code == 422
    assert decoded(client.get(path))["items"] == order


def test_overview_and_diff(client: FlaskClient) -> None:
    for service, environment, version in (
        ("a", "dev", "2"),
        ("a", "prod", "1"),
        ("b", "dev", "1"),
        ("b", "prod", "1"),
        ("c", "dev", "1"),
    ):
        post(client, service=service, environment=environment, version=version, status="succeeded")
    post(client, service="d", environment="test")
    overview = decoded(client.get("/api/v1/overview"))
    assert overview["environments"] == ["dev", "prod", "test"]
    assert [s["service"] for s in overview["services"]] == ["a", "b", "c", "d"]
    assert overview["services"][0] == decoded(client.get("/api/v1/services/a"))
    diff = decoded(client.get("/api/v1/diff?from=dev&to=prod"))["items"]
    assert [(item["service"], item["same"]) for item in diff] == [("a", False), ("b", True), ("c", False)]
    assert (diff[0]["from"]["version"], diff[0]["to"]["version"], diff[2]["to"]) == ("2", "1", None)
    assert client.get("/api/v1/diff?from=dev&to=none").status_code == 404
    assert {i["same"] for i in decoded(client.get("/api/v1/diff?from=dev&to=dev"))["items"]} == {True}


def test_unchanged_is_304(client: FlaskClient) -> None:
    post(client)
    for path in ("/api/v1/deployments", "/api/v1/overview", "/api/v1/services/shop"):
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
    post(client)
    changed = client.get("/api/v1/deployments", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"restored_at": "2026-01-01T00:00:00Z"},
        {"failed_at": "2026-01-02T00:00:00Z", "restored_at": "2026-01-01T00:00:00Z"},
        {"failed_at": "2999-01-01T00:00:00Z"},
    ],
)
def test_contradicting_failure_report(client: FlaskClient, body: dict[str, str]) -> None:
    made = post(client, status="succeeded", finished_at="2025-01-01T10:00:00Z")
    assert client.post(f"/api/v1/deployments/{made['id']}/failures", json=body).status_code == 422


def test_a_mistake_of_ours_shows_nothing_of_itself(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("SELECT secret")

    monkeypatch.setattr(services.LIST, "run", broken)
    answer = client.get("/api/v1/services")
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert decoded(answer)["request_id"]
    formatter = JsonFormatter()
    try:
        broken()
    except RuntimeError:
        line = formatter.format(logging.makeLogRecord({"msg": "unhandled error", "exc_info": sys.exc_info()}))
    assert "secret" not in line
    assert json.loads(line)["error"] == "RuntimeError"
    assert json.loads(line)["trace"][-1].endswith(" broken")
