"""Settings: a wrong or missing one ends the process with one line that names the variable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flaskapp.settings import Settings, SettingsError
from tests.service.conftest import SOURCE

GOOD = {"DB_HOST": "db", "DB_NAME": "ledger", "DB_USERNAME": "ledger", "DB_PASSWORD": "secret"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"DB_HOST": ""}, "DB_HOST: not set (nor DB_HOST_FILE)"),
        ({"DB_PASSWORD": ""}, "DB_PASSWORD: not set (nor DB_PASSWORD_FILE)"),
        ({"DB_PORT": "tcp://10.0.0.1:5432"}, "DB_PORT: input should be a valid integer"),
        ({"DB_PORT": "0"}, "DB_PORT: input should be greater than or equal to 1"),
        ({"WEB_THREADS": "many"}, "WEB_THREADS: input should be a valid integer"),
        ({"DB_SSLMODE": "on"}, "DB_SSLMODE: input should be 'disable', 'allow'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: input should be 'DEBUG'"),
        ({"DB_PASSWORD_FILE": "/x"}, "DB_PASSWORD: set this or DB_PASSWORD_FILE, not both"),
        ({"DB_PASSWORD": "", "DB_PASSWORD_FILE": "/nowhere"}, "DB_PASSWORD_FILE: cannot read /nowhere: No such file"),
    ],
)
def test_complaint_is_one_line(change: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({**GOOD, **change})
    assert str(raised.value).startswith(complaint)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("command", [["gunicorn"], ["flaskapp", "db", "check"]], ids=str)
def test_process_ends_with_that_line(command: list[str]) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), **GOOD, "DB_PORT": "x"}
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=SOURCE, env=environment, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "flaskapp: DB_PORT: input should be a valid integer, unable to parse string as an integer"
    ]
    assert ended.stdout == ""


def test_files_are_read_anew(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("first\n")
    settings = Settings.from_environment({**GOOD, "DB_PASSWORD": "", "DB_PASSWORD_FILE": str(secret)})
    assert settings.connection_parts()["password"] == "first"
    secret.write_text("p@ss:/#%?[ ]é")
    assert settings.connection_parts()["password"] == "p@ss:/#%?[ ]é"


def test_no_secret_in_a_settings_repr() -> None:
    assert "secret" not in repr(Settings.from_environment(GOOD))
