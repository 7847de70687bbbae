"""Long-running processes: started detached, recorded by id and start time, found again and ended by id."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from flaskapp_deploy.shell import start

_children: list["subprocess.Popen[bytes]"] = []  # held, or Python warns of those that outlive it


class Process:
    """A process known by the file that records it; the record names its start time, so ids can't be mistaken."""

    def __init__(self, record: Path) -> None:
        self.record = record

    @property
    def pid(self) -> int | None:
        """The id while it runs, else None."""
        try:
            document = json.loads(self.record.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return document["pid"] if _started(document["pid"]) == document["started"] else None

    @property
    def command(self) -> list[str]:
        """What the recorded process was started with."""
        return list(json.loads(self.record.read_text())["command"])

    def ensure(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> bool:
        """Run `command` unless just that runs already; return whether it was started."""
        if self.pid is not None:
            if self.command == command:
                return False
            self.stop()
        self.record.parent.mkdir(parents=True, exist_ok=True)
        child = start(command, log, "ab", env=os.environ | (environment or {}), cwd="/")
        _children.append(child)
        self.record.write_text(json.dumps({"pid": child.pid, "started": _started(child.pid), "command": command}))
        return True

    def stop(self, grace: float = 10) -> None:
        """End it: SIGTERM, then SIGKILL after `grace` seconds (0: at once)."""
        for number, limit in ((signal.SIGTERM, grace), (signal.SIGKILL, 10)):
            if limit and (pid := self.pid) is not None:
                os.kill(pid, number)
                deadline = time.monotonic() + limit
                while self.pid is not None and time.monotonic() < deadline:
                    time.sleep(0.05)
        self.record.unlink(missing_ok=True)


def _started(pid: int) -> str | None:
    """Return boot and clock tick at which a process started; None where there is none or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else f"{boot} {fields[19]}"
