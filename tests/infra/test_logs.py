"""The metric filters and alarms of logs.yaml, on lines that the service writes during a database outage."""

import json
import os
import re
import subprocess
import sys
import threading
from typing import Any

import pytest

from flaskapp.logs import STANDARD
from flaskapp_deploy.up.postgres import Postgres
from tests.infra import template as t
from tests.infra.filter_pattern import MISSING, PatternError, matches, selected

# Answers requests until its input ends, with a faster heartbeat.
PROGRAM = """
import select, sys, time
from flaskapp import create_app, database
database.HEARTBEAT = 0.4
client = create_app().test_client()
while not select.select([sys.stdin], [], [], 0)[0]:
    for path in ("/version", "/no/such/page", "/api/v1/deployments", "/livez"):
        client.get(path)
    time.sleep(0.4)
"""
PARAMETERS = {"Namespace": "flaskapp"}
FILTERS = t.of_type(t.load("logs"), "AWS::Logs::MetricFilter")


def shipped(line: str, namespace: str = "flaskapp") -> str:
    """Return a line as infra/fluent-bit.yaml sends it: JSON becomes fields, anything else stays text."""
    event: dict[str, Any] = {"time": "2026-11-24T04:00:00.000000000Z", "stream": "stderr", "_p": "F"}
    try:
        event["log_processed"] = json.loads(line)
    except ValueError:
        event["log"] = line
    event["kubernetes"] = {"pod_name": "flaskapp-0", "namespace_name": namespace, "container_name": "app"}
    return json.dumps(event)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lines that the service writes while its database is up, and then down."""
    server = Postgres(tmp_path_factory.mktemp("postgres"), "unused", durable=False)
    server.start()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(t.INFRA.parent / "src"),
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(server.port),
        "DB_NAME": "postgres",
        "DB_USERNAME": "postgres",
        "DB_PASSWORD": server.password,
        "METRICS_PORT": "0",
    }
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as service:
        watchdog = threading.Timer(120, service.kill)
        watchdog.start()
        try:
            written = [line for _ in range(2) for line in until(service, message="heartbeat", database_up=True)]
            server.stop()
            written += until(service, message="heartbeat", database_up=False) + until(service, status=503)
            written += service.communicate(timeout=30)[1].splitlines()
        finally:
            watchdog.cancel()
            service.kill()
            server.stop()
    assert service.returncode == 0, written
    return written


def until(service: subprocess.Popen[str], **fields: Any) -> list[str]:
    """Return the lines up to one that has these fields."""
    lines: list[str] = []
    assert service.stderr
    for line in service.stderr:
        lines.append(line.rstrip("\n"))
        if fields.items() <= json.loads(line).items():
            return lines
    raise AssertionError(f"the service never wrote {fields}: {lines[-5:]}")


def pattern(name: str) -> str:
    return t.substituted(FILTERS[name]["Properties"]["FilterPattern"], **PARAMETERS)


def counted(name: str, lines: list[str]) -> list[dict[str, Any]]:
    """Return the lines that a filter matches, parsed."""
    return [json.loads(line) for line in lines if matches(pattern(name), shipped(line))]


def test_the_service_wrote_what_the_filters_are_for(lines: list[str]) -> None:
    messages = [json.loads(line) for line in lines]
    assert {each["status"] for each in messages if each["logger"] == "flaskapp.request"} >= {404, 503}
    assert {each["database_up"] for each in messages if each["message"] == "heartbeat"} == {True, False}


def test_requests(lines: list[str]) -> None:
    expected = [each for each in map(json.loads, lines) if "method" in each]
    assert counted("Requests", lines) == expected
    assert counted("Duration", lines) == expected


def test_errors_are_the_servers_not_the_clients(lines: list[str]) -> None:
    errors = counted("Errors", lines)
    assert {each["status"] for each in errors} <= {500, 503}
    assert len(errors) < len(counted("Requests", lines))


def test_durations_have_a_value(lines: list[str]) -> None:
    value = FILTERS["Duration"]["Properties"]["MetricTransformations"][0]["MetricValue"]
    for line in lines:
        if matches(pattern("Duration"), shipped(line)):
            duration = selected(json.loads(shipped(line)), value)
            assert duration is not MISSING
            assert isinstance(duration, float | int)
            assert duration >= 0


def test_heartbeats(lines: list[str]) -> None:
    assert len(counted("Heartbeats", lines)) == sum('"heartbeat"' in line for line in lines) >= 3


def test_database_away(lines: list[str]) -> None:
    outages = counted("DatabaseAway", lines)
    assert outages
    assert all(each["database_up"] is False for each in outages)
    assert len(outages) < len(counted("Heartbeats", lines))


@pytest.mark.parametrize("name", FILTERS)
def test_other_lines_count_for_nothing(name: str, lines: list[str]) -> None:
    """Other namespaces, lines that are not JSON, and clients that put the words into their requests."""
    assert not any(matches(pattern(name), shipped(line, "other")) for line in lines)
    assert not matches(pattern(name), shipped("Traceback (most recent call last):"))
    assert not matches(pattern(name), "not JSON")
    assert not matches(pattern(name), shipped(json.dumps({"logger": "alembic", "message": "heartbeat", "status": 500})))


def test_a_client_can_not_forge_a_heartbeat(lines: list[str]) -> None:
    line = next(line for line in lines if json.loads(line).get("status") == 404)
    forged = line.replace("/no/such/page", "heartbeat")
    assert forged != line
    assert not matches(pattern("Heartbeats"), shipped(forged))
    assert not matches(pattern("DatabaseAway"), shipped(forged))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("Errors", ">= 500", ">= 600"),
        ("Errors", "log_processed.status", "status"),
        ("Requests", "log_processed.logger", "logger"),
        ("Heartbeats", '"heartbeat"', '"Heartbeat"'),
        ("DatabaseAway", "IS FALSE", '= "false"'),
        ("DatabaseAway", "database_up", "database"),
        ("Duration", "duration_ms", "duration"),
    ],
)
def test_a_filter_on_another_field_finds_nothing(name: str, old: str, new: str, lines: list[str]) -> None:
    """A changed field or value matches nothing, so the matches above depend on the real ones."""
    assert old in pattern(name)
    assert any(matches(pattern(name), shipped(line)) for line in lines)
    assert not any(matches(pattern(name).replace(old, new), shipped(line)) for line in lines)


def test_fields_are_documented() -> None:
    page = (t.INFRA.parent / "docs/service.md").read_text()
    for name in FILTERS:
        for field in re.findall(r"\$\.log_processed\.([a-z_]+)", pattern(name)):
            assert f"`{field}`" in page, f"{name} reads {field}, which docs/service.md does not know"
            assert field not in STANDARD - {"message"}


def test_fluent_bit_names_the_fields_so_and_makes_no_group() -> None:
    config = t.load("fluent-bit")["config"]
    assert "Merge_Log_Key log_processed\n" in config["filters"]
    group = t.substituted(
        t.load("logs")["Resources"]["ContainerLogs"]["Properties"]["LogGroupName"], ClusterName="flaskapp"
    )
    assert f"log_group_name {group}\n" in config["outputs"]
    assert "auto_create_group false\n" in config["outputs"]


# --- alarms ---------------------------------------------------------------------------------------------------------


def test_every_alarm_reads_a_metric_that_is_made_and_tells_somebody() -> None:
    template = t.load("logs")
    made = {each["Properties"]["MetricTransformations"][0]["MetricName"] for each in FILTERS.values()}
    alarms = t.of_type(template, "AWS::CloudWatch::Alarm")
    assert len(alarms) == 6
    read = set()
    for alarm in alarms.values():
        properties = alarm["Properties"]
        assert properties["AlarmActions"] == [{"Ref": "Alarms"}]
        assert properties["TreatMissingData"] in ("breaching", "notBreaching")
        metrics = [each["MetricStat"]["Metric"] for each in properties.get("Metrics", []) if "MetricStat" in each]
        for metric in [*metrics, properties]:
            if metric.get("Namespace") == {"Ref": "Namespace"}:
                read.add(metric["MetricName"])
    assert read == made


def test_silence_alarms() -> None:
    heartbeat = t.load("logs")["Resources"]["HeartbeatAlarm"]["Properties"]
    assert heartbeat["TreatMissingData"] == "breaching"
    assert heartbeat["Period"] * heartbeat["EvaluationPeriods"] >= 3 * 60, "one late line is no outage"


def test_a_metric_that_is_read_by_percentile_has_no_default() -> None:
    transformation = FILTERS["Duration"]["Properties"]["MetricTransformations"][0]
    assert "DefaultValue" not in transformation


def test_the_dashboard_is_json_and_shows_every_alarm() -> None:
    template = t.load("logs")
    body = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    shown = json.loads(body)["widgets"][0]["properties"]["alarms"]
    assert set(shown) == {f"${{{name}.Arn}}" for name in t.of_type(template, "AWS::CloudWatch::Alarm")}


# --- the evaluator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        ('{ $.eventType = "UpdateTrail" }', '{"eventType": "UpdateTrail"}', True),
        ('{ $.eventType != "UpdateTrail" }', '{"eventType": "UpdateTrail"}', False),
        ('{ $.eventType != "UpdateTrail" }', "{}", False),
        ("{ $.number > 3 }", '{"number": 3}', False),
        ("{ $.number >= 3 }", '{"number": 3}', True),
        ("{ $.number >= 3 }", '{"number": "3"}', False),
        ("{ $.number >= 1 }", '{"number": true}', False),
        ("{ $.number = 3 }", '{"number": 3.0}', True),
        ("{ $.flag IS TRUE }", '{"flag": true}', True),
        ("{ $.flag IS FALSE }", '{"flag": false}', True),
        ("{ $.flag IS FALSE }", '{"flag": "false"}', False),
        ("{ $.flag IS FALSE }", '{"flag": 0}', False),
        ("{ $.flag IS FALSE }", "{}", False),
        ("{ $.nothing IS NULL }", '{"nothing": null}', True),
        ("{ $.nothing NOT EXISTS }", "{}", True),
        ("{ $.nothing NOT EXISTS }", '{"nothing": null}', False),
        ("{ $.a.b = 1 && $.a.c = 2 }", '{"a": {"b": 1, "c": 2}}', True),
        ("{ $.a.b = 1 && $.a.c = 3 }", '{"a": {"b": 1, "c": 2}}', False),
        ("{ $.a.b = 1 }", '{"a": 1}', False),
        ("{ $.a = 1 }", "[1]", False),
    ],
)
def test_evaluator(pattern: str, line: str, expected: bool) -> None:
    assert matches(pattern, line) is expected


@pytest.mark.parametrize(
    "pattern",
    ["$.a = 1", "{ $.a == 1 }", "{ $.a = 1 || $.b = 2 }", '{ $.a = "x*" }', "{ a = 1 }", "{ }", "{ ($.a = 1) }"],
)
def test_evaluator_refuses_what_it_does_not_read(pattern: str) -> None:
    with pytest.raises(PatternError):
        matches(pattern, "{}")
