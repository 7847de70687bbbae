"""RDS IAM: a new token for each connection in place of a password. Signing needs no network."""

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg2
import pytest

from flaskapp import database, rds
from flaskapp.settings import Settings, SettingsError
from tests.service.conftest import SOURCE

ENVIRONMENT = {
    "DB_HOST": "ledger.abc.eu-central-1.rds.amazonaws.com",
    "DB_NAME": "ledger",
    "DB_USERNAME": "app",
    "DB_AUTH": "rds-iam",
    "DB_SSLMODE": "verify-full",
    "AWS_REGION": "eu-central-1",
}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    rds.client.cache_clear()


def test_each_connection_gets_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    connections: list[dict[str, Any]] = []

    class NotConnectedError(Exception):
        pass

    def connect(**parameters: Any) -> None:
        connections.append(parameters)
        raise NotConnectedError

    monkeypatch.setattr(psycopg2, "connect", connect)
    engine = database.command_engine(Settings.from_environment(ENVIRONMENT))
    for _ in range(2):
        with pytest.raises(NotConnectedError):
            engine.connect()
        time.sleep(1.1)  # a signature's time is in whole seconds
    first, second = connections
    assert (first["host"], first["user"], first["sslmode"]) == (ENVIRONMENT["DB_HOST"], "app", "verify-full")
    assert first["password"] != second["password"]
    token = urlsplit("//" + first["password"])
    query = parse_qs(token.query)
    assert token.netloc == f"{ENVIRONMENT['DB_HOST']}:5432"
    assert (query["Action"], query["DBUser"], query["X-Amz-Expires"]) == (["connect"], ["app"], ["900"])
    assert query["X-Amz-Credential"][0].startswith("AKIAIOSFODNN7EXAMPLE/")
    assert "/eu-central-1/rds-db/" in query["X-Amz-Credential"][0]


def test_no_credentials_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(SettingsError, match="DB_AUTH: no token for the database: Unable to locate credentials"):
        Settings.from_environment(ENVIRONMENT).connection_parts()


class Refusal(BaseHTTPRequestHandler):
    """STS, which does not know the role."""

    def do_POST(self) -> None:
        body = (
            b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized</Message></Error></ErrorResponse>"
        )
        self.send_response(403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


def test_a_refusal_of_sts_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "token").write_text("token of the pod")
    with HTTPServer(("127.0.0.1", 0), Refusal) as sts:
        threading.Thread(target=sts.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ledger")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{sts.server_port}")
        with pytest.raises(SettingsError, match=r"DB_AUTH: no token for the database: .*AccessDenied"):
            Settings.from_environment(ENVIRONMENT).connection_parts()
        sts.shutdown()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"AWS_REGION": ""}, "AWS_REGION: not set"),
        ({"DB_SSLMODE": "prefer"}, "DB_SSLMODE: set require"),
        ({"DB_AUTH": "magic"}, "DB_AUTH: input should be 'password' or 'rds-iam'"),
    ],
)
def test_complaints(change: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError, match=f"^{complaint}"):
        Settings.from_environment({**ENVIRONMENT, **change})


def test_without_the_extra_the_process_ends_with_one_line() -> None:
    hidden = "import sys; sys.modules['botocore'] = None; from flaskapp.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", hidden, "db", "check"],
        env={**ENVIRONMENT, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    message = "flaskapp: DB_AUTH: rds-iam needs botocore, which is not installed: add flaskapp[rds]\n"
    assert (ended.returncode, ended.stderr) == (1, message)


def test_the_image_stays_without_it() -> None:
    assert "botocore" not in (SOURCE.parent / "requirements.lock").read_text()
    assert "botocore==" in (SOURCE.parent / "requirements-dev.lock").read_text()
