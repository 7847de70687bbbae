"""Requests at a constant rate whatever the answers (open loop, by vegeta), and the client's record of each.

Three reads and a write take turns, through every entry in turn; half of them on a connection of their own. Each write
has a version of its own and an Idempotency-Key, so the database can be asked for it afterwards.
"""

import base64
import json
import subprocess
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from flaskapp_deploy import programs, shell
from flaskapp_deploy.shell import DeployError

RATE = 40  # requests a second: what leaves room on two shared cores
TIMEOUT = 10  # seconds after which the client gives up


@dataclass(frozen=True)
class Answer:
    """What became of a request. Times are seconds; `code` 0 is no answer at all."""

    at: float
    latency: float
    code: int
    retry_after: bool
    error: str
    version: str  # of the deployment that this answer acknowledges, else empty

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return 200 <= self.code < 300

    @property
    def refused(self) -> bool:
        """Whether the client is to come back: the only failure that it can do something about."""
        return self.code == 503 and self.retry_after

    @property
    def end(self) -> float:
        """The moment at which the answer was complete."""
        return self.at + self.latency


class Load:
    """Requests from `start` to `stop`; vegeta leaves their results in a file."""

    def __init__(self, entries: list[str], token: str, service: str, results: Path) -> None:
        self.entries, self.token, self.service, self.results = entries, token, service, results
        self.keys: dict[str, str] = {}  # Idempotency-Key of each version that was sent
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to send."""
        self.results.parent.mkdir(parents=True, exist_ok=True)
        options = [f"-rate={RATE}", f"-timeout={TIMEOUT}s", f"-output={self.results}", "-duration=0"]
        command = [vegeta(), "attack", "-lazy", "-format=json", *options]
        self._vegeta = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def stop(self) -> list[Answer]:
        """End the load, wait for the last answers, and return them all in the order of their sending."""
        self._stop.set()
        self._feeder.join()
        # What was fed and waits in the pipe is still sent.
        self._vegeta.stdin = None  # closed by the feeder
        _, stderr = self._vegeta.communicate(timeout=60)
        if self._vegeta.returncode:
            raise DeployError(f"vegeta ended with {self._vegeta.returncode}: {shell.tail(stderr, 1)}")
        return answers(self.results)

    def _feed(self) -> None:
        number = 0
        stdin = self._vegeta.stdin
        assert stdin is not None
        with suppress(BrokenPipeError), stdin:
            while not self._stop.is_set():
                stdin.write(json.dumps(self.target(number)) + "\n")
                stdin.flush()
                number += 1
                # A little faster than the load, so that it never waits, and never far ahead of it.
                self._stop.wait(0.5 / RATE if number > RATE else 0)

    def target(self, number: int) -> dict[str, Any]:
        """Return the request of that number, as vegeta reads it."""
        turn, entry = divmod(number, len(self.entries))
        header = {"Connection": "close"} if turn // 4 % 2 else {}
        paths = (
            "/api/v1/deployments",
            f"/api/v1/deployments?service={self.service}&limit=5",
            f"/api/v1/services/{self.service}",
            f"/services/{self.service}",
        )
        target: dict[str, Any] = {"method": "GET", "url": self.entries[entry] + paths[turn % 4]}
        if turn % 4 == 0:
            body = base64.b64encode(json.dumps(self._body(str(number))).encode()).decode()
            header |= self._headers(str(number)) | {"Content-Type": "application/json"}
            target |= {"method": "POST", "body": body}
        return target | {"header": {name: [value] for name, value in header.items()}}

    def send(self, version: str) -> bool:
        """Write a version, or write it again with its Idempotency-Key; return whether it was acknowledged."""
        url, headers = f"{self.entries[0]}/api/v1/deployments", self._headers(version)
        with suppress(requests.RequestException):
            return requests.post(url, json=self._body(version), headers=headers, timeout=5).status_code == 201
        return False

    def _headers(self, version: str) -> dict[str, str]:
        key = self.keys.setdefault(version, uuid.uuid4().hex)
        return {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key}

    def _body(self, version: str) -> dict[str, str]:
        return {"service": self.service, "environment": "production", "version": version, "status": "succeeded"}


def vegeta() -> str:
    """Return the path of the load generator."""
    return str(programs.binaries("release") / "vegeta")


def answers(results: Path) -> list[Answer]:
    """Return vegeta's results, in the order of sending."""
    lines = shell.run(vegeta(), "encode", "-to=json", results).stdout.splitlines()
    # The end of the feed looks like a request.
    sent = [result for result in map(json.loads, lines) if result["error"] != "no targets to attack"]
    return [_answer(result) for result in sorted(sent, key=lambda result: int(result["seq"]))]


def _answer(result: dict[str, Any]) -> Answer:
    acknowledged = result["method"] == "POST" and result["code"] == 201
    return Answer(
        at=datetime.fromisoformat(result["timestamp"]).timestamp(),
        latency=result["latency"] / 1e9,
        code=result["code"],
        retry_after="retry-after" in map(str.lower, result["headers"] or {}),
        error=result["error"],
        version=json.loads(base64.b64decode(result["body"]))["version"] if acknowledged else "",
    )
