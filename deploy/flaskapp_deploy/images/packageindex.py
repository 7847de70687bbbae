"""Hands this machine's settings of pip and uv to a build as secrets: no index or certificate ends in a layer."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from flaskapp_deploy import shell

# pip's settings that decide where packages come from, and uv's names for them.
NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
}
CERTIFICATES = "/run/secrets/ca"


def secrets(directory: Path, environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Write the settings as a shell script into `directory`; return the files by the name of their secret."""
    settings = _pip_settings()
    variables: dict[str, str] = {}
    for name in (name for name in NAMES if name in settings):
        variables[f"PIP_{name.upper().replace('-', '_')}"] = settings[name]
        variables[NAMES[name]] = " ".join(settings[name].split())
    if "UV_INDEX" in variables:
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does: the best version of all indexes
    # What is set for uv itself counts more.
    own = ("UV_INDEX", "UV_EXTRA_INDEX", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS", *NAMES.values())
    variables |= {name: value for name, value in environment.items() if name.startswith(own)}
    files = {"index": directory / "index"}
    certificates = Path(settings.get("cert") or environment.get("SSL_CERT_FILE", ""))
    if certificates.is_file():
        files["ca"] = certificates
        variables |= {"PIP_CERT": CERTIFICATES, "SSL_CERT_FILE": CERTIFICATES}
    files["index"].write_text("".join(f"export {name}={shlex.quote(variables[name])}\n" for name in sorted(variables)))
    files["index"].chmod(0o600)
    return files


def _pip_settings() -> dict[str, str]:
    """Read `pip config list`, later sources over earlier ones: files, then `[install]`, then the environment."""
    result = shell.run(sys.executable, "-m", "pip", "config", "list", check=False)
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in result.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                settings[name.rpartition(".")[2]] = value.strip().strip("'\"")
    return settings
