"""`flaskapp-deploy run`: the service alone on localhost, on a PostgreSQL that keeps its data between runs."""

import os
import secrets
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import requests

from flaskapp_deploy.resources import ROOT
from flaskapp_deploy.shell import DeployError, is_free, stop, wait_until, write_atomic
from flaskapp_deploy.up.postgres import Postgres

SOURCE = ROOT / "src"
START_TIMEOUT = 30.0  # seconds

BODY = '{"service": "shop", "environment": "staging", "version": "1.0.0", "status": "succeeded"}'
CURL = """
The release ledger answers on {url} (Ctrl-C ends it; data is kept in {home})

  curl -s {url}/readyz
  curl -s {url}/api/v1/deployments -H "Authorization: Bearer $(cat {token})" \\
    --json '{body}'
  curl -s {url}/api/v1/deployments
  curl -s {url}/api/v1/services/shop
"""


def main(port: int) -> None:
    """Serve on this port of 127.0.0.1 until Ctrl-C; migrations first."""
    if not is_free(port):
        raise DeployError(f"port {port} is in use; free it, or choose another: PORT=8001 make run")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # through the `finally` below, so nothing is left
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "flaskapp"
    server = Postgres(home / "postgres", _secret(home / "password").read_text())
    try:
        server.start()
        _serve(server, port, home)
    finally:
        server.stop()


def _serve(server: Postgres, port: int, home: Path) -> None:
    token = _secret(home / "admin-token")
    environment = os.environ | {
        "API_ADMIN_TOKEN_FILE": str(token),
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(server.port),
        "DB_NAME": "postgres",
        "DB_USERNAME": "postgres",
        "DB_PASSWORD": server.password,
        "PORT": str(port),
        "METRICS_PORT": os.environ.get("METRICS_PORT", "0"),
        "PYTHONPATH": str(SOURCE),
    }
    run = [sys.executable, "-m"]
    if subprocess.run([*run, "flaskapp", "db", "upgrade"], env=environment).returncode:
        raise DeployError("the migrations failed; the lines above say why")
    url = f"http://127.0.0.1:{port}"
    web = subprocess.Popen([*run, "gunicorn", "--bind", f"127.0.0.1:{port}"], cwd=SOURCE, env=environment)
    try:
        wait_until(lambda: _answers(f"{url}/readyz"), START_TIMEOUT, "the service", [], lambda: web.poll() is None)
        print(CURL.format(url=url, home=home, token=shlex.quote(str(token)), body=BODY), flush=True)
        web.wait()
    finally:
        stop(web, grace=30)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=3).ok
    except requests.RequestException:
        return False


def _secret(path: Path) -> Path:
    """Made once, readable by this user alone."""
    if not path.exists():
        write_atomic(path, secrets.token_urlsafe(32), 0o600)
    return path
