"""Settings: a wrong or missing one ends the process with one line that names the variable."""

import logging
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


VALUES = {
    "DB_HOST": "db",
    "DB_PORT": "5433",
    "DB_NAME": "ledger",
    "DB_USERNAME": "app",
    "DB_PASSWORD": "s3cret-ß",
    "API_ADMIN_TOKEN": "token-" * 8,
}
JUNK = {
    "empty": b"",
    "line end": b"\r\n",
    "not UTF-8": b"\xff\xfe\x00",
    "NUL": b"se\0ret" * 8,
    "1 MB": b"7" * 2**20,
    "directory": None,
    "missing": None,
    "pipe": None,
}
WRONG = {"DB_PORT": [b"abc", b"0", b"65536", b"-1", b"5432 5433"], "API_ADMIN_TOKEN": [b"x", b"x" * 31]}
CASES = [(name, kind, junk) for name in VALUES for kind, junk in JUNK.items()]
CASES += [(name, junk.decode(), junk) for name, contents in WRONG.items() for junk in contents]


def spoil(path: Path, kind: str, junk: bytes | None) -> None:
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif junk is not None:
        path.write_bytes(junk)


@pytest.mark.parametrize(("name", "kind", "junk"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_file_that_went_wrong_leaves_the_last_good_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, kind: str, junk: bytes | None
) -> None:
    """What is refused at the start is refused later too, and logged once without the value."""
    for variable, value in VALUES.items():
        (tmp_path / variable).write_text(value + "\n")
    environment = {f"{variable}_FILE": str(tmp_path / variable) for variable in VALUES}
    settings = Settings.from_environment(environment)
    good = settings.connection_parts(), settings.admin_token()
    spoil(tmp_path / name, kind, junk)
    with pytest.raises(SettingsError, match=f"^{name}"):
        Settings.from_environment(environment)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert (settings.connection_parts(), settings.admin_token()) == good
    (record,) = caplog.records
    reason = vars(record)["reason"]
    assert reason.startswith(name)
    assert len(reason) < 200
    assert not junk or junk in {b"0", b"-1"} or junk.decode(errors="replace") not in reason


def test_a_file_that_is_right_again_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "port"
    file.write_text("5433")
    settings = Settings.from_environment({**GOOD, "DB_PORT_FILE": str(file)})
    for content, port in (("x", 5433), ("y", 5433), ("5434", 5434), ("y", 5434), ("5434", 5434), ("y", 5434)):
        file.write_text(content)
        assert settings.connection_parts()["port"] == port
    assert len(caplog.records) == 4


def test_no_secret_in_a_settings_repr() -> None:
    assert "secret" not in repr(Settings.from_environment(GOOD))
