"""A container: an image's files unpacked and run by runc, as containerd would."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster.oci import Layout


class Container:
    """The files of an image archive in `root`, and its configuration."""

    def __init__(self, archive: Path, root: Path) -> None:
        self.root = root
        layout = root.with_name(f"{root.name}-layout")
        layout.mkdir()
        subprocess.run(["tar", "-xf", str(archive), "-C", str(layout)], check=True)
        image = Layout.read(layout)
        self.config = image.config["config"]
        root.mkdir()
        for layer in image.layers:
            command = ["tar", "-xzf", str(image.blob(layer["digest"])), "-C", str(root), "--numeric-owner"]
            subprocess.run(command, check=True)

    def run(
        self, *arguments: str, user: int = 10001, environment: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command (default: the image's own) and wait for its end."""
        with self.started(*arguments, user=user, environment=environment) as process:
            output, _ = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, output)

    @contextmanager
    def started(
        self, *arguments: str, user: int = 10001, environment: dict[str, str] | None = None
    ) -> Iterator["subprocess.Popen[str]"]:
        """Run it with a read-only root, no capability, no new privileges, and the host's network."""
        name = f"flaskapp-test-{os.getpid()}-{time.monotonic_ns()}"
        bundle = self.root.with_name(name)
        bundle.mkdir()
        command = [*arguments] or [*self.config.get("Entrypoint", []), *self.config.get("Cmd", [])]
        variables = [*self.config["Env"], *(f"{key}={value}" for key, value in (environment or {}).items())]
        private = ["rw", "nosuid", "nodev", "mode=1777"]
        specification = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": user},
                "args": command,
                "env": variables,
                "cwd": self.config.get("WorkingDir") or "/",
                "noNewPrivileges": True,
                "capabilities": {},
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": private},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": private},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
        }
        (bundle / "config.json").write_text(json.dumps(specification))
        process = subprocess.Popen(
            ["runc", "run", "--bundle", str(bundle), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            subprocess.run(["runc", "delete", "--force", name], capture_output=True)
            process.wait(20)
            if process.stdout:
                process.stdout.close()


def get(url: str, seconds: float = 20) -> bytes:
    """The body at `url`, as soon as somebody answers there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
