"""A container: an image's files unpacked and run by runc, as containerd would, for tests of the image."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import requests

from flaskapp_deploy import shell
from flaskapp_deploy.images.oci import Layout


class Container:
    """The files of an image in `root`, and its configuration.

    `emulator` is a static program that runs those of another architecture, with nothing registered in the kernel.
    """

    def __init__(self, image: Layout, root: Path, emulator: Path | None = None) -> None:
        self.root, self.emulated = root, emulator is not None
        self.config = image.config["config"]
        root.mkdir()
        for layer in image.layers:
            shell.run("tar", "-xzf", image.blob(layer["digest"]), "-C", root, "--numeric-owner")
        if emulator:
            shutil.copy(emulator, root / "emulator")

    @contextmanager
    def started(
        self, *arguments: str, user: int = 10001, environment: Mapping[str, str] = {}, mounts: Mapping[str, Path] = {}
    ) -> Iterator["subprocess.Popen[str]"]:
        """Run it with a read-only root, no capability, no new privileges, and the host's network.

        `mounts` are files and folders of this machine by their path in there.
        """
        name = f"flaskapp-test-{uuid4()}"
        bundle = self.root.with_name(name)
        bundle.mkdir()
        command = [*arguments] or [*self.config.get("Entrypoint", []), *self.config.get("Cmd", [])]
        if self.emulated:
            command = ["/emulator", self._found(command[0]), *command[1:]]
        variables = [*self.config["Env"], *(f"{key}={value}" for key, value in environment.items())]
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
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": private},  # noqa: S108
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": private},  # noqa: S108
                *(
                    {"destination": path, "source": str(source), "options": ["rbind"]}
                    for path, source in mounts.items()
                ),
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
        }
        (bundle / "config.json").write_text(json.dumps(specification))
        command, nothing, pipe = ["runc", "run", "--bundle", str(bundle), name], subprocess.DEVNULL, subprocess.PIPE
        process = subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            shell.run("runc", "delete", "--force", name, check=False)
            process.wait(20)
            if process.stdout:
                process.stdout.close()

    def _found(self, program: str) -> str:
        """The program's file by the image's PATH: the emulator doesn't look for it."""
        path = dict(variable.split("=", 1) for variable in self.config["Env"]).get("PATH", "/usr/bin:/bin")
        places = (f"{folder}/{program}" for folder in path.split(":"))
        return next((place for place in places if os.path.lexists(f"{self.root}/{place}")), program)


def get(
    url: str, seconds: float = 20, process: "subprocess.Popen[str] | None" = None, *, anything: bool = False
) -> bytes:
    """The body at `url`, as soon as somebody answers there; `process` is who should: its end ends the wait.

    With `anything`, an error is an answer as well.
    """
    deadline = time.monotonic() + seconds
    while True:
        ended = process is not None and process.poll() is not None
        try:
            answer = requests.get(url, timeout=5)
            if not anything:
                answer.raise_for_status()
            return answer.content
        except OSError:  # what requests raises is one
            if ended or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
