"""Probes that keep a container from being ready, or that the kubelet restarts it for: request and response.

The kubelet keeps at most 25 events of a pod in a row and one in five minutes after them, so any event may be absent.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flaskapp_deploy import logcause

KINDS = ("startup", "liveness", "readiness")
FAILED = re.compile(r"(?:\(combined from similar events\): )?(\w+) probe (?:failed|errored[^:]*): ?(.*)", re.DOTALL)
KILLED = re.compile(r"Container (\S+) failed (\w+) probe")
STATUS = re.compile(r"HTTP probe failed with statuscode: (\d+)")
EXEC_TIMEOUT = re.compile(r'command (timed out|"[^"]*" timed out)|timed out after \d|context deadline exceeded$')
TIMEOUT = re.compile(r"deadline exceeded|Client\.Timeout|i/o timeout|timed out|timeout: failed to connect")
# gunicorn ends with 0 on SIGTERM; others with 128 + the signal.
ENDED_BY_SIGNAL = {0, 137, 143}
# A process that starts refuses connections for a while.
BOOT = timedelta(seconds=10)
# An end as long ago is history: no back-off is longer than five minutes.
HISTORY = timedelta(minutes=10)
MARGIN = 5  # seconds between what the kubelet sees and what it writes
CUT = 160

Object = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A failing probe. `answered` is an HTTP status, 0 where none came; `why` what came, in few words."""

    kind: str
    request: str
    why: str
    answered: int
    last: datetime
    kills: bool = False

    def __str__(self) -> str:
        restarts = ", so the kubelet restarts the container" if self.kills else ""
        return f"{self.kind} probe {self.request}: {self.why}{restarts}"

    @property
    def needs_log(self) -> bool:
        """The application did not answer, or with an error of its own: its log may know more."""
        return not self.answered or self.answered >= 500

    def remedy(self, values: str) -> str:
        """What to do; `values` is the path of the probe in the chart's values."""
        if self.request.startswith("exec "):
            return f"correct {values}.exec.command, or what it reports"
        if self.request.startswith("gRPC "):
            return f"correct {values}.grpc, or what the application reports"
        if self.request.startswith("GET ") and self.answered:
            return _remedy_of_status(self.answered, values)
        if self.why.startswith("no answer"):
            more = f", or {values}.failureThreshold" if self.kind == "startup" else ""
            return f"raise {values}.timeoutSeconds{more}; requests wait for `threads` and `resources.limits.cpu`, too"
        if "HTTP" in self.why:
            return f"correct {values}.httpGet.scheme"
        action = "httpGet.port" if self.request.startswith("GET ") else "tcpSocket.port"
        return f"let the application listen on 0.0.0.0 and the port of `port`, or correct {values}.{action}"


def _remedy_of_status(status: int, values: str) -> str:
    path = f"{values}.httpGet.path"
    if status == 400:
        return (
            f"allow the Host header, which is the pod's IP (Django: ALLOWED_HOSTS), or set an allowed one in"
            f" {values}.httpGet.httpHeaders"
        )
    if status in {401, 403}:
        return f"set {path} to one that needs no login"
    if status >= 500:
        return f"correct what the application's log says, or set {path} to one that needs nothing else"
    return f"set {path} to one that answers GET with 200"


def fatal(pod: Object, status: Object, events: Sequence[Object], now: datetime) -> Failure | None:
    """The probe that the kubelet ended the container's last run for, where it does so again and again."""
    ended = status["state"].get("terminated") or status.get("lastState", {}).get("terminated")
    if not ended or not ended.get("startedAt"):
        return None
    for kind in ("startup", "liveness"):
        last = failure(pod, status, events, kind)
        if not last or not _ended_by(kind, _probe(pod, status, kind), pod, status, ended, events):
            continue
        if "running" not in status["state"] or _again(pod, status, last, ended, now):
            return replace(last, kills=True)
    return None


def unmet(pod: Object, status: Object, events: Sequence[Object]) -> Failure | None:
    """The probe that a running container waits for."""
    if "running" not in status["state"] or status["ready"]:
        return None
    kind = "startup" if status.get("started") is False else "readiness"
    started = moment(status["state"]["running"]["startedAt"])
    current = failure(pod, status, [one for one in events if time_of(one) >= started], kind)
    if not current:
        return None
    settled = current.answered and current.answered < 500
    return current if settled or status["restartCount"] or current.last - started >= BOOT else None


def silent(pod: Object, status: Object) -> str:
    """The readiness probe's request to a running container that is not ready, where no event has the response."""
    if "running" not in status["state"] or status["ready"] or status.get("started") is False:
        return ""
    probe = _probe(pod, status, "readiness")
    return f"readiness probe {request_of(probe)}" if probe else ""


def failure(pod: Object, status: Object, events: Iterable[Object], kind: str) -> Failure | None:
    """What a probe of this kind got, of what the kubelet reported: an answer before none, and the most frequent."""
    probe, results = _probe(pod, status, kind), []
    for event in _of(status, events, "Unhealthy"):
        match = FAILED.match(event["message"])
        if match and match[1].lower() == kind:
            # Each run refuses connections until it has started, which may be most of a short run.
            results.append(("connection refused" not in match[2], _count(event), time_of(event), match[2]))
    if not probe or not results:
        return None
    last = max(time for *_, time, _ in results)
    *_, message = max(one for one in results if last - one[2] <= _recent(probe))
    code = STATUS.search(message)
    return Failure(kind, request_of(probe), answer(message, probe), int(code[1]) if code else 0, last)


def request_of(probe: Object) -> str:
    """`GET /livez on port http`, as a person would say it."""
    if get := probe.get("httpGet"):
        scheme = "HTTPS " if get.get("scheme") == "HTTPS" else ""
        host = f" of {get['host']}" if get.get("host") else ""
        return f"GET {scheme}{get.get('path', '/')} on port {get['port']}{host}"
    if tcp := probe.get("tcpSocket"):
        return f"TCP on port {tcp['port']}"
    if grpc := probe.get("grpc"):
        return f"gRPC on port {grpc['port']}"
    command = " ".join(" ".join(probe.get("exec", {}).get("command", [])).split())
    return f"exec `{command if len(command) <= 60 else command[:59] + '…'}`"


def answer(message: str, probe: Object) -> str:
    """What came back, in few words."""
    if code := STATUS.search(message):
        return code[1]
    if (EXEC_TIMEOUT if "exec" in probe else TIMEOUT).search(message):
        return f"no answer within {probe.get('timeoutSeconds', 1)} s"
    if "connection refused" in message:
        return "connection refused"
    if "exec" in probe:
        absent = re.search(r'exec: "[^"]*": .*?(?=: unknown|$)', message)
        text = absent[0] if absent else logcause.cause(message)
        return _short("the command failed and printed nothing" if text == logcause.NOTHING else text)
    return _short(message.rpartition(": ")[2] if message.startswith(("Get ", "dial ")) else message)


def values_path(status: Object, labels: Object, kind: str) -> str:
    """Where the chart's values have the probe; empty for the database's, which has none there."""
    if labels.get("app.kubernetes.io/component") == "web":
        return f"probes.{kind}" if status["name"] == "app" else f"sidecars ({status['name']}).{kind}Probe"
    return ""


def moment(text: str) -> datetime:
    """Parse a time as the API server writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def time_of(event: Object) -> datetime:
    """When an event was last seen."""
    series = event.get("series") or {}
    text = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime")
    return moment(text) if text else datetime.min.replace(tzinfo=UTC)


def _count(event: Object) -> int:
    return int(event.get("count") or (event.get("series") or {}).get("count") or 1)


def _of(status: Object, events: Iterable[Object], reason: str) -> list[Object]:
    """The events of a container, which `fieldPath` names."""
    places = {"", *(f"spec.{kind}{{{status['name']}}}" for kind in ("containers", "initContainers"))}
    return [one for one in events if one["reason"] == reason and one["involvedObject"].get("fieldPath", "") in places]


def _probe(pod: Object, status: Object, kind: str) -> Object:
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return next((dict(one.get(f"{kind}Probe") or {}) for one in containers if one["name"] == status["name"]), {})


def _ended_by(kind: str, probe: Object, pod: Object, status: Object, ended: Object, events: Sequence[Object]) -> bool:
    """Whether the kubelet ended this run for the probe: by its event, or by the run's length where that is absent."""
    started, finished = moment(ended["startedAt"]), moment(ended["finishedAt"])
    kills = [
        time_of(one)
        for one in _of(status, events, "Killing")
        if (match := KILLED.match(one["message"])) and (match[1], match[2]) == (status["name"], kind)
    ]
    if any(time >= started for time in kills):
        return True
    period, threshold = probe.get("periodSeconds", 10), probe.get("failureThreshold", 3)
    shortest = probe.get("initialDelaySeconds", 0) + period * (threshold - 1) - MARGIN
    if ended.get("exitCode") not in ENDED_BY_SIGNAL or finished - started < timedelta(seconds=shortest):
        return False
    if kills:
        return True
    grace = probe.get("terminationGracePeriodSeconds", pod["spec"].get("terminationGracePeriodSeconds", 30))
    slowest = threshold * (period + probe.get("timeoutSeconds", 1)) + grace + 2 * MARGIN
    longest = probe.get("initialDelaySeconds", 0) + slowest
    # Once it has started, the liveness probe may fail at any time, and the kubelet says so near the end.
    if kind == "startup":
        return status.get("started") is not True and finished - started <= timedelta(seconds=longest)
    last = failure(pod, status, events, kind)
    return last is not None and finished - timedelta(seconds=slowest) <= last.last <= finished


def _again(pod: Object, status: Object, failed: Failure, ended: Object, now: datetime) -> bool:
    """Whether the run after such an end goes the same way, rather than well."""
    if failed.kind == "startup":
        return status.get("started") is False
    if not status["ready"]:
        return now - moment(ended["finishedAt"]) <= HISTORY
    recent = now - failed.last <= _recent(_probe(pod, status, failed.kind))
    return recent and failed.last >= moment(status["state"]["running"]["startedAt"])


def _recent(probe: Object) -> timedelta:
    return timedelta(seconds=max(60, 3 * probe.get("periodSeconds", 10)))


def _short(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= CUT else f"{line[: CUT - 1]}…"
