"""Recording deployments and reading them back."""

from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from tests.service.conftest import decoded

MINIMAL = {"service": "shop", "environment": "staging", "version": "1.0.0"}
FULL = {
    **MINIMAL,
    "commit": "0123abc",
    "committed_at": "2026-01-01T10:00:00+02:00",
    "digest": "sha256:" + "a" * 64,
    "chart_version": "1.0.0",
    "status": "succeeded",
    "actor": "Zoë",
    "link": "https://ci.example/1?a=b#c",
    "started_at": "2026-01-02T10:00:00Z",
    "finished_at": "2026-01-02T10:05:00Z",
}


def post(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/deployments", json={**MINIMAL, **fields})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = decoded(answer)
    return body


def test_minimal(client: FlaskClient) -> None:
    answer = client.post("/api/v1/deployments", json=MINIMAL)
    assert answer.status_code == 201
    assert client.get(answer.headers["Location"]).json == answer.json
    assert decoded(answer)["status"] == "started"
    assert decoded(answer)["started_at"].endswith("+00:00")
    assert decoded(answer)["finished_at"] is None


def test_full(client: FlaskClient) -> None:
    body = post(client, **FULL)
    times = {
        "committed_at": "2026-01-01T08:00:00+00:00",
        "started_at": "2026-01-02T10:00:00+00:00",
        "finished_at": "2026-01-02T10:05:00+00:00",
    }
    assert body == {**FULL, **times, "id": body["id"], "rollback_of": None}


def test_rollback_names_what_it_undoes(client: FlaskClient) -> None:
    first = post(client, status="succeeded")
    assert post(client, rollback_of=first["id"])["rollback_of"] == first["id"]


def test_finish_once(client: FlaskClient) -> None:
    path = f"/api/v1/deployments/{post(client)['id']}"
    first = client.patch(path, json={"status": "failed"})
    assert first.status_code == 200
    assert decoded(first)["finished_at"] >= decoded(first)["started_at"]
    assert client.patch(path, json={"status": "failed"}).json == first.json
    other = client.patch(path, json={"status": "succeeded"})
    assert (other.status_code, other.content_type) == (409, "application/problem+json")
    assert client.get(path).json == first.json


def test_bounds_of_any_offset(client: FlaskClient) -> None:
    """PostgreSQL itself refuses offsets of 16 hours and more."""
    answer = client.get("/api/v1/deployments?since=4270-05-13T10:22:06%2B22:39&until=0632-03-14T15:36:10-22:39")
    assert (answer.status_code, decoded(answer)["items"]) == (200, [])


def test_list_is_newest_first_and_filtered(client: FlaskClient) -> None:
    for hour, service, environment in ((1, "a", "x"), (3, "a", "y"), (2, "b", "x")):
        post(client, service=service, environment=environment, started_at=f"2026-01-01T0{hour}:00:00Z")

    def listed(query: str = "") -> list[tuple[str, str]]:
        items = decoded(client.get(f"/api/v1/deployments{query}"))["items"]
        return [(item["service"], item["environment"]) for item in items]

    assert listed() == [("a", "y"), ("b", "x"), ("a", "x")]
    assert listed("?service=a&environment=x") == [("a", "x")]
    assert listed("?limit=1") == [("a", "y")]
    assert listed("?status=failed") == []


def test_current_state_per_environment(client: FlaskClient) -> None:
    post(client, version="1", status="succeeded", started_at="2026-01-01T01:00:00Z", finished_at="2026-01-01T01:01:00Z")
    post(client, version="2", status="failed", started_at="2026-01-01T02:00:00Z", finished_at="2026-01-01T02:01:00Z")
    post(client, environment="production", version="1", started_at="2026-01-01T03:00:00Z")
    post(client, service="other")
    state = decoded(client.get("/api/v1/services/shop"))
    assert state["service"] == "shop"
    assert [e["environment"] for e in state["environments"]] == ["staging", "production"]
    staging, production = state["environments"]
    assert (staging["current"]["version"], staging["latest"]["version"]) == ("1", "2")
    assert (production["current"], production["latest"]["version"]) == (None, "1")
    assert client.get("/api/v1/services").json == {"items": ["other", "shop"]}


BAD_FIELDS = [
    ("version", 5),
    ("version", ""),
    ("version", "a\x00b"),
    ("version", "x" * 201),
    ("service", "Shop"),
    ("service", None),
    ("service", "shop\n"),
    ("environment", "a" * 101),
    ("commit", "xyz"),
    ("digest", "sha256:0"),
    ("status", "running"),
    ("link", "javascript:alert(1)"),
    ("link", "https://" + "x" * 2000),
    ("committed_at", "2026-01-01T10:00:00"),
    ("committed_at", 1700000000),
    ("committed_at", "1999-12-31T23:59:59Z"),
    ("started_at", "9999-12-31T23:59:59-12:00"),
    ("rollback_of", "1"),
    ("rollback_of", str(uuid4())),
    ("unknown", 1),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS, ids=lambda value: repr(value)[:30])
def test_bad_field_is_named(client: FlaskClient, field: str, value: Any) -> None:
    answer = client.post("/api/v1/deployments", json={**MINIMAL, field: value})
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert [error["field"] for error in decoded(answer)["errors"]] == [f"body.{field}"]
    assert decoded(answer)["request_id"] == answer.headers["X-Request-ID"]
    assert decoded(client.get("/api/v1/deployments"))["items"] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"finished_at": "2026-01-01T00:00:00Z"},
        {"status": "failed", "started_at": "2026-01-02T00:00:00Z", "finished_at": "2026-01-01T00:00:00Z"},
    ],
)
def test_contradicting_times(client: FlaskClient, fields: dict[str, str]) -> None:
    assert client.post("/api/v1/deployments", json={**MINIMAL, **fields}).status_code == 422


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"version": "\\ud800"}', "application/json", 400),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b"[" * 5000, "application/json", 400),
        (b'{"version": 1' + b"0" * 5000 + b"}", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b'{"a": "' + b"x" * 70000 + b'"}', "application/json", 413),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_body(client: FlaskClient, content: bytes, content_type: str, status: int) -> None:
    answer = client.post("/api/v1/deployments", data=content, content_type=content_type)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    assert decoded(answer)["status"] == status


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/deployments?limit=0",
        "/api/v1/deployments?limit=1e3",
        "/api/v1/deployments?limit=" + "9" * 400,
        "/api/v1/deployments?limit=1&limit=2",
        "/api/v1/deployments?status=x",
        "/api/v1/deployments?service=%00",
        "/api/v1/deployments?service=%ff",
        "/api/v1/deployments?unknown=1",
        "/api/v1/deployments?since=0001-01-01T00:00:00%2B22:39",
        "/api/v1/services?unknown=1",
        "/api/v1/deployments/1",
        "/api/v1/services/Shop",
        "/api/v1/services/a%00b",
    ],
)
def test_bad_address(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert decoded(answer)["errors"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/api/v1/services/nope", 404),
        ("GET", f"/api/v1/deployments/{uuid4()}", 404),
        ("PATCH", f"/api/v1/deployments/{uuid4()}", 404),
        ("DELETE", "/api/v1/deployments", 405),
    ],
)
def test_absent(client: FlaskClient, method: str, path: str, status: int) -> None:
    answer = client.open(path, method=method, json={"status": "failed"} if method == "PATCH" else None)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert decoded(answer)["instance"] == path
