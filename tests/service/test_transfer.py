"""Import, export, retention, and the commands for tokens."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from flaskapp import cli, transfer
from flaskapp.database import command_engine
from flaskapp.models import uuid7
from flaskapp.settings import Settings
from tests.postgres import Database
from tests.service.conftest import SOURCE

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


@pytest.fixture
def run(own_database: Database, monkeypatch: pytest.MonkeyPatch) -> "Command":
    for name, value in own_database.environment.items():
        monkeypatch.setenv(name, value)
    return Command()


class Command:
    """`flaskapp …` in this process, as `main` runs it."""

    def __call__(self, *arguments: str, content: str | None = None) -> Result:
        return CliRunner().invoke(cli.cli, arguments, input=content)


@pytest.fixture
def engine(own_database: Database) -> Engine:
    return command_engine(Settings.from_environment(own_database.environment))


def line(**fields: object) -> str:
    return json.dumps({"service": "shop", "environment": "dev", "version": "1", **fields})


def test_there_and_back(run: Command, own_database: Database) -> None:
    """Importing an export elsewhere and exporting it again gives the same, special characters included."""
    rows = [
        line(id="0193b5a0-0000-7000-8000-000000000001", status="succeeded", started_at="2026-01-01T00:00:00Z"),
        line(
            id="0193b5a0-0000-7000-8000-000000000002",
            version="\\N \\. 'é' \"q\"",
            actor="a\\tb",
            link="https://x/?a=1&b=%20",
            rollback_of="0193b5a0-0000-7000-8000-000000000001",
            started_at="2026-01-02T00:00:00.123456+05:45",
        ),
    ]
    assert run("import", "-", content="\n".join(rows)).output == "2 deployments imported\n"
    first = run("export")
    assert [json.loads(text)["version"] for text in first.stdout.splitlines()] == ["1", "\\N \\. 'é' \"q\""]
    own_database.execute("TRUNCATE deployments, services, environments CASCADE")
    assert run("import", "-", content=first.stdout).exit_code == 0
    assert run("export").stdout == first.stdout


def test_all_or_nothing_with_a_report(run: Command, own_database: Database) -> None:
    content = "\n".join([line(), "{", line(version=5), line(status="failed", color="red"), line()])
    result = run("import", "-", content=content)
    assert isinstance(result.exception, transfer.TransferError)
    assert str(result.exception) == "3 of 5 lines are bad; nothing was imported"
    assert [text.split(":")[:2] for text in result.stderr.splitlines()] == [
        ["line 2", " Invalid JSON"],
        ["line 3", " version"],
        ["line 4", " color"],
    ]
    assert own_database.execute("SELECT (SELECT count(*) FROM deployments), (SELECT count(*) FROM services)") == [
        (0, 0)
    ]


def test_a_repeated_import_changes_nothing(run: Command, own_database: Database) -> None:
    content = line(id="0193b5a0-0000-7000-8000-000000000001")
    assert run("import", "-", content=content).exit_code == 0
    assert run("import", "-", content=content).exit_code == 1
    assert own_database.execute("SELECT count(*) FROM deployments") == [(1,)]


def test_import_in_constant_memory(own_database: Database, tmp_path: Path) -> None:
    """Ten times the lines take about the same memory, and the file is longer than what is added."""
    program = """
import resource, sys
from flaskapp import transfer
from flaskapp.cli import engine
count = int(sys.argv[1])
row = b'{"service": "shop", "environment": "dev", "version": "1", "actor": "%s"}' % (b"x" * 190)
transfer.load(engine(), (row for _ in range(count)), print)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for count in (6_000, 60_000):
        ended = subprocess.run(
            [sys.executable, "-c", program, str(count)],
            env={**own_database.environment, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(ended.stdout.splitlines()[-1]))
    assert peaks[1] - peaks[0] < 4096  # KiB; the larger file has 14 MB more


def test_prune_keeps_what_runs(engine: Engine, own_database: Database) -> None:
    rows = [
        line(version="1", status="succeeded", started_at=str(NOW - 900 * DAY)),
        line(version="2", status="succeeded", started_at=str(NOW - 800 * DAY)),
        line(version="3", status="failed", started_at=str(NOW - 790 * DAY)),
        line(version="1", environment="prod", status="succeeded", started_at=str(NOW - 900 * DAY)),
        line(version="2", environment="prod", status="succeeded", started_at=str(NOW - 1 * DAY)),
    ]
    transfer.load(engine, (row.encode() for row in rows), print)
    own_database.execute("INSERT INTO idempotency_keys VALUES ('x', 'old', 'x', 'x', now() - interval '2 days')")
    assert transfer.prune(engine, NOW - 730 * DAY) == 2
    kept = own_database.execute("SELECT version, status FROM deployments ORDER BY started_at")
    assert kept == [("2", "succeeded"), ("3", "failed"), ("2", "succeeded")]
    assert own_database.execute("SELECT * FROM idempotency_keys") == []


def rollbacks(*days: tuple[str, int, int | None]) -> list[bytes]:
    """Successes in one environment: version, age in days, and the row that it rolls back."""
    identifiers = [str(uuid7()) for _ in days]
    return [
        line(
            id=identifiers[number],
            version=version,
            status="succeeded",
            started_at=str(NOW - age * DAY),
            rollback_of=None if of is None else identifiers[of],
        ).encode()
        for number, (version, age, of) in enumerate(days)
    ]


@pytest.mark.parametrize(
    ("days", "kept"),
    [
        # A rollback that is current, and itself old.
        ([("1", 900, None), ("2", 850, None), ("1b", 800, 1)], {"2", "1b"}),
        # A chain: the current one names an old one, which names an older one.
        (
            [("1", 950, None), ("2", 900, 0), ("3", 850, 1), ("4", 800, 2), ("5", 790, None), ("6", 780, 3)],
            {"1", "2", "3", "4", "6"},
        ),
        # A chain that begins with a recent one.
        ([("1", 950, None), ("2", 900, 0), ("3", 10, 1), ("4", 5, None)], {"1", "2", "3", "4"}),
        # A chain that nothing kept refers to is deleted entirely.
        ([("1", 950, None), ("2", 900, 0), ("3", 850, 1), ("4", 5, None)], {"4"}),
        # Two that name each other, which an import allows.
        ([("1", 950, 1), ("2", 900, 0), ("3", 850, None), ("4", 800, 1)], {"1", "2", "4"}),
    ],
)
def test_prune_keeps_what_kept_rollbacks_name(
    engine: Engine, own_database: Database, days: list[tuple[str, int, int | None]], kept: set[str]
) -> None:
    transfer.load(engine, rollbacks(*days), print)
    assert transfer.prune(engine, NOW - 730 * DAY) == len(days) - len(kept)
    assert {version for (version,) in own_database.execute("SELECT version FROM deployments")} == kept
    assert transfer.prune(engine, NOW - 730 * DAY) == 0


def test_prune_meets_a_rollback_that_is_being_recorded(engine: Engine, own_database: Database) -> None:
    """The rollback names an old deployment, and is committed while that is being deleted."""
    transfer.load(engine, rollbacks(("1", 900, None), ("2", 850, None), ("3", 800, None)), print)
    record = """
        BEGIN; INSERT INTO deployments (id, service_id, environment_id, version, rollback_of)
        SELECT gen_random_uuid(), service_id, environment_id, '4', id FROM deployments WHERE version = '1';
        SELECT pg_sleep(2); COMMIT
    """
    with ThreadPoolExecutor(1) as pool:
        recorded = pool.submit(own_database.execute, record)
        time.sleep(0.7)
        assert transfer.prune(engine, NOW - 730 * DAY) == 1
        recorded.result()
    assert {version for (version,) in own_database.execute("SELECT version FROM deployments")} == {"1", "3", "4"}


def test_a_long_import_says_how_far_it_is(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BATCH", 2)
    messages: list[str] = []
    assert transfer.load(engine, (line().encode() for _ in range(81)), messages.append) == 81
    assert messages == ["40 lines read", "80 lines read"]


def test_many_bad_lines_are_told_up_to_a_limit(engine: Engine) -> None:
    messages: list[str] = []
    with pytest.raises(transfer.TransferError, match="30 of 30 lines are bad"):
        transfer.load(engine, [b"{}"] * 30, messages.append)
    assert len(messages) == transfer.SHOWN


def test_sample_is_worth_looking_at(run: Command, own_database: Database) -> None:
    assert run("seed").exit_code == 0
    assert own_database.execute("SELECT count(DISTINCT service_id) FROM deployments") == [(3,)]
    assert {status for (status,) in own_database.execute("SELECT status FROM deployments")} == {
        "succeeded",
        "rolled_back",
    }
    names = own_database.execute("SELECT name FROM environments ORDER BY position")
    assert names == [("dev",), ("staging",), ("production",)]


def test_token_commands(run: Command) -> None:
    made = run("token", "create", "ci", "--scope", "write", "--expires", "90d")
    assert made.output.startswith("flaskapp_")
    listed = run("token", "list").output
    assert made.output.strip() not in listed
    assert listed.splitlines()[1].split()[:4] == ["ci", "write", "all", "valid"]
    assert run("token", "revoke", "ci").output == "ci is revoked\n"
    assert "revoked" in run("token", "list").output


def test_an_expired_token_is_listed_as_such(run: Command, own_database: Database) -> None:
    run("token", "create", "ci", "--expires", "1h")
    own_database.execute("UPDATE api_tokens SET expires_at = now() - interval '1 minute'")
    assert run("token", "list").output.splitlines()[1].split()[3] == "expired"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["token", "revoke", "none"], "there is no token called none"),
        (["token", "create", "x", "--service", "none"], "there is no service called none yet"),
        (["token", "create", "x", "--expires", "soon"], "soon is no duration: write 12h, 90d or 4w"),
        (["prune", "--older-than", "0d"], "0d is no duration: write 12h, 90d or 4w"),
    ],
)
def test_bad_arguments_are_one_line(run: Command, arguments: list[str], complaint: str) -> None:
    assert str(run(*arguments).exception) == complaint


def test_a_name_is_taken_once(run: Command) -> None:
    assert run("token", "create", "ci").exit_code == 0
    assert "already" in str(run("token", "create", "ci").exception)


def test_main_prints_errors_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["flaskapp", "prune", "--older-than", "x"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert str(ended.value).startswith("flaskapp: ")
