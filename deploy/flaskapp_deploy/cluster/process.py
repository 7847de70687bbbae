"""Long-running processes: started detached, recorded by id and start time, found again and ended by id."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

# Held so that Python neither warns of children that outlive it nor leaves ended ones behind.
_children: list["subprocess.Popen[bytes]"] = []


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
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=os.environ | (environment or {}),
                cwd="/",
            )
        _children.append(child)
        self.record.write_text(json.dumps({"pid": child.pid, "started": _started(child.pid), "command": command}))
        return True

    def stop(self, grace: float = 10) -> None:
        """End it: SIGTERM, then SIGKILL after `grace` seconds (0: at once)."""
        signals = [(signal.SIGTERM, grace)] if grace else []
        for number, limit in (*signals, (signal.SIGKILL, 10)):
            if (pid := self.pid) is not None:
                os.kill(pid, number)
                self._wait(limit)
        self.record.unlink(missing_ok=True)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.pid is not None and time.monotonic() < deadline:
            for child in _children:
                child.poll()
            time.sleep(0.05)


def _started(pid: int) -> str | None:
    """Return boot and clock tick at which a process started; None where there is none or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else f"{boot} {fields[19]}"
