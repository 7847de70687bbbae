"""Probes that keep a container from being ready, or that the kubelet restarts it for: request and response.

The kubelet keeps at most 25 events of a pod in a row and one in five minutes after them, so any event may be absent.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flaskapp_deploy import logcause

FAILED = re.compile(r"(?:\(combined from similar events\): )?(\w+) probe (?:failed|errored[^:]*): ?(.*)", re.DOTALL)
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

Object = dict[str, Any]
moment = datetime.fromisoformat
NEVER = datetime.min.replace(tzinfo=UTC)


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
        action = self.request.partition(" ")[0]
        if option := {"exec": "exec.command", "gRPC": "grpc"}.get(action):
            return f"correct {values}.{option}, or what it reports"
        if self.answered:
            return _remedy_of_status(self.answered, values)
        if self.why.startswith("no answer"):
            more = f", or {values}.failureThreshold" if self.kind == "startup" else ""
            return f"raise {values}.timeoutSeconds{more}; requests wait for `threads` and `resources.limits.cpu`, too"
        if "HTTP" in self.why:
            return f"correct {values}.httpGet.scheme"
        option = "httpGet.port" if action == "GET" else "tcpSocket.port"
        return f"let the application listen on 0.0.0.0 and the port of `port`, or correct {values}.{option}"


def _remedy_of_status(status: int, values: str) -> str:
    section, probes, kind = values.rpartition("probes.")
    path, headers = f"{values}.httpGet.path", f"{values}.httpGet.httpHeaders"
    if probes:  # a sidecar has no such section
        path = f"{section}health.{'livenessPath' if kind == 'liveness' else 'path'} or {path}"
    if status == 400:
        return (
            f"allow the Host header, which is the pod's IP (Django: ALLOWED_HOSTS), or set an allowed one in {headers}"
        )
    if status in {401, 403}:
        return f"set {path} to one that needs no login"
    if status >= 500:
        return f"correct what the application's log says, or set {path} to one that needs nothing else"
    return f"set {path} to one that answers GET with 200"


@dataclass(frozen=True)
class Container:
    """A container as its pod's status has it, with the pod's events."""

    pod: Object
    status: Object
    events: list[Object]
    now: datetime

    @property
    def name(self) -> str:
        """Its name in the pod."""
        return str(self.status["name"])

    @property
    def is_running(self) -> bool:
        """Whether its process runs just now."""
        return "running" in self.status["state"]

    @property
    def ended(self) -> Object:
        """How its last run ended; empty if none did."""
        state = self.status["state"].get("terminated") or self.status.get("lastState", {}).get("terminated")
        return dict(state or {})

    @property
    def ends_again(self) -> bool:
        """Whether it was restarted more than once, and recently."""
        if self.status["restartCount"] < 2 or self.status["ready"]:
            return False
        finished = self.ended.get("finishedAt")
        return not finished or self.now - moment(finished) <= HISTORY

    def values_path(self, kind: str) -> str:
        """Where the chart's values have the probe; empty for the database's, which has none there."""
        labels = self.pod["metadata"].get("labels", {})
        component = labels.get("app.kubernetes.io/component")
        if "pod-template-hash" not in labels:  # of no Deployment
            return ""
        if self.name != "app":
            return f"sidecars ({self.name}).{kind}Probe"
        return f"probes.{kind}" if component == "web" else f"components.{component}.probes.{kind}"

    def fatal(self) -> Failure | None:
        """The probe that the kubelet ended the container's last run for, where it does so again and again."""
        if not self.ended.get("startedAt"):
            return None
        for kind in ("startup", "liveness"):
            last = self.failure(kind)
            if last and self._ended_by(last) and (not self.is_running or self._goes_the_same_way(last)):
                return replace(last, kills=True)
        return None

    def unmet(self) -> Failure | None:
        """The probe that a running container waits for."""
        if not self.is_running or self.status["ready"]:
            return None
        started = moment(self.status["state"]["running"]["startedAt"])
        current = self.failure("startup" if self.status.get("started") is False else "readiness", started)
        if not current:
            return None
        settled = current.answered and current.answered < 500
        return current if settled or self.status["restartCount"] or current.last - started >= BOOT else None

    def silent(self) -> str:
        """The readiness probe's request to a running container that is not ready, where no event has the response."""
        if not self.is_running or self.status["ready"] or self.status.get("started") is False:
            return ""
        probe = self._probe("readiness")
        return f"readiness probe {request_of(probe)}" if probe else ""

    def failure(self, kind: str, since: datetime = NEVER) -> Failure | None:
        """What a probe of this kind got, of what the kubelet reported: an answer before none, and the most frequent."""
        probe, results = self._probe(kind), []
        for event in self._events("Unhealthy"):
            match = FAILED.match(event["message"])
            if match and match[1].lower() == kind and time_of(event) >= since:
                # Each run refuses connections until it has started, which may be most of a short run.
                results.append(("connection refused" not in match[2], _count(event), time_of(event), match[2]))
        if not probe or not results:
            return None
        last = max(time for *_, time, _ in results)
        *_, message = max(one for one in results if last - one[2] <= _recent(probe))
        code = STATUS.search(message)
        return Failure(kind, request_of(probe), answer(message, probe), int(code[1]) if code else 0, last)

    def _events(self, reason: str) -> list[Object]:
        """The pod's events that are the container's, which `fieldPath` names."""
        places = {"", *(f"spec.{kind}{{{self.name}}}" for kind in ("containers", "initContainers"))}
        events = [one for one in self.events if one["reason"] == reason]
        return [one for one in events if one["involvedObject"].get("fieldPath", "") in places]

    def _probe(self, kind: str) -> Object:
        specs = [*self.pod["spec"].get("initContainers", []), *self.pod["spec"]["containers"]]
        return next((dict(one.get(f"{kind}Probe") or {}) for one in specs if one["name"] == self.name), {})

    def _ended_by(self, failed: Failure) -> bool:
        """Whether the kubelet ended the last run for it: by its event, or by the run's length where that is absent."""
        probe, killed = self._probe(failed.kind), f"Container {self.name} failed {failed.kind} probe"
        started, finished = moment(self.ended["startedAt"]), moment(self.ended["finishedAt"])
        kills = [time_of(one) for one in self._events("Killing") if one["message"].startswith(killed)]
        if any(time >= started for time in kills):
            return True
        delay, threshold = probe.get("initialDelaySeconds", 0), probe.get("failureThreshold", 3)
        period, lasted = probe.get("periodSeconds", 10), (finished - started).total_seconds()
        if self.ended.get("exitCode") not in ENDED_BY_SIGNAL or lasted < delay + period * (threshold - 1) - MARGIN:
            return False
        if kills:
            return True
        grace = probe.get("terminationGracePeriodSeconds", self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        slowest = threshold * (period + probe.get("timeoutSeconds", 1)) + grace + 2 * MARGIN
        # Once it has started, the liveness probe may fail at any time, and the kubelet says so near the end.
        if failed.kind == "startup":
            return self.status.get("started") is not True and lasted <= delay + slowest
        return finished - timedelta(seconds=slowest) <= failed.last <= finished

    def _goes_the_same_way(self, failed: Failure) -> bool:
        """Whether the run after such an end fails as well."""
        if failed.kind == "startup":
            return self.status.get("started") is False
        if not self.status["ready"]:
            return self.now - moment(self.ended["finishedAt"]) <= HISTORY
        recent = self.now - failed.last <= _recent(self._probe(failed.kind))
        return recent and failed.last >= moment(self.status["state"]["running"]["startedAt"])


def request_of(probe: Object) -> str:
    """`GET /livez on port http`, as a person would say it."""
    if get := probe.get("httpGet"):
        scheme = "HTTPS " if get.get("scheme") == "HTTPS" else ""
        host = f" of {get['host']}" if get.get("host") else ""
        return f"GET {scheme}{get.get('path', '/')} on port {get['port']}{host}"
    for kind, name in (("tcpSocket", "TCP"), ("grpc", "gRPC")):
        if action := probe.get(kind):
            return f"{name} on port {action['port']}"
    return f"exec `{short(' '.join(probe.get('exec', {}).get('command', [])), 60)}`"


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
        return short("the command failed and printed nothing" if text == logcause.NOTHING else text, 160)
    return short(message.rpartition(": ")[2] if message.startswith(("Get ", "dial ")) else message, 160)


def time_of(event: Object) -> datetime:
    """When an event was last seen."""
    series = event.get("series") or {}
    text = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime")
    return moment(text) if text else NEVER


def short(text: str, limit: int = 240) -> str:
    """The text as one line of at most `limit` characters."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _count(event: Object) -> int:
    return int(event.get("count") or (event.get("series") or {}).get("count") or 1)


def _recent(probe: Object) -> timedelta:
    return timedelta(seconds=max(60, 3 * probe.get("periodSeconds", 10)))
