"""What the doctor makes of pods and events as a cluster has them; tests/deploy/up/test_doctor.py makes them on one."""

import json
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.up import doctor

NOW = datetime.now(UTC).replace(microsecond=0)
HTTP = {"httpGet": {"path": "/nope", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 60}
SLOW = HTTP | {"periodSeconds": 10, "failureThreshold": 3}
STATUS = "HTTP probe failed with statuscode: "
GET = 'Get "http://10.0.0.9:8000/nope": '
REFUSED = f"{GET}dial tcp 10.0.0.9:8000: connect: connection refused"
TIMEOUT = f"{GET}context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
MASTER = "[2026-11-27 23:29:16 +0000] [1] [INFO] Shutting down: Master\n"


def at(seconds: float) -> str:
    """So long ago."""
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def moved(moment: re.Match[str]) -> str:
    """A moment as long before now as it was before NOW: the cases are made when the suite begins."""
    return (datetime.fromisoformat(moment[0]) + (datetime.now(UTC) - NOW)).isoformat().replace("+00:00", "Z")


def event(kind: str, output: str, ago: float = 5, count: int = 5, reason: str = "Unhealthy", name: str = "app") -> Any:
    message = f"{kind.capitalize()} probe failed: {output}" if reason == "Unhealthy" else output
    involved = {"uid": "pod", "fieldPath": f"spec.containers{{{name}}}"}
    return {"reason": reason, "message": message, "lastTimestamp": at(ago), "count": count, "involvedObject": involved}


def killing(kind: str, ago: float, name: str = "app") -> Any:
    return event(kind, f"Container {name} failed {kind} probe, will be restarted", ago, 1, "Killing", name)


def ended(ago: float, lasted: float, code: int = 0) -> dict[str, Any]:
    return {
        "terminated": {"exitCode": code, "startedAt": at(ago + lasted), "finishedAt": at(ago), "reason": "Completed"}
    }


def running(ago: float) -> dict[str, Any]:
    return {"running": {"startedAt": at(ago)}}


WAITING = {"waiting": {"reason": "CrashLoopBackOff"}}


class Fake(Cluster):
    """A release with one pod, and what its cluster says of it."""

    def __init__(self, probes: Mapping[str, Any], status: Mapping[str, Any], events: list[Any], **more: Any) -> None:
        super().__init__(None, "", "shop")
        name = more.get("name", "app")
        container = {"name": name} | {f"{kind}Probe": probe for kind, probe in probes.items()}
        state = {"name": name, "image": "shop:1", "ready": False, "restartCount": 0, "state": running(60)} | dict(
            status
        )
        component = more.get("component", "web")
        labels = {"app.kubernetes.io/component": component}
        if component != "postgresql":  # a StatefulSet's
            labels["pod-template-hash"] = "1"
        self.pod = {
            "kind": "Pod",
            "metadata": {
                "name": "shop-1",
                "uid": "pod",
                "labels": labels,
            },
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 30},
            "status": {"phase": "Running", "containerStatuses": [state]},
        }
        deployment = {
            "kind": "Deployment",
            "metadata": {"name": "shop", "uid": "deployment"},
            "spec": {"replicas": 1},
            "status": {"readyReplicas": int(state["ready"]), "updatedReplicas": 1},
        }
        self.items = [self.pod, deployment, *more.get("objects", [])]
        self.events, self.log, self.previous = events, more.get("log", ""), more.get("previous", MASTER)

    def helm(self, *_: str, **__: Any) -> "subprocess.CompletedProcess[str]":
        history = [{"revision": 1, "status": "deployed", "updated": "", "description": ""}]
        return subprocess.CompletedProcess([], 0, json.dumps(history), "")

    def kubectl(self, *arguments: str, **_: Any) -> "subprocess.CompletedProcess[str]":
        if arguments[0] == "logs":
            return subprocess.CompletedProcess([], 0, self.previous if "--previous" in arguments else self.log, "")
        items = self.events if arguments[1] == "events" else self.items
        return subprocess.CompletedProcess([], 0, MOMENT.sub(moved, json.dumps({"items": items})), "")


def diagnosis(*arguments: Any, **more: Any) -> list[str]:
    return list(map(str, doctor.examine(Fake(*arguments, **more), "shop")))


KILLED = {"restartCount": 3, "state": WAITING, "lastState": ended(20, 61)}
STARTING = {"started": False, "state": running(40)}
SERVING = {"started": True, "state": running(120)}
EXEC = {"exec": {"command": ["python", "check.py"]}, "timeoutSeconds": 1}
# The probes; the container's status; events; the finding, and what to do next.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[Any], str, str]] = {
    "killed by startup": (
        {"startup": HTTP},
        KILLED,
        [event("startup", STATUS + "404", 25, 40), event("startup", REFUSED, 80, 1), killing("startup", 21)],
        "startup probe GET /nope on port http: 404, so the kubelet restarts the container",
        "set health.path or probes.startup.httpGet.path to one that answers GET with 200",
    ),
    "Django": (
        {"startup": HTTP},
        KILLED,
        [event("startup", STATUS + "400", 25, 40), killing("startup", 21)],
        "startup probe GET /nope on port http: 400,",
        "ALLOWED_HOSTS), or set an allowed one in probes.startup.httpGet.httpHeaders",
    ),
    "login": (
        {"startup": HTTP},
        KILLED,
        [event("startup", STATUS + "401", 25, 40), killing("startup", 21)],
        "startup probe GET /nope on port http: 401,",
        "needs no login",
    ),
    # The kubelet's events are limited: the end of the third run is said by none.
    "killed, and no event of it": (
        {"startup": HTTP},
        KILLED,
        [event("startup", STATUS + "404", 200, 21)],
        "startup probe GET /nope on port http: 404,",
        "probes.startup.httpGet.path",
    ),
    "mostly refused, as it starts slowly": (
        {"startup": HTTP | {"failureThreshold": 5}},
        KILLED | {"lastState": ended(20, 6)},
        [event("startup", REFUSED, 22, 12), event("startup", STATUS + "404", 21, 3), killing("startup", 21)],
        "startup probe GET /nope on port http: 404,",
        "probes.startup.httpGet.path",
    ),
    "killed by SIGKILL": (
        {"startup": HTTP},
        KILLED | {"lastState": ended(20, 95, 137)},
        [event("startup", STATUS + "404", 200, 21)],
        "startup probe GET /nope on port http: 404,",
        "probes.startup.httpGet.path",
    ),
    "killed once, started again": (
        {"startup": HTTP},
        {"restartCount": 1, "started": False, "state": running(3), "lastState": ended(4, 61)},
        [event("startup", STATUS + "404", 5, 21), killing("startup", 5)],
        "startup probe GET /nope on port http: 404,",
        "probes.startup.httpGet.path",
    ),
    "killed by liveness": (
        {"startup": HTTP, "liveness": SLOW},
        KILLED | {"lastState": ended(20, 31)},
        [event("liveness", STATUS + "404", 22, 9), killing("liveness", 22)],
        "liveness probe GET /nope on port http: 404, so the kubelet restarts the container",
        "probes.liveness.httpGet.path",
    ),
    "ready now and then": (
        {"liveness": SLOW},
        {"restartCount": 4, "started": True, "ready": True, "state": running(15), "lastState": ended(16, 31)},
        [event("liveness", STATUS + "404", 3, 9), killing("liveness", 17)],
        "liveness probe GET /nope on port http: 404,",
        "probes.liveness.httpGet.path",
    ),
    "slow": (
        {"liveness": SLOW},
        KILLED | {"lastState": ended(20, 90)},
        [event("liveness", TIMEOUT, 22, 3), killing("liveness", 22)],
        "liveness probe GET /nope on port http: no answer within 3 s,",
        "raise probes.liveness.timeoutSeconds",
    ),
    "refused": (
        {"startup": HTTP},
        STARTING,
        [event("startup", REFUSED, 15, 20)],
        "startup probe GET /nope on port http: connection refused",
        "listen on 0.0.0.0",
    ),
    "starting, with an answer": (
        {"startup": HTTP},
        STARTING | {"state": running(4)},
        [event("startup", STATUS + "404", 2, 1)],
        "startup probe GET /nope on port http: 404",
        "probes.startup.httpGet.path",
    ),
    "readiness": (
        {"startup": HTTP, "readiness": SLOW},
        SERVING,
        [event("startup", REFUSED, 119, 1), event("readiness", STATUS + "404")],
        "readiness probe GET /nope on port http: 404",
        "probes.readiness.httpGet.path",
    ),
    "an error of its own": (
        {"readiness": SLOW},
        SERVING,
        [event("readiness", STATUS + "503")],
        "readiness probe GET /nope on port http: 503",
        "the application's log",
    ),
    "combined events": (
        {"readiness": EXEC},
        SERVING,
        [
            event("readiness", "no answer yet at 1")
            | {"message": "(combined from similar events): Readiness probe failed: no"},
        ],
        "readiness probe exec `python check.py`: no",
        "probes.readiness.exec.command",
    ),
    "TCP": (
        {"readiness": {"tcpSocket": {"port": 9000}}},
        SERVING,
        [event("readiness", "dial tcp 10.0.0.9:9000: connect: connection refused")],
        "readiness probe TCP on port 9000: connection refused",
        "probes.readiness.tcpSocket.port",
    ),
    "TCP, silence": (
        {"readiness": {"tcpSocket": {"port": 9000}}},
        SERVING,
        [event("readiness", "dial tcp 10.0.0.9:9000: i/o timeout")],
        "readiness probe TCP on port 9000: no answer within 1 s",
        "probes.readiness.timeoutSeconds",
    ),
    "exec": (
        {"readiness": EXEC},
        SERVING,
        [
            event(
                "readiness",
                'Traceback (most recent call last):\n  File "/app/check.py", line 3, in <module>\nOSError: no disk\n',
            )
        ],
        "readiness probe exec `python check.py`: OSError: no disk (/app/check.py:3)",
        "probes.readiness.exec.command",
    ),
    "exec, nothing printed": (
        {"readiness": EXEC},
        SERVING,
        [event("readiness", "")],
        "readiness probe exec `python check.py`: the command failed and printed nothing",
        "probes.readiness.exec.command",
    ),
    "exec, too slow": (
        {"readiness": EXEC},
        SERVING,
        [event("readiness", 'command timed out: "python check.py" timed out after 1s')],
        "readiness probe exec `python check.py`: no answer within 1 s",
        "probes.readiness.exec.command",
    ),
    "exec, no such program": (
        {"readiness": EXEC},
        SERVING,
        [
            event("readiness", "")
            | {
                "message": "Readiness probe errored and resulted in unknown state: rpc error: code = Unknown desc ="
                ' failed to exec in container: failed to start exec "b1": OCI runtime exec failed: exec failed: unable'
                ' to start container process: exec: "curl": executable file not found in $PATH: unknown'
            },
        ],
        'readiness probe exec `python check.py`: exec: "curl": executable file not found in $PATH',
        "probes.readiness.exec.command",
    ),
    "gRPC": (
        {"readiness": {"grpc": {"port": 9000}}},
        SERVING,
        [event("readiness", 'service unhealthy (responded with "NOT_SERVING")')],
        'readiness probe gRPC on port 9000: service unhealthy (responded with "NOT_SERVING")',
        "probes.readiness.grpc",
    ),
    "HTTPS": (
        {"readiness": {"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}}},
        SERVING,
        [event("readiness", 'Get "https://10.0.0.9:8443/": http: server gave HTTP response to HTTPS client')],
        "readiness probe GET HTTPS / on port 8443: server gave HTTP response to HTTPS client",
        "probes.readiness.httpGet.scheme",
    ),
    "no event": (
        {"readiness": SLOW},
        SERVING,
        [],
        "readiness probe GET /nope on port http has not succeeded",
        "describe pods",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_probe(name: str) -> None:
    probes, status, events, cause, way_out = CASES[name]
    [line] = [one for one in diagnosis(probes, status, events) if "deployment/" not in one]
    assert cause in line
    assert way_out in line.partition(" Next: ")[2], line
    assert "again and again" not in line


def test_a_probe_of_another_container_names_where_its_values_are() -> None:
    events = [event("readiness", STATUS + "404", name="proxy")]
    [line] = diagnosis({"readiness": SLOW}, SERVING, events, name="proxy")
    assert "set sidecars (proxy).readinessProbe.httpGet.path" in line


def test_a_probe_of_a_component_names_its_section() -> None:
    events = [event("liveness", STATUS + "404"), killing("liveness", 21)]
    [line] = diagnosis({"liveness": SLOW}, KILLED, events, component="worker")
    assert "set components.worker.health.livenessPath or components.worker.probes.liveness.httpGet.path to one" in line


def test_the_databases_probe_is_no_value() -> None:
    events = [event("readiness", "rejecting", name="roles")]
    [line] = diagnosis({"readiness": EXEC}, SERVING, events, name="roles", component="postgresql")
    assert "readiness probe exec `python check.py`: rejecting" in line
    assert "probes." not in line


def test_the_log_of_one_that_does_not_answer() -> None:
    """gunicorn starts a worker whose application calls sys.exit() again and again, and never ends."""
    [line] = diagnosis({"startup": HTTP}, STARTING, [event("startup", REFUSED, 15, 20)], log="error: no TOKEN\n")
    assert "connection refused; its log says: error: no TOKEN. Next:" in line
    [line] = diagnosis(
        {"startup": HTTP}, KILLED, [event("startup", TIMEOUT, 25), killing("startup", 21)], previous="no TOKEN: error"
    )
    assert "so the kubelet restarts the container; its log says: no TOKEN: error. Next:" in line


def test_two_pods_with_one_cause_are_one_line() -> None:
    fake = Fake({"readiness": SLOW}, SERVING, [event("readiness", STATUS + "404")])
    twin = json.loads(json.dumps(fake.pod))
    twin["metadata"]["name"] = "shop-2"
    fake.items.append(twin)
    [line] = map(str, doctor.examine(fake, "shop"))
    assert line.startswith("pod/shop-1 (app), pod/shop-2 (app): readiness probe")


FAILED_JOB = {
    "kind": "Job",
    "metadata": {"name": "shop-migration", "uid": "job", "labels": {"app.kubernetes.io/component": "migration"}},
    "status": {"conditions": [{"type": "Failed", "status": "True"}]},
}


@pytest.mark.parametrize(("status", "named"), [("503", False), ("404", True)])
def test_an_error_is_the_effect_of_a_known_cause(status: str, named: bool) -> None:
    events = [event("readiness", STATUS + status)]
    lines = diagnosis({"readiness": SLOW}, SERVING, events, objects=[FAILED_JOB], log="KeyError: 'X'\n")
    assert "the migration failed" in lines[0]
    assert any("readiness probe" in line for line in lines) is named


# The container's status, and events that are history.
STALE: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "ready": ({"ready": True, "started": True}, [event("readiness", STATUS + "503"), event("startup", REFUSED)]),
    "killed once, ready since": (
        {"ready": True, "started": True, "restartCount": 1, "state": running(30), "lastState": ended(31, 61)},
        [event("startup", REFUSED, 32, 20), killing("startup", 32)],
    ),
    "liveness failed in the last run alone": (
        {"ready": True, "started": True, "restartCount": 1, "state": running(30), "lastState": ended(31, 61)},
        [event("liveness", TIMEOUT, 32, 3), killing("liveness", 32)],
    ),
    "liveness failed once, long ago": (
        {"ready": True, "started": True, "restartCount": 1, "state": running(3000), "lastState": ended(3001, 61)},
        [event("liveness", TIMEOUT, 2000, 4), killing("liveness", 3002)],
    ),
    "liveness failed just now, for the first time": (
        {"ready": True, "started": True, "state": running(3000)},
        [event("liveness", TIMEOUT, 2, 1)],
    ),
}


@pytest.mark.parametrize("name", STALE)
def test_history(name: str) -> None:
    status, events = STALE[name]
    assert diagnosis({"startup": HTTP, "liveness": SLOW, "readiness": SLOW}, status, events) == []


def test_readiness_after_a_start_that_succeeded() -> None:
    """The run before was ended by its startup probe; this one started, and waits for something else."""
    status = {"started": True, "restartCount": 1, "state": running(30), "lastState": ended(31, 61)}
    events = [event("startup", REFUSED, 32, 20), killing("startup", 32), event("readiness", STATUS + "404")]
    [line] = diagnosis({"startup": HTTP, "readiness": SLOW}, status, events)
    assert "readiness probe GET /nope on port http: 404. Next:" in line


def test_a_process_that_just_started() -> None:
    [line] = diagnosis({"startup": HTTP}, STARTING | {"state": running(4)}, [event("startup", REFUSED, 2, 2)])
    assert "no cause is visible yet" in line


# Ends that no probe made: the run's state, and the log.
CRASHES: dict[str, tuple[dict[str, Any], list[Any], str]] = {
    "by itself": (
        ended(20, 3, 3),
        [event("startup", REFUSED, 21, 2)],
        "(exit code 3): KeyError: 'TOKEN' (/app/wsgi.py:3)",
    ),
    "by itself, after a start that was slow": (
        ended(20, 900),
        [event("startup", REFUSED, 900, 20)],
        "(exit code 0): KeyError: 'TOKEN' (/app/wsgi.py:3)",
    ),
    "by itself, after an end by the kubelet": (
        ended(20, 3, 3),
        [event("startup", REFUSED, 90, 20), killing("startup", 90)],
        "(exit code 3): KeyError: 'TOKEN' (/app/wsgi.py:3)",
    ),
}
LOG = (
    "[2026-11-27 23:29:16 +0000] [7] [ERROR] Exception in worker process\nTraceback (most recent call last):\n"
    '  File "/app/wsgi.py", line 3, in <module>\n    os.environ["TOKEN"]\n  File "<frozen os>", line 679, in get\n'
    "KeyError: 'TOKEN'\n'TOKEN'\n[2026-11-27 23:29:16 +0000] [7] [INFO] Worker exiting (pid: 7)\n"
    "[2026-11-27 23:29:16 +0000] [1] [ERROR] Shutting down: Master\n"
    "[2026-11-27 23:29:16 +0000] [1] [ERROR] Reason: Worker failed to boot.\n"
)


@pytest.mark.parametrize("name", CRASHES)
def test_crash(name: str) -> None:
    last, events, cause = CRASHES[name]
    status = {"restartCount": 3, "state": WAITING, "lastState": last}
    [line] = [one for one in diagnosis({"startup": HTTP}, status, events, previous=LOG) if one.startswith("pod/")]
    assert f"it ends again and again {cause}. Next:" in line


def test_a_migration_says_its_exception() -> None:
    lines = diagnosis({}, {"ready": True}, [], objects=[FAILED_JOB], log=LOG)
    assert lines[0].startswith("job/shop-migration: the migration failed: KeyError: 'TOKEN' (/app/wsgi.py:3). Next:")
