"""Amazon ECR's stand-in on this machine: CNCF Distribution, with ECR's rules in front, over TLS.

python -m flaskapp_deploy.rehearsal.registry --repository flaskapp --repository charts/flaskapp

prints the address, a login line and the certificates to trust, and serves until it is interrupted.
"""

import argparse
import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import yaml

from flaskapp_deploy import programs, shell
from flaskapp_deploy.cluster.pki import Authority
from flaskapp_deploy.shell import DeployError

PACKAGES = Path(__file__).parents[2]
SECONDS = 20
# As in ECR, a token of `aws ecr get-login-password` ends after twelve hours.
TOKEN_LIFE = 12 * 3600


class RegistryError(DeployError):
    """The registry can't be started; the message says why."""


@dataclass(frozen=True)
class Registry:
    """A running registry at `address` (`HOST:PORT`), its state in `home`.

    `certificates` is a bundle, this machine's authorities and the registry's own, for SSL_CERT_FILE.
    """

    address: str
    home: Path

    @property
    def certificates(self) -> Path:
        return self.home / "certificates.pem"

    def create(self, repository: str, movable: Sequence[str] = ("cache*",)) -> None:
        """Create a repository. Its tags can't be moved, but for those that match a pattern of `movable`."""
        self._change("repositories.json", repository, list(movable))

    def token(self, seconds: float = TOKEN_LIFE) -> str:
        """A password for the user `AWS` that ends after `seconds`."""
        token = secrets.token_urlsafe(32)
        self._change("tokens.json", token, time.time() + seconds)
        return token

    def docker_config(self, directory: Path, seconds: float = TOKEN_LIFE) -> Path:
        """Write a login into `directory`, for DOCKER_CONFIG."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        login = base64.b64encode(f"AWS:{self.token(seconds)}".encode()).decode()
        path = directory / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"auths": {self.address: {"auth": login}}}))
        return directory

    def _change(self, name: str, key: str, value: object) -> None:
        path = self.home / name
        with shell.locked(self.home / "lock", f"waiting for another change of {path}"):
            content = json.loads(path.read_text()) | {key: value}
            shell.write_atomic(path, json.dumps(content), 0o600)


@contextmanager
def serve(home: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Registry]:
    """Run a registry that keeps everything in `home`; `port` 0 takes a free one. It ends with this process."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("repositories.json", "tokens.json"):
        if not (home / name).exists():
            (home / name).write_text("{}")
    authority = Authority(home / "pki", "registry")
    certificate, key = authority.issue("server", "registry", addresses=["localhost", _address(host)])
    own = authority.certificate_path.read_text()
    (home / "certificates.pem").write_text(own + _known_certificates())
    with (
        distribution(home) as upstream,
        _process(
            _rules(home, f"http://{upstream}", f"{host}:{port}", certificate, key),
            home / "rules.log",
            r"Listening at: https://(\S+)",
        ) as address,
    ):
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


def _rules(home: Path, upstream: str, bind: str, certificate: Path, key: Path) -> list[str]:
    application = f"flaskapp_deploy.rehearsal.ecr:create_app({upstream!r}, {str(home)!r})"
    options = ["--bind", bind, "--worker-class", "gthread", "--threads", "8", "--no-control-socket"]
    options += ["--certfile", str(certificate), "--keyfile", str(key)]
    return [sys.executable, "-m", "gunicorn", *options, application]


@contextmanager
def _process(command: Sequence[str], log: Path, ready: str) -> Iterator[str]:
    """Run a server until the block ends; give what the `ready` expression finds in its log."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGES), "OTEL_TRACES_EXPORTER": "none"}
    with log.open("wb") as output:
        # It ends with its parent, however that ends.
        parent = ["setpriv", "--pdeathsig=TERM"]
        process = subprocess.Popen(
            [*parent, *command], stdout=output, stderr=output, env=environment, cwd=log.parent, start_new_session=True
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not (match := re.search(ready, log.read_text(errors="replace"))):
            if process.poll() is not None or time.monotonic() > deadline:
                last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise RegistryError(f"{command[0]} did not start within {SECONDS} s; the last lines of {log}:\n{last}")
            time.sleep(0.05)
        yield match[1]
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(host: str) -> IPv4Address | str:
    try:
        return IPv4Address(host)
    except ValueError:
        return host


def _known_certificates() -> str:
    known = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    return known.read_text() if known.exists() else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="registry", description="Serve ECR's stand-in.")
    parser.add_argument("--repository", action="append", default=[], metavar="NAME", help="create it; may be repeated")
    parser.add_argument("--home", type=Path, metavar="DIR", help="where to keep everything (default: nowhere)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="flaskapp-registry-") as nowhere:
        try:
            with serve(arguments.home or Path(nowhere), host=arguments.host, port=arguments.port) as registry:
                for name in arguments.repository:
                    registry.create(name)
                print(f"export SSL_CERT_FILE={registry.certificates}")
                print(
                    f"helm registry login {registry.address} --username AWS --password {registry.token()}", flush=True
                )
                signal.pause()
        except KeyboardInterrupt:
            return 0
        except (RegistryError, DeployError) as error:
            shell.say(f"registry: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
