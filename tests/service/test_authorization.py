"""Tokens: who may read and write what."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flaskapp import tokens
from flaskapp.database import command_engine
from flaskapp.settings import Settings, SettingsError
from tests.postgres import Database
from tests.service.conftest import ADMIN, decoded

BODY = {"service": "shop", "environment": "staging", "version": "1"}


@pytest.fixture
def private(own_database: Database, make_app: Callable[[dict[str, str]], Flask]) -> Flask:
    """An application with private reads and without a bootstrap token."""
    return make_app({**own_database.environment, "API_READS": "private"})


@pytest.fixture
def make(own_database: Database) -> Iterator[Callable[..., dict[str, str]]]:
    """Creates a token; returns the header that carries it."""
    engine = command_engine(Settings.from_environment(own_database.environment))

    def made(
        name: str, scope: str = "write", service: str | None = None, lifetime: timedelta | None = None
    ) -> dict[str, str]:
        return {"Authorization": f"Bearer {tokens.create(engine, name, scope, service, lifetime)}"}

    yield made
    engine.dispose()


def test_writes_need_a_token_and_say_how_to_get_one(app: Flask, client: FlaskClient) -> None:
    answer = app.test_client().post("/api/v1/deployments", json=BODY)
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "flaskapp token create" in decoded(answer)["detail"]
    assert decoded(client.get("/api/v1/deployments"))["items"] == []


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Bearer", "Basic OnB3", "Digest x", "Bearer é\x80", ""])
def test_wrong_tokens(app: Flask, client: FlaskClient, authorization: str) -> None:
    answer = app.test_client().post("/api/v1/deployments", json=BODY, headers={"Authorization": authorization})
    assert answer.status_code == 401
    assert decoded(client.get("/api/v1/deployments"))["items"] == []


def test_scopes(private: Flask, make: Callable[..., dict[str, str]]) -> None:
    client = private.test_client()
    read, write, admin = (make(scope, scope) for scope in ("read", "write", "admin"))
    assert client.get("/api/v1/deployments").status_code == 401
    assert client.post("/api/v1/deployments", json=BODY, headers=read).status_code == 403
    assert client.post("/api/v1/deployments", json=BODY, headers=write).status_code == 201
    order = {"items": ["staging"]}
    assert client.put("/api/v1/environments", json=order, headers=write).status_code == 403
    assert client.put("/api/v1/environments", json=order, headers=admin).status_code == 200
    for token in (read, write, admin):
        assert len(decoded(client.get("/api/v1/deployments", headers=token))["items"]) == 1


def test_a_token_of_one_service_writes_no_other(private: Flask, make: Callable[..., dict[str, str]]) -> None:
    client = private.test_client()
    anything = make("anything")
    shop = decoded(client.post("/api/v1/deployments", json=BODY, headers=anything))["id"]
    other = decoded(client.post("/api/v1/deployments", json={**BODY, "service": "other"}, headers=anything))["id"]
    limited = make("limited", service="shop")
    assert client.post("/api/v1/deployments", json=BODY, headers=limited).status_code == 201
    for service in ("other", "new"):
        body = {**BODY, "service": service}
        assert client.post("/api/v1/deployments", json=body, headers=limited).status_code == 403
    outcome = {"status": "succeeded"}
    assert client.patch(f"/api/v1/deployments/{shop}", json=outcome, headers=limited).status_code == 200
    assert client.patch(f"/api/v1/deployments/{other}", json=outcome, headers=limited).status_code == 403
    client.patch(f"/api/v1/deployments/{other}", json=outcome, headers=anything)
    assert client.post(f"/api/v1/deployments/{shop}/failures", json={}, headers=limited).status_code == 201
    assert client.post(f"/api/v1/deployments/{other}/failures", json={}, headers=limited).status_code == 403
    assert decoded(client.get("/api/v1/services", headers=limited))["items"] == ["other", "shop"]


def test_revoked_and_expired(private: Flask, make: Callable[..., dict[str, str]], own_database: Database) -> None:
    client = private.test_client()
    token, brief = make("ci"), make("brief", lifetime=timedelta(hours=1))
    for headers in (token, brief):
        assert client.post("/api/v1/deployments", json=BODY, headers=headers).status_code == 201
    tokens.revoke(command_engine(Settings.from_environment(own_database.environment)), "ci")
    own_database.execute("UPDATE api_tokens SET expires_at = now() WHERE name = 'brief'")
    for headers in (token, brief):
        assert client.post("/api/v1/deployments", json=BODY, headers=headers).status_code == 401
        assert client.get("/api/v1/deployments", headers=headers).status_code == 401
    assert own_database.execute("SELECT count(*) FROM deployments") == [(2,)]


def test_last_use_is_written_once_a_minute(
    private: Flask, make: Callable[..., dict[str, str]], own_database: Database
) -> None:
    client, token = private.test_client(), make("ci")
    seen = []
    for _ in range(3):
        client.get("/api/v1/deployments", headers=token)
        seen += own_database.execute("SELECT last_used_at, xmin::text FROM api_tokens")
    assert seen[0][0] is not None
    assert len(set(seen)) == 1
    own_database.execute("UPDATE api_tokens SET last_used_at = now() - interval '61 seconds'")
    client.get("/api/v1/deployments", headers=token)
    assert own_database.execute("SELECT last_used_at > %s FROM api_tokens", seen[0][0]) == [(True,)]


def test_only_a_hash_is_kept(make: Callable[..., dict[str, str]], own_database: Database) -> None:
    secret = make("ci")["Authorization"].split()[1]
    assert len(secret) == len("flaskapp_") + 43  # 256 bits
    assert secret not in str(own_database.execute("SELECT t::text FROM api_tokens t"))


def test_bootstrap_token_from_a_file_is_read_anew(
    own_database: Database, make_app: Callable[[dict[str, str]], Flask], tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.write_text(ADMIN + "\n")
    app = make_app({**own_database.environment, "API_ADMIN_TOKEN_FILE": str(secret)})
    headers = {"Authorization": f"Bearer {ADMIN}"}
    assert app.test_client().post("/api/v1/deployments", json=BODY, headers=headers).status_code == 201
    secret.write_text(ADMIN[::-1])
    assert app.test_client().post("/api/v1/deployments", json=BODY, headers=headers).status_code == 401


def test_short_bootstrap_token_is_refused(database: Database) -> None:
    with pytest.raises(SettingsError, match="API_ADMIN_TOKEN: value should have at least 32"):
        Settings.from_environment({**database.environment, "API_ADMIN_TOKEN": "short"})


def test_basic_carries_a_token_for_browsers(private: Flask, make: Callable[..., dict[str, str]]) -> None:
    secret = make("me", "read")["Authorization"].split()[1]
    assert private.test_client().get("/api/v1/services", auth=("me", secret)).status_code == 200
