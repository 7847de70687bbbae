"""The first `make up` of a machine: with empty caches, once compiled, and once downloaded from a mirror here."""

import functools
import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from flaskapp_deploy import programs
from flaskapp_deploy.programs import downloads

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("kubernetes", "images", "chart")
STEP = re.compile(r"^(\w+) tools(?:, \d+ of \d+: (\S+) .*\((\d+) s so far\)|: \d+ ready after (\d+) s)$", re.MULTILINE)


def first_up(instance: str, settings: Mapping[str, str]) -> tuple[float, str]:
    """Run `make up` with empty caches of this project, of pip and of Go; return its seconds, and what it printed."""
    with tempfile.TemporaryDirectory(prefix="cold-") as folder:
        empty = {"XDG_CACHE_HOME": folder, "GOCACHE": f"{folder}/go-build", "GOPATH": f"{folder}/go"}
        command = ["make", "--no-print-directory", "up", f"INSTANCE={instance}"]
        began = time.monotonic()
        result = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **empty, **settings}, capture_output=True, text=True
        )
        took = time.monotonic() - began
    if result.returncode:
        raise RuntimeError(f"`make up` failed: {result.stderr.strip().splitlines()[-1]}")
    return took, result.stderr


def shares(log: str) -> dict[str, int]:
    """Return the seconds that each program was compiled for; groups are compiled at the same time."""
    seconds: dict[str, int] = {}
    current: dict[str, tuple[str, int]] = {}
    for group, name, began, ended in STEP.findall(log):
        if group in current:
            last, since = current.pop(group)
            seconds[last] = int(began or ended) - since
        if name:
            current[group] = (name, int(began))
    return seconds


@contextmanager
def mirror() -> Iterator[dict[str, str]]:
    """Serve the programs of this machine by pins with their checksums; the settings lead `make up` to them."""
    directories = {group: programs.binaries(group) for group in GROUPS}
    with tempfile.TemporaryDirectory() as folder:
        handler = functools.partial(_Quiet, directory=folder)
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            pins = {}
            for group, directory in directories.items():
                (Path(folder) / group).symlink_to(directory)
                for tool in programs.tools_of(group):
                    checksum = hashlib.sha256((directory / tool.name).read_bytes()).hexdigest()
                    architecture = downloads.ARCHITECTURES[platform.machine()]
                    url = f"http://127.0.0.1:{server.server_port}/{group}/{tool.name}"
                    pins[tool.name] = {"url": url, "checksums": {tool.version: {architecture: checksum}}}
            (Path(folder) / "pins.json").write_text(json.dumps(pins))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield {"FLASKAPP_PINS": f"{folder}/pins.json"}
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Leave the terminal to the figures."""
