"""Requests at a constant rate whatever the answers (open loop, by vegeta), and the client's record of each.

Three reads and a write take turns, through every entry in turn; half of them on a connection of their own. Each write
has a version of its own and an Idempotency-Key, so the database can be asked for it afterwards.
"""

import base64
import json
import subprocess
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flaskapp_deploy import programs

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
    url: str
    version: str  # of the deployment that this answer acknowledges, else empty

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    @property
    def refused(self) -> bool:
        """Told to come back: the only failure that a client can do something about."""
        return self.code == 503 and self.retry_after

    @property
    def end(self) -> float:
        return self.at + self.latency


class Load:
    """Runs from `start` to `stop`."""

    def __init__(self, entries: Sequence[str], token: str, service: str, results: Path, rate: int = RATE) -> None:
        self.entries, self.token, self.service, self.rate = list(entries), token, service, rate
        self.results = results
        self.keys: dict[str, str] = {}  # Idempotency-Key of each version that was sent
        self._stop = threading.Event()

    def start(self) -> None:
        self.results.parent.mkdir(parents=True, exist_ok=True)
        command = [str(programs.binaries("release") / "vegeta"), "attack", "-lazy", "-format=json", "-duration=0"]
        options = [f"-rate={self.rate}", f"-timeout={TIMEOUT}s", f"-output={self.results}"]
        self._vegeta = subprocess.Popen([*command, *options], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def stop(self) -> list[Answer]:
        """End the load, wait for the last answers, and return them all in the order of their sending."""
        self._stop.set()
        self._feeder.join()
        # What was fed and waits in the pipe is still sent.
        self._vegeta.stdin = None  # closed by the feeder
        _, said = self._vegeta.communicate(timeout=60)
        if self._vegeta.returncode:
            raise RuntimeError(f"vegeta ended with {self._vegeta.returncode}: {said.strip()[-300:]}")
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
                self._stop.wait(0.5 / self.rate if number > self.rate else 0)

    def target(self, number: int) -> dict[str, Any]:
        """The request of that number, as vegeta reads it."""
        turn, entry = divmod(number, len(self.entries))
        url = self.entries[entry]
        header = {"Connection": ["close"]} if turn // 4 % 2 else {}
        match turn % 4:
            case 0:
                return self._write(url, str(number), header)
            case 1:
                return {"method": "GET", "url": f"{url}/api/v1/deployments?service={self.service}&limit=5"} | {
                    "header": header
                }
            case 2:
                return {"method": "GET", "url": f"{url}/api/v1/services/{self.service}", "header": header}
            case _:
                return {"method": "GET", "url": f"{url}/services/{self.service}", "header": header}

    def _write(self, url: str, version: str, header: dict[str, list[str]]) -> dict[str, Any]:
        self.keys[version] = uuid.uuid4().hex
        headers = {name: [value] for name, value in self.headers(version).items()}
        body = base64.b64encode(json.dumps(self.body(version)).encode()).decode()
        return {
            "method": "POST",
            "url": f"{url}/api/v1/deployments",
            "header": header | headers | {"Content-Type": ["application/json"]},
            "body": body,
        }

    def headers(self, version: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Idempotency-Key": self.keys[version]}

    def body(self, version: str) -> dict[str, str]:
        return {"service": self.service, "environment": "production", "version": version, "status": "succeeded"}


def answers(results: Path) -> list[Answer]:
    """vegeta's results, in the order of sending."""
    vegeta = str(programs.binaries("release") / "vegeta")
    lines = subprocess.run([vegeta, "encode", "-to=json", str(results)], capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in lines.stdout.splitlines()]
    sent = [result for result in found if result["error"] != "no targets to attack"]  # how the end of the feed looks
    return [_answer(result) for result in sorted(sent, key=lambda result: result["seq"])]


def _answer(result: dict[str, Any]) -> Answer:
    acknowledged = result["method"] == "POST" and result["code"] == 201
    headers = {name.lower() for name in result["headers"] or {}}
    return Answer(
        at=datetime.fromisoformat(_microseconds(result["timestamp"])).timestamp(),
        latency=result["latency"] / 1e9,
        code=result["code"],
        retry_after="retry-after" in headers,
        error=result["error"],
        url=result["url"],
        version=json.loads(base64.b64decode(result["body"]))["version"] if acknowledged else "",
    )


def _microseconds(timestamp: str) -> str:
    """Go's nanoseconds, cut to what Python 3.11 reads."""
    if "." not in timestamp:
        return timestamp
    whole, _, rest = timestamp.partition(".")
    digits = "".join(character for character in rest[:9] if character.isdigit())
    zone = rest.lstrip("0123456789")
    return f"{whole}.{digits[:6]:0<6}{zone}"
