"""Amazon ECR's stand-in on this machine: CNCF Distribution, with ECR's rules in front, over TLS."""

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import yaml

from flaskapp_deploy import programs, shell
from flaskapp_deploy.cluster.pki import Authority

PACKAGES = Path(__file__).parents[2]
SECONDS = 20
# As in ECR, a token of `aws ecr get-login-password` ends after twelve hours.
TOKEN_LIFE = 12 * 3600


@dataclass(frozen=True)
class Registry:
    """A running registry at `address` (`HOST:PORT`), its state in `home`.

    `certificates` is a bundle, this machine's authorities and the registry's own, for SSL_CERT_FILE.
    """

    address: str
    home: Path

    @property
    def certificates(self) -> Path:
        """The bundle."""
        return self.home / "certificates.pem"

    def create(self, repository: str, movable: Sequence[str] = ("cache*",)) -> None:
        """Create a repository. Its tags can't be moved, but for those that match a pattern of `movable`."""
        self._change("repositories.json", repository, list(movable))

    def token(self, seconds: float = TOKEN_LIFE) -> str:
        """Make a password for the user `AWS` that ends after `seconds`."""
        token = secrets.token_urlsafe(32)
        self._change("tokens.json", token, time.time() + seconds)
        return token

    def _change(self, name: str, key: str, value: object) -> None:
        path = self.home / name
        with shell.locked(self.home / "lock", f"waiting for another change of {path}"):
            content = json.loads(path.read_text()) if path.exists() else {}
            shell.write_atomic(path, json.dumps(content | {key: value}), 0o600)


@contextmanager
def serve(home: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Registry]:
    """Run a registry that keeps everything in `home`; `port` 0 takes a free one. It ends with this process."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = Authority(home / "pki", "registry")
    certificate, key = authority.issue("server", "registry", addresses=["localhost", IPv4Address(host)])
    others = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    bundle = authority.certificate_path.read_text() + (others.read_text() if others.exists() else "")
    (home / "certificates.pem").write_text(bundle)
    with distribution(home) as upstream:
        application = f"flaskapp_deploy.rehearsal.ecr:create_app({f'http://{upstream}'!r}, {str(home)!r})"
        command = [sys.executable, "-m", "gunicorn", "--bind", f"{host}:{port}", "--worker-class", "gthread"]
        command += ["--threads", "8", "--no-control-socket", "--certfile", str(certificate), "--keyfile", str(key)]
        with _process([*command, application], home / "rules.log", r"Listening at: https://(\S+)") as address:
            yield Registry(address, home)


@contextmanager
def distribution(home: Path) -> Iterator[str]:
    """Run CNCF Distribution alone, on a free port of this machine; give its `HOST:PORT`. It asks for no login."""
    configuration = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "text", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(home / "storage")}},
        "http": {"addr": "127.0.0.1:0", "relativeurls": True},
    }
    settings = home / "distribution.yaml"
    settings.write_text(yaml.safe_dump(configuration))
    command = [str(programs.binaries("registry") / "registry"), "serve", str(settings)]
    with _process(command, home / "distribution.log", r"listening on ([\d.]+:\d+)") as address:
        yield address


@contextmanager
def _process(command: Sequence[str], log: Path, ready: str) -> Iterator[str]:
    """Run a server until the block ends; give what the `ready` expression finds in its log."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGES), "OTEL_TRACES_EXPORTER": "none"}
    # It ends with its parent, however that ends.
    line = ["setpriv", "--pdeathsig=TERM", *command]
    process = shell.start(line, log, env=environment, cwd=log.parent)

    def addresses() -> list[str]:
        return re.findall(ready, log.read_text(errors="replace"))

    try:
        shell.wait_until(lambda: bool(addresses()), SECONDS, "the registry", [log], lambda: process.poll() is None)
        yield addresses()[0]
    finally:
        shell.stop(process)
