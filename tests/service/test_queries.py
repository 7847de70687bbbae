"""Frequent statements are planned once in a session, and return the same as without that."""

from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, text

from flaskapp.api import deployments
from flaskapp.queries import Query
from tests.service.conftest import decoded

BODY = {"service": "shop", "environment": "prod", "version": "1"}


def test_a_session_prepares_a_query_once(client: FlaskClient, connection: Connection) -> None:
    made = decoded(client.post("/api/v1/deployments", json=BODY))
    connection.connection.cursor().execute("DEALLOCATE ALL")
    connection.connection.driver_connection.prepared.clear()  # type: ignore[union-attr]
    for _ in range(8):  # PostgreSQL keeps one plan for all values from the sixth on
        assert decoded(client.get(f"/api/v1/deployments/{made['id']}")) == made
        assert decoded(client.get("/api/v1/deployments"))["items"] == [made]
        assert decoded(client.get("/api/v1/deployments?status=started&limit=1"))["items"] == [made]
        assert client.get(f"/api/v1/deployments/{uuid4()}").status_code == 404
    kept = connection.execute(text("SELECT name, generic_plans > 0 FROM pg_prepared_statements")).all()
    expected = {deployments.GET.open.name, deployments.listing(()).open.name}
    assert {(name, planned) for name, planned in kept} == {(name, True) for name in expected}


def test_a_prepared_insert_takes_every_value(client: FlaskClient) -> None:
    """Use NULL and a value in turn, with one plan for both."""
    whole = BODY | {
        "commit": "abcdef1",
        "committed_at": "2026-01-01T00:00:00+00:00",
        "digest": "sha256:" + "0" * 64,
        "chart_version": "1.2.3",
        "status": "succeeded",
        "actor": "it's 100 % \\ :me",
        "link": "https://example.org/?a=:b",
        "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:01:00+00:00",
    }
    for _ in range(8):
        assert client.post("/api/v1/deployments", json=BODY).status_code == 201
        made = client.post("/api/v1/deployments", json=whole)
        assert made.status_code == 201
        assert whole.items() <= decoded(made).items()
        undone = client.post("/api/v1/deployments", json={**BODY, "rollback_of": decoded(made)["id"]})
        assert decoded(undone)["rollback_of"] == decoded(made)["id"]


@pytest.mark.parametrize("prepared", [True, False])
def test_values_are_bound_in_both_ways(connection: Connection, prepared: bool) -> None:
    query = Query("SELECT CAST(:a AS text) || '%' || CAST(:b AS text) || CAST(:a AS text)", prepared)
    cursor = connection.connection.cursor()
    for a, b in (("'", "%s"), ("$1", "\\"), ("é", ":a")):
        assert query.scalar(cursor, {"a": a, "b": b}) == f"{a}%{b}{a}"
